# SPDX-License-Identifier: Apache-2.0
"""Multipart uploads: how an image is cut into parts, and how several are sent at once.

A backend that takes an image in parts implements `Parts`: begin, put a part, complete, abort, and
put a small image whole. A part stays in memory until it has arrived, so that it can be sent again.
"""

from __future__ import annotations

import bisect
import threading
from typing import Any, Protocol

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.transfer.digest import Digests
from glance_store.transfer.memory import Memory

MIB = 1024 * 1024

# For an image of unknown size, this share of the allowed parts keeps the first size. Each later
# part is as large as everything before it divided by the number of those parts. That is exponential
# growth: the last allowed part would be about 20,000 times as large as the first.
_STEADY = 0.09


class Plan(Protocol):
    """Sizes and numbers of the parts of one image. An offset is 0, or where a part ends."""

    def size_at(self, offset: int) -> int:
        """Return the size of the part that starts at an offset."""
        ...

    def number_at(self, offset: int) -> int:
        """Return the number of the part that starts at an offset; the first is 1.

        :raises StorageFull: the backend does not allow that many parts
        """
        ...


class Limits(Protocol):
    """What a backend allows."""

    @property
    def most(self) -> int:
        """Maximum number of parts of an image."""
        ...

    @property
    def largest(self) -> int:
        """Maximum bytes of a part."""
        ...


class EqualParts:
    """Parts of equal size; the last one may be smaller.

    :param part: bytes of a part; larger if the image would need too many of these
    :param limits: limits of the backend
    :param size: bytes of the image; 0 if unknown
    :raises StorageFull: the image is too large for the backend
    """

    def __init__(self, part: int, limits: Limits, size: int = 0) -> None:
        self._part = max(min(part, limits.largest), -(-size // limits.most))
        self._limits = limits
        if self._part > limits.largest:
            raise too_large(limits)

    def size_at(self, offset: int) -> int:
        """Return the size of the part that starts at an offset."""
        return self._part

    def number_at(self, offset: int) -> int:
        """Return the number of the part that starts at an offset."""
        return _checked(offset // self._part + 1, self._limits)


class GrowingParts:
    """Parts of an image of unknown size; they grow as their number does.

    :param part: bytes of the first parts
    :param limits: limits of the backend
    """

    def __init__(self, part: int, limits: Limits) -> None:
        self._part = min(part, limits.largest)
        self._limits = limits
        self._steady = max(1, int(limits.most * _STEADY))
        self._lock = threading.Lock()
        self._offsets = [0]

    def size_at(self, offset: int) -> int:
        """Return the size of the part that starts at an offset; whole MiB once parts grow."""
        if offset <= self._steady * self._part:
            return self._part
        grown = -(-offset // (self._steady * MIB)) * MIB
        return min(grown, self._limits.largest)

    def number_at(self, offset: int) -> int:
        """Return the number of the part that starts at an offset."""
        with self._lock:
            while self._offsets[-1] < offset:
                last = self._offsets[-1]
                self._offsets.append(last + self.size_at(last))
            return _checked(bisect.bisect_left(self._offsets, offset) + 1, self._limits)


def _checked(number: int, limits: Limits) -> int:
    if number > limits.most:
        raise too_large(limits)
    return number


def too_large(limits: Limits) -> exceptions.StorageFull:
    """Return the error for an image that is too large for the backend."""
    return exceptions.StorageFull(
        _(
            "The image is too large: the backend takes %(most)d parts of at most %(largest)d "
            "bytes; if the size is not known in advance, larger parts may help"
        ),
        most=limits.most,
        largest=limits.largest,
    )


class Parts(Protocol):
    """How a backend stores one image in parts; safe from several threads."""

    def put_whole(self, block: memoryview | bytes, md5: str | None) -> None:
        """Store the whole image in one request.

        :param block: all bytes of the image
        :param md5: their md5 in hexadecimal, if known
        :raises Duplicate: the image exists
        """
        ...

    def begin(self) -> None:
        """Start a multipart upload. Called before each part; only the first call must act."""
        ...

    def put_part(self, number: int, block: memoryview) -> None:
        """Store a part.

        :param number: counted from 1
        :param block: its bytes
        """
        ...

    def complete(self, size: int) -> None:
        """Create the image from its parts.

        :param size: bytes of the image
        :raises Duplicate: the image exists
        """
        ...

    def abort(self) -> None:
        """Remove everything that was stored."""
        ...

    def interrupt(self) -> None:
        """Make calls running on other threads fail soon."""
        ...


class MultipartWriter:
    """Writes an image to a backend that takes it whole or in parts.

    An image of known size below `large` is sent in one request, and so is one of unknown size that
    ends within the first part. `write` sends that request after all bytes have been read and
    checked: only `commit` follows.

    :param parts: stores the parts
    :param plan: sizes of the parts
    :param uri: location of the image
    :param size: bytes; 0 if unknown
    :param large: size in bytes from which an image is sent in parts; 0 for always
    :param concurrency: maximum number of parts in flight
    :param memory: memory shared by the uploads of the store
    """

    holes = False

    def __init__(
        self,
        parts: Parts,
        plan: Plan,
        uri: str,
        size: int,
        large: int,
        concurrency: int,
        memory: Memory,
    ) -> None:
        self.uri = uri
        self.metadata: dict[str, Any] = {}
        self.digests: Digests | None = None
        self.memory = memory
        self._parts = parts
        self._plan = plan
        self._whole = 0 < size < large
        self._may_be_whole = self._whole or (large > 0 and size == 0)
        self._stored: str | None = None  # "whole" or "parts"
        self.block_size = size if self._whole else plan.size_at(0)
        # As many as fit the memory, less one that is filled while the others are in flight.
        fitting = max(1, memory.size // self.block_size - 1)
        most = -(-size // self.block_size) if size else concurrency
        self.concurrency = 1 if self._whole else max(1, min(concurrency, fitting, most))
        self.blocks_held = self.concurrency + 2

    def block_size_at(self, offset: int) -> int:
        """Return the size of the block that starts at an offset; a block is a part."""
        return self.block_size if self._whole else self._plan.size_at(offset)

    def write(self, offset: int, block: memoryview) -> None:
        """Send a part, or the whole image."""
        is_all = self._whole or (self._may_be_whole and len(block) < self.block_size)
        if is_all and offset == 0:
            self._put_whole(block)
            self._stored = "whole"
            return
        self._stored = "parts"
        self._parts.begin()
        self._parts.put_part(self._plan.number_at(offset), block)

    def commit(self, size: int) -> None:
        """Create the image from its parts."""
        if self._stored == "parts":
            self._parts.complete(size)
        elif self._stored is None:
            # An empty image has no parts.
            self._put_whole(b"")

    def _put_whole(self, block: memoryview | bytes) -> None:
        # An image of one block is hashed before it is written, so the checksum is complete.
        self._parts.put_whole(block, None if self.digests is None else self.digests.checksum)

    def interrupt(self) -> None:
        """Make the parts in flight fail soon."""
        self._parts.interrupt()

    def abort(self) -> None:
        """Remove everything that was sent."""
        self._parts.abort()
