# SPDX-License-Identifier: Apache-2.0
"""Segments on their way to Swift: hashed while they are sent, each byte once, and let go of."""

from __future__ import annotations

import hashlib
import http.server
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import body
from glance_store._drivers.swift import streamed, upload
from glance_store.testing import image
from glance_store.transfer.memory import Memory
from glance_store.transfer.multipart import EqualParts, MultipartWriter
from tests.drivers.swift.loopback import client_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE = 256 * 1024
SIZE = 8 * 1024 * 1024 + 7


class Limits(NamedTuple):
    most: int
    largest: int


LIMITS = Limits(1000, 5 * 1024**3)


class _Digest:
    """A real MD5 that notes how many bytes it gets."""

    def __init__(self, noted: list[int], **given: Any) -> None:
        self._digest = hashlib.md5(**given)
        self._noted = noted

    def update(self, data: memoryview) -> None:
        self._noted.append(len(data))
        self._digest.update(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


@pytest.fixture
def noted(monkeypatch) -> list[int]:
    """Lengths of all that bodies hash."""
    lengths: list[int] = []

    class Module:
        @staticmethod
        def md5(**given: Any) -> _Digest:
            return _Digest(lengths, **given)

    monkeypatch.setattr(body, "hashlib", Module)
    return lengths


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Step(NamedTuple):
    """What the server does with a request: reads some bytes of it, and answers or breaks off."""

    read: int | None = None  # bytes; None for all
    status: int | None = 201  # None: breaks off
    etag: str | None = None  # None: of the segment


RESET = Step(read=3 * SLICE, status=None)
DAMAGED = Step(etag="0" * 32)


class Server(http.server.ThreadingHTTPServer):
    """Takes segments by a plan, and keeps what arrived of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        # So that not all of a body can be on its way: its sender learns of the end of the rest.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.plan: list[Step] = []
        self.etag = ""
        self.headers: list[dict[str, str]] = []
        self.arrived: list[bytes] = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0
    server: Server

    def do_PUT(self) -> None:
        step = self.server.plan.pop(0)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        size = int(self.headers.get("Content-Length", 0))
        self.server.arrived.append(self.rfile.read(size if step.read is None else step.read))
        self.close_connection = True
        if step.status is None:
            # Closed like this, the connection is reset.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            return
        self.send_response(step.status)
        self.send_header("ETag", self.server.etag if step.etag is None else step.etag)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_given: Any) -> None:
        """Be silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def upload_to(server: Server, verify: bool = True, **options: Any) -> upload.Upload:
    url = f"http://127.0.0.1:{server.server_port}/v1/AUTH_x"
    made: list[str] = []

    def ensure() -> bool:
        made.append("container")
        return True

    sent = upload.Upload(client_of(url, **options), "container", "image", ensure, verify)
    sent.made = made  # type: ignore[attr-defined]
    return sent


@pytest.mark.parametrize("verify", [True, False], ids=["verified", "not-verified"])
@pytest.mark.parametrize(
    "plan",
    [
        [Step()],
        [RESET, Step()],
        [RESET, RESET._replace(read=SLICE), RESET._replace(read=6 * SLICE), Step()],
        [Step(status=503), Step()],
        [Step(read=SLICE, status=503), Step()],
        [Step(status=401), Step()],
        [Step(read=2 * SLICE, status=401), Step()],
        [Step(status=404), Step()],
        [Step(status=422), Step()],
        [DAMAGED, RESET, Step()],
        # An answer before all was read; nothing says that it is wrong.
        [Step(read=SLICE)],
    ],
    ids=[
        "at-once",
        "reset",
        "resets",
        "503",
        "early-503",
        "401",
        "early-401",
        "no-container",
        "refused-as-damaged",
        "damaged",
        "early-success",
    ],
)
def test_segment_is_hashed_once(plan, verify, server, noted):
    if DAMAGED in plan and not verify:
        plan = plan[1:]
    data = image(SIZE)
    block = bytearray(data)
    server.etag = f'W/"{md5(data)}"'
    server.plan = [*plan]
    sent = upload_to(server, verify)
    with memoryview(block) as view:
        sent.put_part(1, view)
    block.append(0)  # impossible as long as there is a view
    assert sum(noted) == (SIZE if verify else 0)
    assert server.plan == []
    assert sent._stored[1][1:] == (md5(data), SIZE)
    for step, headers, arrived in zip(plan, server.headers, server.arrived, strict=True):
        assert headers["content-length"] == str(SIZE)
        assert "transfer-encoding" not in headers
        assert arrived == data[: step.read]
    assert sent.made == (["container"] if plan[0].status == 404 else [])


def test_segment_of_which_swift_says_nothing_is_hashed_for_the_manifest(server, noted):
    data = image(SIZE)
    server.plan = [Step(etag="")]
    sent = upload_to(server, verify=False)
    with memoryview(data) as view:
        sent.put_part(1, view)
    assert sent._stored[1][1:] == (md5(data), SIZE)


@pytest.mark.parametrize("step", [RESET, DAMAGED, Step(read=SLICE, status=507)])
def test_segment_that_fails_is_let_go_of(step, server, noted):
    block = bytearray(image(SIZE))
    server.plan = [step] * 100
    sent = upload_to(server, patience=0.5)
    with memoryview(block) as view, pytest.raises(exceptions.GlanceStoreException) as caught:
        sent.put_part(1, view)
    # The error is still there, and with it the frames that it came through.
    assert caught.value.__traceback__ is not None
    block.append(0)
    assert sum(noted) <= SIZE
    assert sent._stored == {}


@pytest.mark.parametrize("plan", [[Step()], [RESET, DAMAGED, Step()]], ids=["at-once", "again"])
def test_segment_from_a_file(plan, server, tmp_path):
    """Its MD5 is known before, and its body begins anew as well."""
    data = image(SIZE)
    server.etag = md5(data)
    server.plan = [*plan]
    sent = upload_to(server)
    size = SIZE // 3
    plan = EqualParts(SIZE, LIMITS, SIZE)
    made = streamed.StreamedWriter(sent, SIZE, size, plan, Memory(SIZE), folder=str(tmp_path))
    for offset in range(0, SIZE, size):
        made.write(offset, memoryview(data)[offset : offset + size])
    assert server.plan == []
    assert sent._stored[1][1:] == (md5(data), SIZE)
    assert server.arrived[-1] == data
    assert all(headers["content-length"] == str(SIZE) for headers in server.headers)


# -- several segments


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_segments_in_memory(threads, server):
    """As many as are sent at once, one that is filled meanwhile, and one for the next."""
    plan = EqualParts(SIZE, LIMITS, 10 * SIZE)
    made = MultipartWriter(upload_to(server), plan, "uri", 10 * SIZE, 0, threads, Memory(10 * SIZE))
    assert made.concurrency == threads
    assert made.blocks_held == threads + 2


def test_failure_does_not_wait_for_segments_that_are_tried_again(server):
    """Their pauses end, and nothing more is sent."""
    sent = upload_to(server, patience=3600)
    server.plan = [Step(status=503)] * 1000
    data = image(SLICE)
    errors: list[BaseException] = []

    def put(number: int) -> None:
        try:
            with memoryview(data) as view:
                sent.put_part(number, view)
        except exceptions.BackendException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=put, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    sent.interrupt()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(errors) == 2
