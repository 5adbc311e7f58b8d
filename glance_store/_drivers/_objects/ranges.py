# SPDX-License-Identifier: Apache-2.0
"""Answers to requests for a part of an object: the bytes that were asked for, or an error."""

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
from glance_store.transfer.interface import Extent, Stream
from glance_store.transfer.memory import Memory

_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", re.IGNORECASE)
_NOTHING_THERE = re.compile(r"\s*bytes\s+\*/(\d+)\s*", re.IGNORECASE)
_PARTIAL = 206
_COMPLETE = 200
_UNSATISFIABLE = 416
# Content codings that change no byte, or that S3 only names.
_PLAIN = frozenset({"", "identity", "aws-chunked"})
# Asks for so little that all that comes of it is the size of an object.
FIRST_BYTE = {"Range": "bytes=0-0"}
_SKIP = 1024 * 1024


class Bytes(Protocol):
    """The body of an answer."""

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, with errors of this library."""
        ...

    def close(self) -> None:
        """Let go of what was not read."""
        ...

    def interrupt(self) -> None:
        """End a read in another thread."""
        ...


class Part(NamedTuple):
    """Which bytes of an object the body of an answer has."""

    start: int
    stop: int


def bare_etag(text: str | None) -> str:
    """Return an ETag without quotes, and without the sign of a proxy that it is weak.

    :param text: value of the header, as the service or a proxy has written it
    """
    text = (text or "").strip()
    return text.removeprefix("W/").removeprefix("w/").strip('"')


def packing(headers: Mapping[str, Any]) -> str:
    """Return how the bytes of an answer are packed; empty where they are as they are.

    :param headers: of the answer, with small letters in their names
    """
    named = str(headers.get("content-encoding", "")).lower().replace(" ", "").split(",")
    return ",".join(name for name in named if name not in _PLAIN)


def size_of(status: int, headers: Mapping[str, Any]) -> int | None:
    """Return the bytes of an object, from an answer to a request for its first byte.

    :param status: of the answer
    :param headers: of the answer, with small letters in their names
    :returns: None where it does not say
    """
    ranged = str(headers.get("content-range", ""))
    if status == _PARTIAL:
        found = _CONTENT_RANGE.fullmatch(ranged)
        return int(found[3]) if found is not None and found[3] != "*" else None
    if status == _UNSATISFIABLE:
        found = _NOTHING_THERE.fullmatch(ranged)
        return int(found[1]) if found is not None else None
    length = str(headers.get("content-length", ""))
    return int(length) if length.isdecimal() else None


def part_of(
    status: int,
    headers: Mapping[str, Any],
    offset: int,
    length: int,
    size: int,
    action: str,
    packed: str = "",
) -> Part:
    """Return which bytes an answer has, to a request for some of them.

    :param status: of the answer
    :param headers: of the answer, with small letters in their names
    :param offset: first byte that was asked for
    :param length: how many
    :param size: bytes of the object
    :param action: what was tried, for errors
    :param packed: how the object is packed where it is stored
    :raises NoResult: other bytes than those that were asked for
    """
    if packing(headers) != packed:
        raise NoResult(
            _("%(action)s: something on the way has packed the bytes (%(coding)s)"),
            action=action,
            coding=packing(headers) or "-",
        )
    if status == _PARTIAL:
        found = _CONTENT_RANGE.fullmatch(str(headers.get("content-range", "")))
        if found is not None:
            part = Part(int(found[1]), int(found[2]) + 1)
            # It may end early: then the rest is asked for again.
            right = part.start == offset < part.stop <= offset + length
            # More than the answer says that it has is something else.
            sent = str(headers.get("content-length", ""))
            right = right and not (sent.isdecimal() and int(sent) > part.stop - part.start)
            if right and found[3] in ("*", str(size)):
                return part
    elif status == _COMPLETE and str(headers.get("content-length", size)) == str(size):
        # Services that know no ranges send all of it: what precedes is skipped.
        return Part(0, size)
    raise NoResult(
        _("%(action)s: the service sends other bytes than were asked for"), action=action
    )


class RangeStream:
    """The bytes of a range, out of the body of an answer.

    :param body: of the answer
    :param part: which bytes it has
    :param offset: first byte of the range
    :param length: bytes of the range
    :param action: says what is being read at an offset, for errors
    :param keep: takes this object when it is closed while bytes that nobody asked for follow
    """

    def __init__(
        self,
        body: Bytes,
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
        """The byte that comes next."""
        return self._position

    def aim(
        self, offset: int, length: int, keep: Callable[[RangeStream], None] | None = None
    ) -> None:
        """Go on with a range that does not begin before `position`.

        :param offset: first byte
        :param length: how many
        :param keep: takes this object when it is closed while bytes that nobody asked for follow
        """
        self._next = offset
        self._stop = min(offset + length, self._part.stop)
        self._keep = keep if self._part.stop > self._stop else None

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, none at the end of the range.

        :param length: how many
        :raises BackendUnavailable: the answer broke off
        """
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
                _("%(action)s: the answer ended there"), action=self._action(self._position)
            )
        self._position += len(data)
        return data

    def interrupt(self) -> None:
        """End a read in another thread."""
        self._keep = None
        self._body.interrupt()

    def close(self) -> None:
        """Let go of what was not read, unless it may be of use."""
        keep, self._keep = self._keep, None
        if keep is not None and self._position < self._part.stop:
            keep(self)
        else:
            self._body.close()


