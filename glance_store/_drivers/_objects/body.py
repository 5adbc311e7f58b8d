# SPDX-License-Identifier: Apache-2.0
"""The body of an upload request: a block of the image, hashed once and never copied."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import zlib
from typing import Any

from glance_store import exceptions
from glance_store.transfer.digest import crc32c
from glance_store.transfer.retry import Patience

# The client libraries apply their timeout to each slice, so a slice must stay small. They ask for
# 16 or 64 KiB, and at that size the system calls cost more than the sending.
_SLICE = 256 * 1024


class RequestBody:
    """A block as a file that a client library can read, rewind and read again.

    The block must not change while this object is in use. With `hashing`, the MD5 is computed while
    the bytes are sent. Once `patience` is stopped, reading fails.
    """

    def __init__(
        self, block: memoryview | bytes, patience: Patience, hashing: bool = False
    ) -> None:
        self._view = memoryview(block)
        self._patience = patience
        self._hashing = hashing
        self._hashed = 0  # bytes, from the start
        self._position = 0

    def __len__(self) -> int:
        return len(self._view)

    def __repr__(self) -> str:
        return f"<RequestBody of {len(self._view)} bytes>"

    def read(self, length: int | None = -1) -> memoryview | bytes:
        """Return the next bytes: at least 256 KiB while there are as many.

        The client libraries accept more bytes than they asked for.
        """
        if self._patience.stopped:
            raise exceptions.BackendException("The upload was interrupted")
        # Hash what was sent, not what comes next: the kernel is busy sending it meanwhile.
        if self._hashing:
            self._hash(self._position)
        if length is None or length < 0:
            length = len(self._view)
        part = self._view[self._position : self._position + max(length, _SLICE)]
        self._position += len(part)
        return part if part else b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._view)}[whence]
        self._position = max(0, base + offset)
        return self._position

    def rewound(self) -> RequestBody:
        """Go back to the beginning, and return this object."""
        self.seek(0)
        return self

    def tell(self) -> int:
        """Return the position."""
        return self._position

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 in hexadecimal."""
        return hashlib.sha256(self._view).hexdigest()

    @functools.cached_property
    def _digest(self) -> Any:
        return hashlib.md5(usedforsecurity=False)

    @functools.cached_property
    def md5(self) -> str:
        """The MD5 of the whole block in hexadecimal, even if only part of it was sent."""
        self._hash(len(self._view))
        return str(self._digest.hexdigest())

    def _hash(self, end: int) -> None:
        if end > self._hashed:
            with self._view[self._hashed : end] as part:
                self._digest.update(part)
            self._hashed = end

    def content_md5(self) -> str:
        """Return the value of the Content-MD5 header."""
        return _base64(bytes.fromhex(self.md5))

    @functools.cached_property
    def crc(self) -> tuple[str, str]:
        """A checksum against damage: its name in S3 (CRC32 or CRC32C) and its Base64 value."""
        fast = crc32c()
        name, value = (
            ("CRC32", zlib.crc32(self._view)) if fast is None else ("CRC32C", fast(self._view))
        )
        return name, _base64(value.to_bytes(4, "big"))

    def release(self) -> None:
        """Release the block."""
        self._view.release()


def crc_name() -> str:
    """Return the name of the checksum that `RequestBody.crc` uses on this host."""
    return "CRC32" if crc32c() is None else "CRC32C"


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
