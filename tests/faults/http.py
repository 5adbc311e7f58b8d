# SPDX-License-Identifier: Apache-2.0
"""As much of HTTP/1.1 as it takes to count requests and to fail the right one."""

from __future__ import annotations

import dataclasses
import enum
import http
from collections.abc import Iterator
from typing import NamedTuple

_LARGEST_HEAD = 256 * 1024
_LONGEST_LINE = 16 * 1024
_USUAL_LINE = 128


class How(enum.Enum):
    """How a request fails."""

    ANSWER = "answer"  # an answer with an error status
    RESET = "reset"  # the connection is reset (RST)
    TRUNCATE = "truncate"  # the connection ends in order (FIN), too early
    SILENCE = "silence"  # the connection stays open, and nothing comes any more
    DAMAGE = "damage"  # the server gets another byte than was sent, and answers as it likes


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that came through the proxy."""

    number: int  # from 1
    method: str
    target: str


class Head(NamedTuple):
    """The head of a request."""

    raw: bytes
    method: str
    target: str
    has_body: bool
    keep_alive: bool
    expects_continue: bool


class Body(NamedTuple):
    """A part of what follows a head."""

    data: memoryview
    last: bool
    framing: bool = False  # lines between chunks


class RequestReader:
    """Cuts what a client sends into heads and bodies.

    Bodies of a known length are counted, not looked at; of chunked ones only the lines between the
    chunks. What is no HTTP is handed on as a body without an end.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        # Bytes until the next thing to parse; None: nothing will ever be parsed again.
        self._left: int | None = 0
        # Where the parser is: in a "head", in a "length" of bytes, or in parts of a chunked body.
        self._state = "head"

    def feed(self, data: memoryview) -> Iterator[Head | Body]:
        """Yield the parts of what has arrived, in order, every byte once.

        :param data: the next bytes
        """
        while data:
            if self._left is None:
                yield Body(data, False)
                return
            if self._state == "head":
                head, data = self._head(data)
                if head is not None:
                    yield head
                continue
            part, data = self._body(data)
            yield part

    def _head(self, data: memoryview) -> tuple[Head | Body | None, memoryview]:
        known = len(self._line)
        self._line += data
        if not known:
            # Some clients end a body with an empty line too many.
            stray = len(self._line) - len(self._line.lstrip(b"\r\n"))
            del self._line[:stray]
        end = self._line.find(b"\r\n\r\n", max(0, known - 3))
        if end < 0:
            if len(self._line) > _LARGEST_HEAD or not _may_be_http(self._line):
                return self._give_up(), data[:0]
            return None, data[:0]
        raw, rest = bytes(self._line[: end + 4]), bytes(self._line[end + 4 :])
        head, length, opaque = _parse(raw)
        if head is None:
            return self._give_up(), data[:0]
        self._line.clear()
        if opaque:
            self._left = None
        elif length is None:
            self._state = "size"
        elif length:
            self._state, self._left = "length", length
        return head, memoryview(rest)

    def _give_up(self) -> Body:
        self._left = None
        raw = bytes(self._line)
        self._line.clear()
        return Body(memoryview(raw), False)

    def _body(self, data: memoryview) -> tuple[Body, memoryview]:
        if self._left:
            part, data = data[: self._left], data[self._left :]
            # Of a chunk the end of its line is left when all of it has come.
            framing = self._state == "chunk" and self._left <= len(b"\r\n")
            self._left -= len(part)
            if not self._left:
                self._state = "head" if self._state == "length" else "size"
            return Body(part, self._state == "head", framing), data
        begin = bytes(data[:_USUAL_LINE])
        end = begin.find(b"\n") + 1 or len(begin)
        part, data = data[:end], data[end:]
        self._line += part
        if self._line.endswith(b"\n"):
            self._chunk_line()
        elif len(self._line) > _LONGEST_LINE:
            self._left = None
        return Body(part, self._state == "head", True), data

    def _chunk_line(self) -> None:
        line = bytes(self._line).strip()
        self._line.clear()
        if self._state == "trailer":
            self._state = "trailer" if line else "head"
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            self._left = None
            return
        if size:
            self._state, self._left = "chunk", size + 2
        else:
            self._state = "trailer"


def _may_be_http(begin: bytearray) -> bool:
    method = bytes(begin[:20]).partition(b" ")[0]
    return not begin or (method.isalpha() and method.isupper() and len(method) < 20)


def _parse(raw: bytes) -> tuple[Head | None, int | None, bool]:
    """Return a head, the length of its body (None: chunked), and whether no more HTTP follows."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None, 0, True
    headers: dict[str, str] = {}
    for line in lines:
        name, _colon, value = line.partition(":")
        headers[name.strip().lower()] = value.strip().lower()
    chunked = "chunked" in headers.get("transfer-encoding", "")
    written = headers.get("content-length", "0")
    if not written.isdecimal():
        return None, 0, True
    length = None if chunked else int(written)
    connection = headers.get("connection", "")
    old = words[2] == "HTTP/1.0"
    head = Head(
        raw=raw,
        method=words[0],
        target=words[1],
        has_body=length != 0,
        keep_alive="keep-alive" in connection if old else "close" not in connection,
        expects_continue=headers.get("expect") == "100-continue",
    )
    return head, length, words[0] == "CONNECT" or "upgrade" in headers


@dataclasses.dataclass
class Failure:
    """Which request fails, how, and how often; see `FaultProxy.fail_request`."""

    number: int
    how: How
    status: int
    times: int | None
    after: int | None
    drain: bool
    everything: bool
    _same: tuple[str, str] | None = None

    def hits(self, request: Request) -> bool:
        """Say whether a request is to fail, and count it if so.

        :param request: the next request
        """
        if self.times == 0 or request.number < self.number:
            return False
        same = (request.method, request.target)
        if request.number == self.number:
            self._same = same
        elif not self.everything and same != self._same:
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def answer(self, keep_alive: bool) -> bytes:
        """Return the answer that the client gets instead of the server's.

        :param keep_alive: whether the connection can be used again
        """
        try:
            reason = http.HTTPStatus(self.status).phrase
        except ValueError:
            reason = "Injected"
        text = f"HTTP/1.1 {self.status} {reason}\r\nContent-Length: 0\r\n"
        return (text + ("" if keep_alive else "Connection: close\r\n") + "\r\n").encode("ascii")


class Gate:
    """Lets so many bytes of an answer through; the interim ones (``100 Continue``) do not count.

    :param failure: what happens behind them
    """

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self._left = failure.after or 0
        self._held: bytes | None = b""

    def take(self, data: memoryview) -> tuple[bytes | memoryview, bool]:
        """Return what may pass, and whether the failure is due.

        :param data: the next bytes from the server
        """
        passed = b""
        if self._held is not None:
            self._held += bytes(data)
            while self._held[9:10] == b"1":
                end = self._held.find(b"\r\n\r\n") + 4
                if end < 4:
                    break
                passed, self._held = passed + self._held[:end], self._held[end:]
            if len(self._held) < 10 or self._held[9:10] == b"1":
                return passed, False
            data, self._held = memoryview(self._held), None
        part = data[: self._left]
        self._left -= len(part)
        return (passed + bytes(part) if passed else part), not self._left
