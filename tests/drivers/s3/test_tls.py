# SPDX-License-Identifier: Apache-2.0
"""TLS: a private authority, unsigned payloads, and a checksum in their place."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import types
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from glance_store import exceptions
from glance_store._drivers._objects import body
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.service import PATIENT
from tests.faults.http import How
from tests.services.http_server import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.drivers.s3.conftest import Images
    from tests.drivers.s3.service import Service
    from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.services

PART = 5 * 1024 * 1024


class TlsFront:
    """Ends TLS in front of a server, and remembers the heads of requests."""

    def __init__(self, authority: trustme.CA, target_port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = bytearray()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _address = self._listener.accept()
            except OSError:
                return
            try:
                client = self._context.wrap_socket(raw, server_side=True)
            except (ssl.SSLError, OSError):
                raw.close()
                continue
            server = socket.create_connection(self._target)
            self._ends += [client, server]
            for source, sink, keep in ((client, server, True), (server, client, False)):
                thread = threading.Thread(target=self._pump, args=(source, sink, keep), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        try:
            while data := source.recv(65536):
                if keep and b"HTTP/1.1\r\n" in data:
                    self.sent += data.partition(b"\r\n\r\n")[0].lower() + b"\n"
                sink.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def front(authority: trustme.CA, proxy: FaultProxy) -> Iterator[TlsFront]:
    server = TlsFront(authority, proxy.port)
    yield server
    server.close()


@pytest.fixture
def tls(
    make: Callable[..., Images], front: TlsFront, authority: trustme.CA, tmp_path: Path
) -> Iterator[Callable[..., Images]]:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    made: list[Images] = []

    def create(**options: Any) -> Images:
        host = f"https://127.0.0.1:{front.port}"
        images = make(**{"s3_store_host": host, "s3_store_cacert": str(path), **options})
        made.append(images)
        return images

    yield create
    for images in made:
        images.store._client().s3.close()


def test_r203_private_authority(tls: Callable[..., Images], front: TlsFront) -> None:
    images = tls()
    data = image(2 * PART + 3)
    uri = images.add("private", data)
    assert uri.startswith(f"s3+https://127.0.0.1:{front.port}/")
    check_bytes(images.read(uri), data)


def test_payload_is_not_hashed_twice(tls: Callable[..., Images], front: TlsFront) -> None:
    """Bodies carry a fast checksum, and their SHA-256 is not signed."""
    tls().add("hashed", image(PART + 3))
    parts = [head for head in bytes(front.sent).split(b"\n\n") if b"partnumber" in head]
    heads = bytes(front.sent)
    assert heads.count(b"x-amz-checksum-%b: " % body.crc_name().lower().encode()) == 2
    assert b"content-md5" not in heads
    assert heads.count(b"unsigned-payload") >= 2
    assert b"expect:" not in heads
    assert parts


def test_r203_unknown_authority(tls: Callable[..., Images]) -> None:
    images = tls(s3_store_cacert="")
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="s3_store_cacert"):
        images.add("private", b"data")


def test_proxy_is_a_tunnel(tls: Callable[..., Images], front: TlsFront) -> None:
    """It sees the name of the service, and nothing that is sent there."""
    with Proxy() as proxy:
        images = tls(s3_store_proxies={"https": proxy.url("")})
        data = image(PART + 3)
        check_bytes(images.read(images.add("tunnelled", data)), data)
        images.store._client().s3.close()
    assert {(one.method, one.target) for one in proxy.requests} == {
        ("CONNECT", f"127.0.0.1:{front.port}")
    }


# -- a checksum of the newer kind in place of Content-MD5

CHECKSUMS = {
    "s3_store_enable_data_integrity_protection": True,
    "s3_store_request_checksum_calculation": "when_supported",
}


@pytest.fixture
def crc32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without the library for CRC-32C."""
    monkeypatch.setattr(body, "crc32c", lambda: None)


def crc32(data: bytes) -> bytes:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).lower()


@pytest.mark.usefixtures("crc32_alone")
@pytest.mark.parametrize("size", [1000, PART + 3], ids=["put", "parts"])
def test_r206_checksum_is_a_header(tls: Callable[..., Images], front: TlsFront, size: int) -> None:
    """Not a trailer behind a chunked body, which services refuse that know neither."""
    images = tls(**CHECKSUMS)
    data = image(size)
    uri = images.add("summed", data)
    check_bytes(images.read(uri), data)
    heads = bytes(front.sent)
    for block in (data[:PART], data[PART:]):
        assert heads.count(b"x-amz-checksum-crc32: " + crc32(block)) == bool(block)
    assert b"aws-chunked" not in heads
    assert b"x-amz-trailer" not in heads
    assert b"content-md5" not in heads
    # The service has to know of the checksums before the first part.
    assert heads.count(b"x-amz-checksum-algorithm: crc32") == (size > PART)


@pytest.mark.usefixtures("crc32_alone", "brisk")
def test_checksum_is_computed_once_for_all_tries(
    tls: Callable[..., Images], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tls(**CHECKSUMS, s3_store_retry_timeout=PATIENT)
    summed: list[int] = []

    def counting(data: Any, *start: int) -> int:
        summed.append(len(data))
        return zlib.crc32(data, *start)

    # Both the store's own place and that of the client library.
    monkeypatch.setattr(body, "zlib", types.SimpleNamespace(crc32=counting))
    monkeypatch.setattr("botocore.httpchecksum.crc32", counting)
    data = image(2 * PART + 5)
    proxy.fail_request(4, 503, times=1)
    proxy.fail_request(5, how=How.RESET, after=0, times=1)
    uri = images.add("again", data)
    puts = [request for request in proxy.requests if request.method == "PUT"]
    assert len(puts) == 3 + 2
    assert sorted(summed) == [5, PART, PART]
    check_bytes(images.read(uri), data)


# The RADOS gateway 16.2 stores objects without a look at these checksums.
@pytest.mark.parametrize("link", ["swift"], indirect=True)
@pytest.mark.parametrize("size", [1000, PART + 3], ids=["put", "parts"])
def test_checksum_is_verified_by_the_service(
    tls: Callable[..., Images], service: Service, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Bytes that change on the way are not stored."""
    monkeypatch.setattr(body.RequestBody, "crc", ("CRC32", "AAAAAA=="))
    with pytest.raises(exceptions.BackendException, match=r"BadDigest|checksum"):
        tls(**CHECKSUMS).add("damaged", image(size))
    assert service.listing() == []
