# SPDX-License-Identifier: Apache-2.0
"""One download: a range of a stored image -> read-ahead -> chunks in order, never short.

If a backend is faster with several reads in flight, threads fetch that many chunks ahead of the
consumer; otherwise the consumer's thread reads. `streams` handles backends that send long ranges
in one response. Holes are delivered without fetching them.
"""

from __future__ import annotations

import abc
import functools
import os
from collections.abc import Generator, Iterator
from typing import TypeVar, cast

from glance_store.transfer.interface import (
    Extent,
    ImageReader,
    InterruptibleReader,
    StreamingReader,
)
from glance_store.transfer.pieces import pieces, read_piece, too_much
from glance_store.transfer.readahead import ReadAhead
from glance_store.transfer.streams import Streams

_T = TypeVar("_T", bound="Chunks")

CHUNK_SIZE = 4 * 1024 * 1024


def clip(size: int | None, offset: int, length: int | None) -> int | None:
    """Return the length of a range clipped to the size of its image; None if that is unknown."""
    if size is None:
        return None
    rest = max(0, size - offset)
    return rest if length is None else min(length, rest)


class Chunks(abc.ABC):
    """An iterator of chunks of bytes, with `close`."""

    def __iter__(self: _T) -> _T:  # noqa: PYI019 - typing.Self came with Python 3.11
        return self

    @abc.abstractmethod
    def __next__(self) -> bytes:
        """Return the next chunk."""

    def __enter__(self: _T) -> _T:  # noqa: PYI019 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Stop reading. May be called from any thread."""


class Download(Chunks):
    """The bytes of a range of an image: an iterator of chunks, with `close`.

    :param reader: the image; closed before the last chunk is delivered, at the end, on `close`, on
        an error, and when the iterator is dropped half-way
    :param offset: first byte, at least 0
    :param length: bytes wanted; None for all; clipped at the end of the image
    :param chunk_size: maximum bytes of a chunk, and of a read from the backend
    """

    def __init__(
        self,
        reader: ImageReader,
        offset: int = 0,
        length: int | None = None,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        # Set first: __del__ must be able to close the reader if anything below fails.
        self._reader = reader
        self._chunks: Iterator[bytes] = iter(())
        self._ahead: ReadAhead | Streams | None = None
        self._closed = False
        self._process = os.getpid()
        self._delivered = 0
        self.length = clip(reader.size, offset, length)
        stop = None if self.length is None else offset + self.length
        if stop is not None and hasattr(reader, "open_stream"):
            streaming = cast("StreamingReader", reader)
            self._ahead = Streams(streaming, offset, stop, chunk_size)
            self._chunks = self._ahead.chunks()
        elif stop is not None and reader.concurrency > 1 and stop - offset > chunk_size:
            self._ahead = ReadAhead(
                reader, pieces(reader, offset, stop, chunk_size), functools.partial(_whole, reader)
            )
            self._chunks = self._ahead.chunks()
        elif stop is None:
            self._chunks = _read_unknown(reader, offset, length, chunk_size)
        else:
            self._chunks = _read_range(reader, offset, stop, chunk_size)

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except BaseException:
            # The end, or an error.
            self.close()
            raise
        self._delivered += len(chunk)
        if self._delivered == self.length:
            # Before the last bytes are delivered: the caller may delete the image next.
            self._release(wait=True)
        return chunk

    def close(self) -> None:
        """Stop reading and close the image. May be called from any thread.

        Waits for reads on other threads, but interrupts those of an `InterruptibleReader`.
        """
        self._release(wait=True, interrupt=True)

    def __del__(self) -> None:
        # Never wait here: the garbage collector may run in any thread, at any time.
        self._release(wait=False, interrupt=True)

    def _release(self, wait: bool, interrupt: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        # Not in a forked child: it shares the connections with its parent, which still reads.
        if interrupt and self._process == os.getpid() and hasattr(self._reader, "interrupt"):
            cast("InterruptibleReader", self._reader).interrupt()
            wait = False
        self._chunks = iter(())
        if self._ahead is None:
            self._reader.close()
        else:
            self._ahead.stop(wait)


def _whole(reader: ImageReader, piece: Extent) -> Generator[bytes, None, None]:
    yield read_piece(reader, piece)


def _read_range(reader: ImageReader, offset: int, stop: int, chunk_size: int) -> Iterator[bytes]:
    zeros = b""
    for piece in pieces(reader, offset, stop, chunk_size):
        if piece.data:
            yield read_piece(reader, piece)
        else:
            # Reuse one run of zeros for a whole hole, however large.
            if len(zeros) != piece.length:
                zeros = bytes(piece.length)
            yield zeros


def _read_unknown(
    reader: ImageReader, offset: int, length: int | None, chunk_size: int
) -> Iterator[bytes]:
    """Read until the backend reports the end of the image."""
    position = offset
    while length is None or position < offset + length:
        wanted = chunk_size if length is None else min(chunk_size, offset + length - position)
        data = reader.read_at(position, wanted)
        if not data:
            return
        if len(data) > wanted:
            raise too_much(len(data), wanted)
        position += len(data)
        yield data
