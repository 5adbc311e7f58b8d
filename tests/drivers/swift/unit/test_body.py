# SPDX-License-Identifier: Apache-2.0
"""Segments on their way to Swift: hashed while they are sent, each byte once, and let go of."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.server
import queue
import socket
import struct
import threading
from typing import Any, NamedTuple

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import body, client, connections, publish, sizes, writer
from glance_store.testing import image
from glance_store.transfer.upload import default_budget

SLICE = 256 * 1024
SIZE = 8 * 1024 * 1024 + 7
PLAN = sizes.plan(0, SIZE, 1000, 5 * 1024**3)


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


# -- the body alone


@pytest.mark.parametrize("size", [0, 1, SLICE, SLICE + 1, 3 * SLICE - 1])
def test_slices_are_the_block(size, noted):
    data = image(size)
    with contextlib.closing(body.HashedBody(data)) as sent:
        assert len(sent) == size
        for _again in range(2):
            lengths, whole = [], b""
            for part in sent():
                lengths.append(len(part))
                whole += part
            assert whole == data
            assert all(length == SLICE for length in lengths[:-1])
            assert len(lengths) == -(-size // SLICE)
        assert sent.etag() == sent.etag() == md5(data)
    assert sum(noted) == size


def test_slices_are_hashed_behind_the_sending(noted):
    with contextlib.closing(body.HashedBody(image(2 * SLICE))) as sent:
        slices = sent()
        next(slices)
        assert sum(noted) == 0
        next(slices)
        assert sum(noted) == SLICE
        assert next(slices, None) is None
        assert sum(noted) == 2 * SLICE


@pytest.mark.parametrize("reached", [[0], [3], [2, 0, 1], [1, 3, 2], [4, 4]])
def test_hashing_goes_on_where_it_stopped(reached, noted):
    """However far the tries get: what one has hashed is not hashed by another."""
    data = image(4 * SLICE - 3)
    with contextlib.closing(body.HashedBody(data)) as sent:
        for slices_asked_for in reached:
            slices = sent()
            for _number in range(slices_asked_for):
                next(slices)
        # A slice is not known to be sent before the next one is asked for.
        assert sum(noted) == max(0, max(reached) - 1) * SLICE
        assert sent.etag() == md5(data)
    assert sum(noted) == len(data)


def test_nothing_refers_to_the_block_afterwards():
    block = bytearray(image(2 * SLICE))
    with memoryview(block) as view:
        with contextlib.closing(body.HashedBody(view)) as sent:
            first, second = sent(), sent()
            part = next(second)
        assert next(first, None) is None
        assert next(second, None) is None
        with pytest.raises(ValueError, match="released"):
            len(part)
    block.append(0)  # impossible as long as there is a view


# -- segments on their way to a server


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
    server: Server

    def do_PUT(self) -> None:
        step = self.server.plan.pop(0)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        size = int(self.headers.get("Content-Length", 0))
        self.server.arrived.append(self.rfile.read(size if step.read is None else step.read))
        self.close_connection = step.read is not None
        if step.status is None:
            # Closed like this, the connection is reset.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            return
        self.send_response(step.status)
        self.send_header("ETag", self.server.etag if step.etag is None else step.etag)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_given: Any) -> None:
        """Be silent."""


class Account:
    """Has as many tokens as are wanted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._number = 1

    def token(self) -> str:
        return f"token{self._number}"

    def renew(self, refused: str) -> str:
        self._number += 1
        return self.token()

    def tend(self) -> None:
        """Nothing to do."""

    def prepare(self) -> None:
        """Nothing ends."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def shared(server):
    """What all writers take."""
    settings = connections.Settings(False, None, 10, 30, 3, 1)
    account = Account(f"http://127.0.0.1:{server.server_port}/v1/AUTH_x")
    sender = client.Client(connections.Connections(), settings, account)
    made: list[str] = []
    yield publish.Name(sender, "container", "image"), "uri", False, lambda: made.append("container")
    sender._connections.pool(account.url, settings).clear()


def segmented(shared, threads: int) -> writer.SegmentedWriter:
    return writer.SegmentedWriter(*shared, plan=PLAN, threads=threads, memory=6 * SIZE)


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
        "damaged",
        "early-success",
    ],
)
def test_segment_is_hashed_once(plan, server, shared, noted):
    data = image(SIZE)
    block = bytearray(data)
    server.etag = md5(data)
    server.plan = [*plan]
    made = segmented(shared, 1)
    with memoryview(block) as view:
        made.write(0, view)
    block.append(0)  # impossible as long as there is a view
    assert sum(noted) == SIZE
    assert server.plan == []
    assert made.manifest._stored[1][1:] == (md5(data), SIZE)
    for step, headers, arrived in zip(plan, server.headers, server.arrived, strict=True):
        assert headers["content-length"] == str(SIZE)
        assert "transfer-encoding" not in headers
        assert arrived == data[: step.read]


@pytest.mark.parametrize("step", [RESET, DAMAGED, Step(read=SLICE, status=507)])
def test_segment_that_fails_is_let_go_of(step, server, shared, noted):
    block = bytearray(image(SIZE))
    server.plan = [step] * 4
    made = segmented(shared, 1)
    with memoryview(block) as view, pytest.raises(exceptions.GlanceStoreException) as caught:
        made.write(0, view)
    # The error is still there, and with it the frames that it came through.
    assert caught.value.__traceback__ is not None
    block.append(0)
    assert sum(noted) <= SIZE
    assert made.manifest._stored == {}


@pytest.mark.parametrize("plan", [[Step()], [RESET, DAMAGED, Step()]], ids=["at-once", "again"])
def test_segment_from_a_file(plan, server, shared, tmp_path):
    """Its MD5 is known before, and its body begins anew as well."""
    data = image(SIZE)
    server.etag = md5(data)
    server.plan = [*plan]
    made = writer.BufferedSegmentsWriter(
        *shared, plan=PLAN, folder=str(tmp_path), block_size=SIZE // 3
    )
    for offset in range(0, SIZE, made.block_size):
        made.write(offset, memoryview(data)[offset : offset + made.block_size])
    made.cancel()
    assert server.plan == []
    assert made.manifest._stored[1][1:] == (md5(data), SIZE)
    assert server.arrived[-1] == data
    assert all(headers["content-length"] == str(SIZE) for headers in server.headers)


# -- several segments


@pytest.mark.parametrize("failing", [False, True], ids=["sent", "broken-off"])
def test_next_segment_is_sent_while_an_answer_is_waited_for(failing, shared, monkeypatch):
    """As many are sent at once as configured; what only waits for Swift's disks is none of them."""
    begun: queue.Queue[int] = queue.Queue()
    go_on = [threading.Event() for _number in range(4)]
    answer = threading.Event()
    sending: list[int] = []
    most: list[int] = []

    def send(_upload, _manifest, number, _etag, sent, _size):
        sending.append(number)
        most.append(len(sending))
        begun.put(number)
        assert go_on[number].wait(30)
        sending.remove(number)
        if failing:
            raise exceptions.StorageFull
        for _part in sent():
            pass
        assert answer.wait(30)

    monkeypatch.setattr(writer, "send_segment", send)
    made = segmented(shared, 2)
    assert made.concurrency == 4
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        writes = [pool.submit(made.write, at * SIZE, memoryview(b"data")) for at in range(3)]
        first, second = begun.get(timeout=30), begun.get(timeout=30)
        go_on[first].set()
        third = begun.get(timeout=30)
        assert {first, second, third} == {1, 2, 3}
        assert not answer.is_set()
        for event in (*go_on, answer):
            event.set()
        outcomes = [write.exception() for write in writes]
    assert [type(outcome) for outcome in outcomes] == [
        exceptions.StorageFull if failing else type(None)
    ] * 3
    assert max(most) == 2


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_segments_in_memory(threads, shared):
    made = segmented(shared, threads)
    assert default_budget(made) == threads + 2
    assert made.concurrency == (1 if threads == 1 else threads + 2)
