# SPDX-License-Identifier: Apache-2.0
"""Exact blocks out of whatever a caller hands in as image data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from glance_store import exceptions
from glance_store.i18n import _

if TYPE_CHECKING:
    import mmap

Buffer = bytes | bytearray | memoryview

# What is asked for at once where a block is put together in a buffer: the copy comes from the cache
# of the processor.
_PORTION = 1024 * 1024


class Buffers(Protocol):
    """Where large blocks are put together."""

    def buffer(self, length: int) -> mmap.mmap | None:
        """Return a buffer of so many bytes; None: for blocks of this size there are none."""
        ...


def _as_bytes(part: Any) -> bytes:
    """Return what a source delivered as bytes that nobody changes any more."""
    if type(part) is bytes:
        return part
    if isinstance(part, (bytes, bytearray, memoryview)):
        # A source may use its buffer again for the next read: copy.
        return bytes(part)
    raise exceptions.Invalid(
        _("The image data source returned %(kind)s instead of bytes"), kind=type(part).__name__
    )


def _reader_of(source: Any) -> Callable[[int], bytes]:
    """Return a function that reads up to n bytes, b"" at the end."""
    read = getattr(source, "read", None)
    if callable(read):
        return lambda length: _as_bytes(read(length))
    if isinstance(source, (bytes, bytearray, memoryview)):
        # Iterating bytes yields numbers, surely not what the caller meant.
        pieces: Iterator[Any] = iter((source,))
    else:
        try:
            pieces = iter(source)
        except TypeError as exc:
            raise exceptions.Invalid(
                _("Image data must have read() or be iterable, not %(kind)s"),
                kind=type(source).__name__,
            ) from exc

    def next_piece(_length: int) -> bytes:
        for piece in pieces:
            data = _as_bytes(piece)
            if data:
                return data
        return b""

    return next_piece


class BlockSource:
    """Cuts a source into blocks, whatever portions it delivers.

    :param source: an object with ``read(n)``, or an iterable of bytes-like objects
    :param buffers: where large blocks are put together; None: wherever there is memory
    :raises Invalid: it is neither
    """

    def __init__(self, source: Any, buffers: Buffers | None = None) -> None:
        self._read = _reader_of(source)
        self._buffers = buffers
        self._rest = b""
        self._position = 0  # in _rest; slicing the rest off anew for each block would be quadratic
        self._at_end = False

    def _portion(self, length: int) -> bytes:
        if self._position < len(self._rest):
            portion = self._rest[self._position : self._position + length]
            self._position += len(portion)
            if self._position == len(self._rest):
                # It may be huge, and the next of its kind may never come.
                self._rest, self._position = b"", 0
            return portion
        if self._at_end:
            return b""
        portion = self._read(length)
        if not portion:
            self._at_end = True
        elif len(portion) > length:
            self._rest, self._position = portion, length
            portion = portion[:length]
        return portion

    def block(self, length: int, usual: int = 0) -> Buffer:
        """Return the next `length` bytes; fewer only at the end of the data.

        :param length: bytes, at least 1
        :param usual: bytes of the blocks of which this may be the last one
        :raises Invalid: the source delivered something that is not bytes
        """
        buffer = None
        if self._buffers is not None:
            buffer = self._buffers.buffer(max(length, usual))
        if buffer is not None:
            return self._fill(buffer, length)
        first = self._portion(length)
        if len(first) == length or not first:
            return first
        portion = self._portion(length - len(first))
        if not portion:
            # The end of most images that fit a block: nothing has to be copied.
            return first
        block = bytearray(first)
        while portion:
            block += portion
            portion = self._portion(length - len(block)) if len(block) < length else b""
        return block

    def _fill(self, buffer: mmap.mmap, length: int) -> memoryview:
        """Put a block together in a buffer, which may be larger than it is."""
        end = 0
        while end < length and (portion := self._portion(min(_PORTION, length - end))):
            buffer[end : end + len(portion)] = portion
            end += len(portion)
        return memoryview(buffer)[:end]


def bytes_of(block: memoryview) -> bytes:
    """Return a block as bytes, without a copy where it is all of a bytes object.

    For backends whose client takes nothing else; most blocks are just that.

    :param block: as a writer gets it
    """
    whole = block.obj
    if type(whole) is bytes and len(whole) == block.nbytes:
        return whole
    return bytes(block)
