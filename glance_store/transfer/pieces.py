# SPDX-License-Identifier: Apache-2.0
"""Cuts a range of an image into pieces, and reads exactly their bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from glance_store import exceptions
from glance_store.transfer.interface import Extent, ImageReader, StreamingReader


def pieces(reader: ImageReader, offset: int, stop: int, size: int) -> Iterator[Extent]:
    """Cut a range into pieces of at most `size` bytes, each all data or all hole.

    :raises BackendException: the reader's extents do not match the range
    :raises TruncatedImage: the reader's extents end before the range does
    """
    if offset >= stop:
        return
    position = offset
    for extent in reader.extents(offset, stop - offset):
        if extent.offset != position:
            raise exceptions.BackendException(
                f"The backend returned an extent at byte {extent.offset} of the image, but the "
                f"next byte is {position}"
            )
        end = min(position + extent.length, stop)
        while position < end:
            length = min(size, end - position)
            yield Extent(position, length, extent.data)
            position += length
    if position < stop:
        raise exceptions.TruncatedImage(position=position, expected=reader.size)


def too_much(delivered: int, wanted: int) -> exceptions.BackendException:
    """Return the error for a backend that delivers more bytes than requested."""
    return exceptions.BackendException(
        f"The backend delivered {delivered} bytes, but only {wanted} were requested"
    )


def read_piece(reader: ImageReader, piece: Extent) -> bytes:
    """Read exactly the bytes of a piece.

    :raises TruncatedImage: the image ends before the piece does
    :raises BackendException: the backend delivered more bytes than requested
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
    """Yield exactly the bytes of a piece in chunks, from one response of the backend.

    :raises TruncatedImage: the image ends before the piece does
    :raises BackendException: the backend delivered more bytes than requested
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
