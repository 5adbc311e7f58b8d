# SPDX-License-Identifier: Apache-2.0
"""One download: a range of a stored image -> read-ahead -> chunks in order, never short.

Where a backend profits from several reads in flight, threads fetch ahead of the consumer, bounded
to as many chunks; else the consumer's thread reads. Of a backend that sends long ranges in one go
`streams` makes the most. Holes are delivered without being fetched.
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
    """Return how many bytes a range of an image has.

    :param size: bytes of the image, None if unknown
    :param offset: first byte of the range
    :param length: bytes asked for; None for all that follow
    :returns: bytes that will be delivered; None when the end is unknown
    """
    if size is None:
        return None
    rest = max(0, size - offset)
    return rest if length is None else min(length, rest)


class Chunks(abc.ABC):
    """Chunks of bytes, one after the other, with `close`."""

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
        """Stop reading; from any thread."""


class Download(Chunks):
    """The bytes of a range of an image: an iterator of chunks, with `close`.

    :param reader: the image; closed before the last chunk is handed over, at the end, on `close`,
        on an error, and when the iterator is thrown away half-way
    :param offset: first byte, at least 0
    :param length: bytes wanted, None for all; clipped at the end of the image
    :param chunk_size: bytes of a chunk at most, and of a read from the backend
    """

    def __init__(
        self,
        reader: ImageReader,
        offset: int = 0,
        length: int | None = None,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        # Complete from here on: should what follows fail, the reader is closed all the same.
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
            # The end, or an error: either way nothing more is read.
            self.close()
            raise
        self._delivered += len(chunk)
        if self._delivered == self.length:
            # Before the last bytes are handed over: whoever has them may go on to remove the image.
            self._release(wait=True)
        return chunk

    def close(self) -> None:
        """Stop reading and let go of the image; from any thread.

        Reads in other threads are waited for, unless they wait for a server themselves: these are
        broken off.
        """
        self._release(wait=True, interrupt=True)

    def __del__(self) -> None:
        # Never wait here: the garbage collector may run in any thread, at any time.
        self._release(wait=False, interrupt=True)

    def _release(self, wait: bool, interrupt: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        # Not in a forked child: the connections are those of its parent, which goes on to read.
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
            # One run of zeros serves a whole hole, however large.
            if len(zeros) != piece.length:
                zeros = bytes(piece.length)
            yield zeros


def _read_unknown(
    reader: ImageReader, offset: int, length: int | None, chunk_size: int
) -> Iterator[bytes]:
    """Read on until the backend says that the image has ended."""
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
