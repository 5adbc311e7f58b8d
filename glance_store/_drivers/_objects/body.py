# SPDX-License-Identifier: Apache-2.0
"""The body of an upload request: a view of a block of the engine, hashed once, never copied."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import os
import zlib
from collections.abc import Callable
from typing import Any

from glance_store import exceptions
from glance_store.transfer.retry import Patience

# A time limit counts for the sending of one slice, so it may not be large; clients ask for 16 or 64
# KiB, and a system call for each of those costs more than the sending.
_SLICE = 256 * 1024


class Body:
    """A block as a file that a client library reads, rewinds and reads again.

    :param block: the bytes; they may not change as long as this object is in use
    :param patience: of the upload; when that is stopped no more is sent
    :param hashing: compute the MD5 while the bytes are sent
    """

    def __init__(
        self, block: memoryview | bytes, patience: Patience, hashing: bool = False
    ) -> None:
        self._view = memoryview(block)
        self._patience = patience
        self._hashing = hashing
        self._hashed = 0  # bytes, from the beginning
        self._position = 0

    def __len__(self) -> int:
        return len(self._view)

    def __repr__(self) -> str:
        return f"<Body of {len(self._view)} bytes>"

    def read(self, length: int | None = -1) -> memoryview | bytes:
        """Return the next bytes.

        :param length: how many; fewer than 256 KiB are taken for 256 KiB, so that more may come
            than were asked for, which the client libraries do not mind
        :raises BackendException: the upload is over
        """
        if self._patience.stopped:
            raise exceptions.BackendException("The upload was broken off")
        # Behind the sending, not before it: the kernel has something to send meanwhile.
        if self._hashing:
            self._hash(self._position)
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

    def rewound(self) -> Body:
        """Begin anew; return this object."""
        self.seek(0)
        return self

    def tell(self) -> int:
        """Return the position."""
        return self._position

    @functools.cached_property
    def sha256(self) -> str:
        """The hexadecimal SHA-256."""
        return hashlib.sha256(self._view).hexdigest()

    @functools.cached_property
    def _digest(self) -> Any:
        return hashlib.md5(usedforsecurity=False)

    @functools.cached_property
    def md5(self) -> str:
        """The hexadecimal MD5 of the whole block, whatever part of it was sent."""
        self._hash(len(self._view))
        return str(self._digest.hexdigest())

    def _hash(self, end: int) -> None:
        if end > self._hashed:
            with self._view[self._hashed : end] as part:
                self._digest.update(part)
            self._hashed = end

    def content_md5(self) -> str:
        """Return the value of the header Content-MD5."""
        return _base64(bytes.fromhex(self.md5))

    @functools.cached_property
    def crc(self) -> tuple[str, str]:
        """A checksum against damage: its name in S3, CRC32 or CRC32C, and its value in Base64."""
        crc32c = _crc32c()
        name, value = (
            ("CRC32", zlib.crc32(self._view)) if crc32c is None else ("CRC32C", crc32c(self._view))
        )
        return name, _base64(value.to_bytes(4, "big"))

    def release(self) -> None:
        """Let go of the block."""
        self._view.release()


@functools.lru_cache(maxsize=1)
def _crc32c() -> Callable[[Any], int] | None:
    """Return the faster one of the checksums, where the library for it is installed."""
    try:
        checksums = importlib.import_module("awscrt.checksums")
    except ImportError:
        return None
    return lambda view: int(checksums.crc32c(view))


def crc_name() -> str:
    """Return the name of the checksum that `Body.crc` has on this host."""
    return "CRC32" if _crc32c() is None else "CRC32C"


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
