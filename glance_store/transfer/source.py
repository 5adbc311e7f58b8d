# SPDX-License-Identifier: Apache-2.0
"""Cuts whatever a caller passes as image data into exact blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from glance_store import exceptions
from glance_store.i18n import _

if TYPE_CHECKING:
    import mmap

Buffer = bytes | bytearray | memoryview

# Bytes to read at once when filling a buffer: small enough to be copied from the CPU cache.
_PORTION = 1024 * 1024


class Buffers(Protocol):
    """Provides buffers for large blocks."""

    def buffer(self, length: int) -> mmap.mmap | None:
        """Return a buffer of `length` bytes; None if blocks of this size need none."""
        ...


def as_bytes(part: Any) -> bytes:
    """Return what a source delivered as immutable bytes."""
    if type(part) is bytes:
        return part
    if isinstance(part, (bytes, bytearray, memoryview)):
        # Copy: the source may reuse its buffer for the next read.
        return bytes(part)
    raise exceptions.Invalid(
        _("The image data source returned %(kind)s instead of bytes"), kind=type(part).__name__
    )


def _reader_of(source: Any) -> Callable[[int], bytes]:
    """Return a function that reads up to n bytes; empty at the end."""
    read = getattr(source, "read", None)
    if callable(read):
        return lambda length: as_bytes(read(length))
    if isinstance(source, (bytes, bytearray, memoryview)):
        # Iterating over bytes would yield integers.
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
            data = as_bytes(piece)
            if data:
                return data
        return b""

    return next_piece


class BlockSource:
    """Cuts a source into blocks, whatever portions it delivers.

    :param source: an object with ``read(n)``, or an iterable of bytes-like objects
    :param buffers: provides buffers for large blocks; None to allocate each block
    :raises Invalid: the source is neither
    """

    def __init__(self, source: Any, buffers: Buffers | None = None) -> None:
        self._read = _reader_of(source)
        self._buffers = buffers
        self._rest = b""
        self._position = 0  # in _rest; slicing _rest for each block would be quadratic
        self._at_end = False

    def _portion(self, length: int) -> bytes:
        if self._position < len(self._rest):
            portion = self._rest[self._position : self._position + length]
            self._position += len(portion)
            if self._position == len(self._rest):
                # Free it now: it may be huge, and nothing else may replace it.
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
        """Return the next `length` bytes (at least 1); fewer only at the end of the data.

        `usual` is the regular block size, if this may be a shorter last one: buffers are that size.
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
            # No copy for an image that fits one block.
            return first
        block = bytearray(first)
        while portion:
            block += portion
            portion = self._portion(length - len(block)) if len(block) < length else b""
        return block

    def _fill(self, buffer: mmap.mmap, length: int) -> memoryview:
        """Read a block into a buffer, which may be larger."""
        end = 0
        while end < length and (portion := self._portion(min(_PORTION, length - end))):
            buffer[end : end + len(portion)] = portion
            end += len(portion)
        return memoryview(buffer)[:end]


def bytes_of(block: memoryview) -> bytes:
    """Return a block as bytes, for clients that accept nothing else.

    Makes no copy if the block is a whole bytes object, as most are.

    :param block: a block as passed to a writer
    """
    whole = block.obj
    if type(whole) is bytes and len(whole) == block.nbytes:
        return whole
    return bytes(block)
