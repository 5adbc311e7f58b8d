# SPDX-License-Identifier: Apache-2.0
"""Responses to range requests: the bytes that were asked for, or an error."""

from __future__ import annotations

import abc
import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from glance_store import exceptions
from glance_store._drivers._objects.errors import NoResult
from glance_store.i18n import _
from glance_store.transfer.interface import Extent
from glance_store.transfer.memory import Memory

_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", re.IGNORECASE)
_NOTHING_THERE = re.compile(r"\s*bytes\s+\*/(\d+)\s*", re.IGNORECASE)
_PARTIAL = 206
_COMPLETE = 200
_UNSATISFIABLE = 416
# Content codings that change no byte, or that S3 only reports.
_PLAIN = frozenset({"", "identity", "aws-chunked"})
# A request for the first byte, to learn the size of an object.
FIRST_BYTE = {"Range": "bytes=0-0"}
_SKIP = 1024 * 1024


class ResponseBody(Protocol):
    """The body of a response."""

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes; raise errors of this library."""
        ...

    def close(self) -> None:
        """Drop what was not read."""
        ...

    def interrupt(self) -> None:
        """End a read in another thread."""
        ...


class Part(NamedTuple):
    """The bytes of an object that a response holds."""

    start: int
    stop: int


def bare_etag(text: str | None) -> str:
    """Return an ETag without its quotes, and without the weak mark that proxies add."""
    text = (text or "").strip()
    return text.removeprefix("W/").removeprefix("w/").strip('"')


def content_coding(headers: Mapping[str, Any]) -> str:
    """Return the content coding of a response; empty if it is plain. Header names: lower case."""
    named = str(headers.get("content-encoding", "")).lower().replace(" ", "").split(",")
    return ",".join(name for name in named if name not in _PLAIN)


def size_of(status: int, headers: Mapping[str, Any]) -> int | None:
    """Return an object's size from the response to HEAD or to a request for its first byte."""
    ranged = str(headers.get("content-range", ""))
    if status == _PARTIAL:
        found = _CONTENT_RANGE.fullmatch(ranged)
        return int(found[3]) if found is not None and found[3] != "*" else None
    if status == _UNSATISFIABLE:
        # Without a first byte it is empty, even if the response does not say so.
        found = _NOTHING_THERE.fullmatch(ranged)
        return int(found[1]) if found is not None else 0
    length = str(headers.get("content-length", ""))
    return int(length) if length.isdecimal() else None


def part_of(
    status: int,
    headers: Mapping[str, Any],
    offset: int,
    length: int,
    size: int,
    action: str,
    coding: str = "",
) -> Part:
    """Return which bytes a response holds; raise NoResult if they are not those asked for.

    `coding` is the content coding of the stored object.
    """
    if content_coding(headers) != coding:
        raise NoResult(
            _(
                "%(action)s: the data arrived in another encoding than it was stored in "
                "(%(coding)s): look for a proxy that compresses"
            ),
            action=action,
            coding=content_coding(headers) or "-",
        )
    if status == _PARTIAL:
        found = _CONTENT_RANGE.fullmatch(str(headers.get("content-range", "")))
        if found is not None:
            part = Part(int(found[1]), int(found[2]) + 1)
            # It may end early; the rest is then requested again.
            right = part.start == offset < part.stop <= offset + length
            # A body longer than the range it names is something else.
            sent = str(headers.get("content-length", ""))
            right = right and not (sent.isdecimal() and int(sent) > part.stop - part.start)
            if right and found[3] in ("*", str(size)):
                return part
    elif status == _COMPLETE and str(headers.get("content-length", size)) == str(size):
        # A service without ranges sends the whole object; the bytes before the range are skipped.
        return Part(0, size)
    raise NoResult(_("%(action)s: the service sent other bytes than requested"), action=action)