class Rest:
    """Keeps the answer of a service that sends all of an object for every range of it.

    Reading on in it is cheap. Asked anew, the service would send all that precedes once more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: RangeStream | None = None
        self._closed = False

    def keep(self, stream: RangeStream) -> None:
        """Keep an answer, in the place of another one."""
        with self._lock:
            if not self._closed:
                stream, self._stream = self._stream, stream  # type: ignore[assignment]
        if stream is not None:
            stream.close()

    def take(self, offset: int, length: int) -> RangeStream | None:
        """Return the answer that is kept if a range can be read from it.

        :param offset: first byte
        :param length: how many
        """
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is None:
            return None
        if stream.position > offset:
            stream.close()
            return None
        stream.aim(offset, length, self.keep)
        return stream

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._closed = True
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class ObjectReader(abc.ABC):
    """A stored image, as a reader of streams; a subclass sets its size and sends the requests.

    :param concurrency: ranges worth having in flight
    :param range_size: bytes of such a range
    :param memory: that the transfers of the store share
    """

    size: int

    def __init__(self, concurrency: int, range_size: int, memory: Memory) -> None:
        self.concurrency = concurrency
        self.range_size = range_size
        self.memory = memory
        self._rest = Rest()

    @abc.abstractmethod
    def open_stream(self, offset: int, length: int) -> Stream:
        """Ask for bytes at an offset.

        :param offset: first byte
        :param length: how many; the image has them
        """

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset.

        :param offset: first byte
        :param length: how many
        :returns: the bytes, none only at the end of the image
        :raises BackendUnavailable: the answer broke off; calling again may help
        :raises GlanceStoreException: the image is not the one that was opened
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        with contextlib.closing(self.open_stream(offset, length)) as stream:
            return stream.read(length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say that all is data; object stores know no holes."""
        yield Extent(offset, length, True)

    def close(self) -> None:
        """Let go of an answer that might have been of use."""
        self._rest.close()


class RangeReader(ObjectReader):
    """A reader of an image that is one object; a subclass says how a range of it is asked for."""

    def open_stream(self, offset: int, length: int) -> RangeStream:
        """Ask for bytes at an offset.

        :param offset: first byte
        :param length: how many; the image has them
        :raises BackendUnavailable: the service cannot be reached
        :raises RemoteServiceUnavailable: the image was replaced
        :raises NotFound: the image has been removed
        """
        kept = self._rest.take(offset, length)
        if kept is not None:
            return kept
        body, part = self._ask(offset, length)
        if part.stop > offset + length:
            # More than one at a time would only be sent the same bytes.
            self.concurrency = 1
        return RangeStream(body, part, offset, length, self._action, self._rest.keep)

    @abc.abstractmethod
    def _ask(self, offset: int, length: int) -> tuple[Bytes, Part]:
        """Send a request for bytes; return the body of the answer, and which bytes it has."""

    @abc.abstractmethod
    def _action(self, offset: int) -> str:
        """Say what is being read at an offset, for errors."""
