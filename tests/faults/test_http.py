# SPDX-License-Identifier: Apache-2.0
"""The proxy's view of HTTP, byte by byte."""

from __future__ import annotations

import pytest

from tests.faults.http import Body, Failure, Gate, Head, How, Request, RequestReader

GET = b"GET /image?a=b HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9\r\n\r\n"
PUT = b"PUT /upload HTTP/1.1\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n0123456789"
CHUNKED = (
    b"PUT /chunks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;a=b\r\nGET \r\nA\r\n/ HTTP/1.1\r\n0\r\nTrailer: x\r\n\r\n"
)
EMPTY = b"PUT /empty HTTP/1.1\r\ncontent-length: 0\r\nConnection: Close\r\n\r\n"
ALL = GET + PUT + CHUNKED + EMPTY + GET
TARGETS = ["/image?a=b", "/upload", "/chunks", "/empty", "/image?a=b"]


def cut(data: bytes, size: int) -> list[Head | Body]:
    reader = RequestReader()
    parts: list[Head | Body] = []
    for start in range(0, len(data), size):
        # Like the buffer of the proxy, which is overwritten.
        for part in reader.feed(memoryview(data[start : start + size])):
            kept = Body(memoryview(bytes(part.data)), part.last) if isinstance(part, Body) else part
            parts.append(kept)
    return parts


def joined(parts: list[Head | Body]) -> bytes:
    return b"".join(part.raw if isinstance(part, Head) else bytes(part.data) for part in parts)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 100, 10_000])
def test_requests_are_found_however_they_arrive(size: int) -> None:
    parts = cut(ALL, size)
    assert joined(parts) == ALL
    heads = [part for part in parts if isinstance(part, Head)]
    assert [head.target for head in heads] == TARGETS
    assert [head.method for head in heads] == ["GET", "PUT", "PUT", "PUT", "GET"]
    assert [head.has_body for head in heads] == [False, True, True, False, False]
    assert [head.keep_alive for head in heads] == [True, True, True, False, True]
    assert [head.expects_continue for head in heads] == [False, True, False, False, False]
    assert sum(part.last for part in parts if isinstance(part, Body)) == 2


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00 a TLS handshake \r\n\r\n",
        b"SSH-2.0-x\r\n\r\n" * 3,
        b"GET / HTTP/2.0\r\n\r\n" * 2,
        b"PUT / HTTP/1.1\r\nContent-Length: many\r\n\r\n" * 2,
        b"A" * 600_000,
        b"GET /" + b"a" * 600_000,
    ],
)
def test_what_is_no_http_passes_as_it_is(size: int, data: bytes) -> None:
    if size == 1:
        data = data[:200] * 2 if len(data) > 1000 else data
    parts = cut(data, size)
    assert not [part for part in parts if isinstance(part, Head)]
    waiting = data.startswith((b"A" * 10, b"GET /a")) and size == 1
    assert joined(parts) == (data if not waiting or data.startswith(b"AA") else b"")


@pytest.mark.parametrize("size", [1, 10_000])
def test_behind_wrong_chunks_nothing_is_looked_for(size: int) -> None:
    head = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = head + b"no number\r\n" + GET
    assert joined(cut(data, size)) == data
    assert len([part for part in cut(data, size) if isinstance(part, Head)]) == 1


def test_a_tunnel_is_one_request() -> None:
    data = b"CONNECT h:443 HTTP/1.1\r\n\r\n" + GET
    assert joined(cut(data, 5)) == data
    assert len([part for part in cut(data, 5) if isinstance(part, Head)]) == 1


def test_http_1_0_does_not_keep_connections() -> None:
    (old,) = cut(b"GET / HTTP/1.0\r\n\r\n", 100)
    (asked,) = cut(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 100)
    assert isinstance(old, Head)
    assert isinstance(asked, Head)
    assert (old.keep_alive, asked.keep_alive) == (False, True)


def test_an_empty_line_too_many_is_no_request() -> None:
    (head,) = cut(b"\r\n" + GET, 3)
    assert isinstance(head, Head)
    assert head.raw == GET


def failure(**options: object) -> Failure:
    defaults = {"number": 2, "how": How.ANSWER, "status": 503, "times": 1, "after": None}
    others = {"drain": True, "everything": False}
    return Failure(**{**defaults, **others, **options})  # type: ignore[arg-type]


REQUESTS = [
    Request(number, "PUT", target)
    for number, target in enumerate(["/a", "/b", "/c", "/b", "/b", "/a"], start=1)
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2]),
        ({"times": 2}, [2, 4]),
        ({"times": None}, [2, 4, 5]),
        ({"times": 3, "everything": True}, [2, 3, 4]),
        ({"times": None, "everything": True}, [2, 3, 4, 5, 6]),
    ],
)
def test_which_requests_fail(options: dict[str, object], expected: list[int]) -> None:
    fault = failure(**options)
    assert [request.number for request in REQUESTS if fault.hits(request)] == expected


def test_answers() -> None:
    fault = failure(status=500)
    assert fault.answer(True) == (
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
    )
    assert b"\r\nConnection: close\r\n" in fault.answer(False)
    assert failure(status=599).answer(True).startswith(b"HTTP/1.1 599 ")


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("after", [0, 1, 9, 20, 10_000])
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2])
def test_the_gate_lets_so_many_bytes_through(size: int, after: int, interim: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    gate = Gate(failure(how=How.RESET, after=after))
    passed, due = b"", False
    data = interim + answer
    for start in range(0, len(data), size):
        part, due = gate.take(memoryview(data[start : start + size]))
        passed += bytes(part)
        if due:
            break
    assert passed == interim + answer[:after]
    assert due is (after <= len(answer))