class RangeStream:
    """The bytes of a range, from the body of a response.

    When closed while bytes outside the range still follow, it hands itself to `keep`.
    """

    def __init__(
        self,
        body: ResponseBody,
        part: Part,
        offset: int,
        length: int,
        action: Callable[[int], str],
        keep: Callable[[RangeStream], None] | None = None,
    ) -> None:
        self._body = body
        self._part = part
        self._position = part.start
        self._action = action
        self.aim(offset, length, keep)

    @property
    def position(self) -> int:
        """The offset of the next byte."""
        return self._position

    def reaches(self, offset: int) -> bool:
        """Tell whether the byte at an offset is still to come."""
        return self._position <= offset < self._part.stop

    def aim(
        self, offset: int, length: int, keep: Callable[[RangeStream], None] | None = None
    ) -> None:
        """Continue with a range that does not begin before `position`."""
        self._next = offset
        self._stop = min(offset + length, self._part.stop)
        self._keep = keep if self._part.stop > self._stop else None

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes; none at the end of the range."""
        while self._position < self._next:
            self._receive(min(_SKIP, self._next - self._position))
        wanted = min(length, self._stop - self._position)
        if not wanted:
            return b""
        data = self._receive(wanted)
        self._next = self._position
        return data

    def _receive(self, wanted: int) -> bytes:
        data = self._body.read(wanted)
        if not data:
            raise exceptions.BackendUnavailable(
                _("%(action)s: the response ended early"), action=self._action(self._position)
            )
        self._position += len(data)
        return data

    def interrupt(self) -> None:
        """End a read in another thread."""
        self._keep = None
        self._body.interrupt()

    def close(self) -> None:
        """Drop what was not read, unless it can be reused."""
        keep, self._keep = self._keep, None
        if keep is not None and self._position < self._part.stop:
            keep(self)
        else:
            self._body.close()


class ReusableStream:
    """Keeps the open response of a service that sends the whole object for every range.

    Reading on is cheap. For a new request, the service would send everything before the range
    again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: RangeStream | None = None
        self._closed = False

    def keep(self, stream: RangeStream) -> None:
        """Keep a response in place of the last one."""
        with self._lock:
            if not self._closed:
                stream, self._stream = self._stream, stream  # type: ignore[assignment]
        if stream is not None:
            stream.close()

    def take(self, offset: int, length: int) -> RangeStream | None:
        """Return the kept response if it can serve a range."""
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is None:
            return None
        if not stream.reaches(offset):
            stream.close()
            return None
        stream.aim(offset, length, self.keep)
        return stream

    def close(self) -> None:
        """Close the kept response."""
        with self._lock:
            self._closed = True
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class RangeReader(abc.ABC):
    """A stored image read as streams; a subclass sets `size` and requests the ranges."""

    size: int

    def __init__(self, concurrency: int, range_size: int, memory: Memory) -> None:
        self.concurrency = concurrency
        self.range_size = range_size
        self.memory = memory
        self._reusable = ReusableStream()

    def open_stream(self, offset: int, length: int) -> RangeStream:
        """Request bytes at an offset, which the image has; the response may end before the last."""
        kept = self._reusable.take(offset, length)
        if kept is not None:
            return kept
        body, part = self._ask(offset, length)
        if part.stop > offset + length:
            # The service ignores ranges: parallel requests would all get the same bytes.
            self.concurrency = 1
        return RangeStream(body, part, offset, length, self._action, self._reusable.keep)

    @abc.abstractmethod
    def _ask(self, offset: int, length: int) -> tuple[ResponseBody, Part]:
        """Request bytes; return the body of the response, and which bytes of the image it holds."""

    @abc.abstractmethod
    def _action(self, offset: int) -> str:
        """Describe a read at an offset, for errors."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset; none only at the end of the image."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        with contextlib.closing(self.open_stream(offset, length)) as stream:
            return stream.read(length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Report everything as data: object stores have no holes."""
        yield Extent(offset, length, True)

    def close(self) -> None:
        """Close a response kept for reuse."""
        self._reusable.close()
