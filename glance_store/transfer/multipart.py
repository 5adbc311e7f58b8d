# SPDX-License-Identifier: Apache-2.0
"""An image in parts: how it is cut, and how the parts are on their way at once.

A backend that takes an image in parts says with five verbs how it begins, takes a part, joins them,
throws all away, and takes a small image whole. What has to be sent again after a failure is in
memory until it has arrived.
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

# Parts of an image of unknown size stay as they are for this share of their number. Each of those
# that follow is as large as all before it divided by the number of these: they grow by a factor of
# e with each such number, so that the last one is 20,000 times as large as the first could be.
_STEADY = 0.09


class Plan(Protocol):
    """Sizes and numbers of the parts of one image."""

    def size_at(self, offset: int) -> int:
        """Return the bytes of the part that begins at an offset.

        :param offset: 0, or where the part before ends
        """
        ...

    def number_at(self, offset: int) -> int:
        """Return the number of the part that begins at an offset; the first is 1.

        :param offset: 0, or where the part before ends
        :raises StorageFull: the backend does not take so many
        """
        ...


class Limits(Protocol):
    """What a backend takes."""

    @property
    def most(self) -> int:
        """Parts of an image."""
        ...

    @property
    def largest(self) -> int:
        """Bytes of a part."""
        ...


class EqualParts:
    """Parts of one size; the last one may be smaller.

    :param part: bytes of a part, if the image fits into so many of them
    :param limits: of the backend
    :param size: bytes of the image, 0 when unknown
    :raises StorageFull: the backend does not take an image of that size
    """

    def __init__(self, part: int, limits: Limits, size: int = 0) -> None:
        self._part = max(min(part, limits.largest), -(-size // limits.most))
        self._limits = limits
        if self._part > limits.largest:
            raise too_large(limits)

    def size_at(self, offset: int) -> int:
        """Return the bytes of the part that begins at an offset."""
        return self._part

    def number_at(self, offset: int) -> int:
        """Return the number of the part that begins at an offset."""
        return _checked(offset // self._part + 1, self._limits)


class GrowingParts:
    """Parts of an image of unknown size, which grow when there are many.

    :param part: bytes of the first ones
    :param limits: of the backend
    """

    def __init__(self, part: int, limits: Limits) -> None:
        self._part = min(part, limits.largest)
        self._limits = limits
        self._steady = max(1, int(limits.most * _STEADY))
        self._lock = threading.Lock()
        self._offsets = [0]

    def size_at(self, offset: int) -> int:
        """Return the bytes of the part that begins at an offset: a number of MiB once they grow."""
        if offset <= self._steady * self._part:
            return self._part
        grown = -(-offset // (self._steady * MIB)) * MIB
        return min(grown, self._limits.largest)

    def number_at(self, offset: int) -> int:
        """Return the number of the part that begins at an offset."""
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
    """Return the error for an image that the backend cannot keep, ready to raise."""
    return exceptions.StorageFull(
        _(
            "The image is too large: the backend takes %(most)d parts of at most %(largest)d "
            "bytes; for an image whose size is not known beforehand larger parts may help"
        ),
        most=limits.most,
        largest=limits.largest,
    )


class Parts(Protocol):
    """What a backend does with the parts of one image; safe from several threads."""

    def put_whole(self, block: memoryview | bytes, md5: str | None) -> None:
        """Make the image from all of its bytes, in one request.

        :param block: the bytes
        :param md5: of them, in hexadecimal, where it is known
        :raises Duplicate: there is such an image
        """
        ...

    def begin(self) -> None:
        """Get ready for parts; called before each of them, and may do nothing but at the first."""
        ...

    def put_part(self, number: int, block: memoryview) -> None:
        """Store a part.

        :param number: from 1
        :param block: its bytes
        """
        ...

    def complete(self, size: int) -> None:
        """Make the image from its parts.

        :param size: bytes of all of them
        :raises Duplicate: there is such an image
        """
        ...

    def abort(self) -> None:
        """Remove everything that was stored."""
        ...

    def interrupt(self) -> None:
        """Have what runs in other threads end soon."""
        ...


class MultipartWriter:
    """One image on its way to a backend that takes it whole or in parts.

    An image of known size below `large` is one block and one request. One of unknown size is one
    request if it ends within the first part. That request is sent by `write`, when all bytes have
    been read and checked: nothing but `commit` follows.

    :param parts: stores them
    :param plan: of their sizes
    :param uri: location of the image
    :param size: bytes, 0 when unknown
    :param large: bytes from which on an image is sent in parts; 0: always
    :param concurrency: parts on their way at once
    :param memory: that the uploads of the store share
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
        self._stored: str | None = None  # how
        self.block_size = size if self._whole else plan.size_at(0)
        # As many as fit the memory, and one that is filled while the others are on their way.
        fitting = max(1, memory.size // self.block_size - 1)
        most = -(-size // self.block_size) if size else concurrency
        self.concurrency = 1 if self._whole else max(1, min(concurrency, fitting, most))
        self.blocks_held = self.concurrency + 2

    def block_size_at(self, offset: int) -> int:
        """Return the bytes of the block that begins at an offset: blocks are parts."""
        return self.block_size if self._whole else self._plan.size_at(offset)

    def write(self, offset: int, block: memoryview) -> None:
        """Send a part, or the whole image.

        :param offset: where it begins
        :param block: its bytes
        :raises Duplicate: it is the whole image, and there is one of this name
        """
        is_all = self._whole or (self._may_be_whole and len(block) < self.block_size)
        if is_all and offset == 0:
            self._put_whole(block)
            self._stored = "whole"
            return
        self._stored = "parts"
        self._parts.begin()
        self._parts.put_part(self._plan.number_at(offset), block)

    def commit(self, size: int) -> None:
        """Make the image from its parts.

        :param size: bytes of the image
        :raises Duplicate: there is an image of this name
        """
        if self._stored == "parts":
            self._parts.complete(size)
        elif self._stored is None:
            # An image without a byte has no part.
            self._put_whole(b"")

    def _put_whole(self, block: memoryview | bytes) -> None:
        # An image of one block is hashed before it is written.
        self._parts.put_whole(block, None if self.digests is None else self.digests.checksum)

    def interrupt(self) -> None:
        """Have the parts that are on their way end soon."""
        self._parts.interrupt()

    def abort(self) -> None:
        """Remove what was sent."""
        self._parts.abort()
