# SPDX-License-Identifier: Apache-2.0
"""A plain iterator over a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO


class ChunkedFile:
    """The bytes of a file, or of a part of it, in chunks.

    The constructor opens the file; the end of the data or `close` closes it. The store itself reads
    through the engine; this class serves callers that have a path.

    :param filepath: path of the file
    :param offset: first byte
    :param chunk_size: bytes in a chunk
    :param partial_length: bytes in all, None for all that follow
    :raises OSError: the file cannot be opened
    """

    def __init__(
        self,
        filepath: str,
        offset: int = 0,
        chunk_size: int = 4096,
        partial_length: int | None = None,
    ) -> None:
        self.filepath = filepath
        self.chunk_size = chunk_size
        self.partial_length = partial_length
        self.partial = partial_length is not None
        self.fp: IO[bytes] | None = open(filepath, "rb")  # noqa: SIM115 - closed by close()
        if offset:
            self.fp.seek(offset)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks, then close the file."""
        rest = self.partial_length
        try:
            while self.fp is not None:
                wanted = self.chunk_size if rest is None else min(self.chunk_size, rest)
                chunk = self.fp.read(wanted) if wanted else b""
                if not chunk:
                    return
                if rest is not None:
                    rest -= len(chunk)
                yield chunk
        finally:
            self.close()

    def close(self) -> None:
        """Close the file; closing it again does no harm."""
        if self.fp is not None:
            self.fp.close()
            self.fp = None
