# SPDX-License-Identifier: Apache-2.0
"""A range of an image cut into pieces, and the exact bytes of each."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from glance_store import exceptions
from glance_store.transfer.interface import Extent, ImageReader, StreamingReader


def pieces(reader: ImageReader, offset: int, stop: int, size: int) -> Iterator[Extent]:
    """Cut a range into pieces of at most `size` bytes, each all data or all hole.

    :param reader: the image; says where the holes are
    :param offset: first byte
    :param stop: the byte behind the last one
    :param size: bytes of a piece at most
    :raises BackendException: the backend describes another range
    :raises TruncatedImage: its description ends too early
    """
    if offset >= stop:
        return
    position = offset
    for extent in reader.extents(offset, stop - offset):
        if extent.offset != position:
            raise exceptions.BackendException(
                f"The backend described byte {extent.offset} of the image where byte {position} "
                "came next"
            )
        end = min(position + extent.length, stop)
        while position < end:
            length = min(size, end - position)
            yield Extent(position, length, extent.data)
            position += length
    if position < stop:
        raise exceptions.TruncatedImage(position=position, expected=reader.size)


def too_much(delivered: int, wanted: int) -> exceptions.BackendException:
    """Return the error for a backend that delivers more than it was asked for."""
    return exceptions.BackendException(
        f"The backend delivered {delivered} bytes where {wanted} were asked for"
    )


def read_piece(reader: ImageReader, piece: Extent) -> bytes:
    """Return exactly the bytes of a piece.

    :param reader: the image
    :param piece: a part of it
    :raises TruncatedImage: the image ends before the piece does
    :raises BackendException: the backend delivered more than it was asked for
    """
    if not piece.data:
        return bytes(piece.length)
    data = reader.read_at(piece.offset, piece.length)
    if len(data) == piece.length:
        return data
    whole = bytearray(data)
    while len(whole) < piece.length:
        position = piece.offset + len(whole)
        data = reader.read_at(position, piece.length - len(whole))
        if not data:
            raise exceptions.TruncatedImage(position=position, expected=reader.size)
        whole += data
    if len(whole) > piece.length:
        raise too_much(len(whole), piece.length)
    return bytes(whole)


def stream_piece(
    reader: StreamingReader, piece: Extent, chunk_size: int
) -> Generator[bytes, None, None]:
    """Yield exactly the bytes of a piece in chunks, from one answer of the backend.

    :param reader: the image
    :param piece: a part of it
    :param chunk_size: bytes of a chunk at most
    :raises TruncatedImage: the image ends before the piece does
    :raises BackendException: the backend delivered more than it was asked for
    """
    position, stop = piece.offset, piece.offset + piece.length
    with contextlib.closing(reader.open_stream(position, piece.length)) as stream:
        while position < stop:
            wanted = min(chunk_size, stop - position)
            chunk = stream.read(wanted)
            if not chunk:
                raise exceptions.TruncatedImage(position=position, expected=reader.size)
            if len(chunk) > wanted:
                raise too_much(len(chunk), wanted)
            position += len(chunk)
            yield chunk
