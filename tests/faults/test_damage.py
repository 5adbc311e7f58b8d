# SPDX-License-Identifier: Apache-2.0
"""The fault proxy changes one byte of what a client sends, and nothing else."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

from tests.faults.conftest import PATIENCE
from tests.faults.http import Body, How, RequestReader
from tests.faults.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.conftest import Serving

DATA = b"0123456789" * 20_000
DAMAGED = b"1" + DATA[1:]


@pytest.fixture
def proxy(uploads: Serving) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", uploads.port, http=True) as between:
        yield between


def put(proxy: FaultProxy, path: str, data: bytes, piece: int | None = None) -> tuple[int, bytes]:
    """Send data, in chunks if `piece` says how large; return the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    chunks = [data[at : at + piece] for at in range(0, len(data), piece)] if piece else None
    connection.request("PUT", path, chunks or data, encode_chunked=bool(chunks))
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("piece", [None, 1, 7, 150_000], ids=["length", "1", "7", "large"])
def test_one_byte_is_another(proxy: FaultProxy, uploads: Serving, piece: int | None) -> None:
    data = DATA if piece != 1 else DATA[:50]
    proxy.fail_request(2, how=How.DAMAGE)
    for path in ("/a", "/b", "/c"):
        assert put(proxy, path, data, piece) == (201, b"stored")
    assert uploads.received == [("/a", data), ("/b", DAMAGED[: len(data)]), ("/c", data)]


def test_its_repetitions_too(proxy: FaultProxy, uploads: Serving) -> None:
    proxy.fail_request(1, how=How.DAMAGE, times=2)
    for _time in range(3):
        put(proxy, "/a", DATA)
    assert [body for _path, body in uploads.received] == [DAMAGED, DAMAGED, DATA]


def test_without_a_body_there_is_nothing_to_damage(proxy: FaultProxy, uploads: Serving) -> None:
    proxy.fail_request(1, how=How.DAMAGE)
    for path, data in (("/a", b""), ("/b", DATA)):
        put(proxy, path, data)
    assert uploads.received == [("/a", b""), ("/b", DATA)]


def test_the_answer_is_lost_as_well(proxy: FaultProxy, uploads: Serving) -> None:
    proxy.fail_request(1, how=How.DAMAGE)
    proxy.fail_request(1, how=How.RESET, after=0)
    with pytest.raises(OSError, match="reset"):
        put(proxy, "/a", DATA)
    assert uploads.received == [("/a", DAMAGED)]


def test_it_ends_no_answer(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="second call"):
        proxy.fail_request(1, how=How.DAMAGE, after=0)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_between_chunks_are_known(size: int) -> None:
    data = (
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\nGET \r\n1\r\n/\r\n0\r\n\r\n"
    )
    reader = RequestReader()
    content = b""
    for start in range(0, len(data), size):
        for part in reader.feed(memoryview(data[start : start + size])):
            if isinstance(part, Body) and not part.framing:
                content += bytes(part.data).removesuffix(b"\r\n").removesuffix(b"\r")
    assert content == b"GET /"
