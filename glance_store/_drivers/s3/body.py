# SPDX-License-Identifier: Apache-2.0
"""The body of an upload request: a view of a block of the engine, hashed once, never copied."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib

# A timeout counts for the sending of one slice, so it may not be large; urllib3 asks for 16 KiB,
# and a system call for each of those costs more than the sending.
_SLICE = 256 * 1024


class Body:
    """A block as a file that the client library reads, rewinds and reads again.

    :param block: the bytes; they may not change as long as this object is in use
    """

    def __init__(self, block: memoryview | bytes) -> None:
        self._view = memoryview(block)
        self._position = 0
        self._sha256: str | None = None

    def __len__(self) -> int:
        return len(self._view)

    def __repr__(self) -> str:
        return f"<Body of {len(self._view)} bytes>"

    def read(self, length: int | None = -1) -> memoryview | bytes:
        """Return the next bytes.

        :param length: how many; fewer than 256 KiB are taken for 256 KiB, so that more may come
            than were asked for, which the client library does not mind
        """
        if length is None or length < 0:
            length = len(self._view)
        part = self._view[self._position : self._position + max(length, _SLICE)]
        self._position += len(part)
        return part if part else b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._view)}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256, computed at the first call."""
        if self._sha256 is None:
            self._sha256 = hashlib.sha256(self._view).hexdigest()
        return self._sha256

    def content_md5(self) -> str:
        """Return the value of the header Content-MD5."""
        return _base64(hashlib.md5(self._view, usedforsecurity=False).digest())

    def crc32(self) -> str:
        """Return the value of the header x-amz-checksum-crc32."""
        return _base64(zlib.crc32(self._view).to_bytes(4, "big"))

    def release(self) -> None:
        """Let go of the block."""
        self._view.release()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
