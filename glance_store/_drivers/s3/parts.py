# SPDX-License-Identifier: Apache-2.0
"""How an image is cut into parts. S3 allows 10,000 parts of 5 MiB to 5 GiB."""

from __future__ import annotations

import bisect
import threading
from typing import Protocol

MIB = 1024 * 1024
GIB = 1024 * MIB
MAX_PARTS = 10_000
MIN_PART = 5 * MIB
MAX_PART = 5 * GIB

# Parts of an image of unknown size stay as they are for this many, then each is a 900th of what
# precedes it, and from 900 GiB on they have 1 GiB: that makes 9,931 parts for 5 TiB when they
# begin with 5 MiB, and fewer when they begin with more.
_GROWTH = 900
_LARGEST_GROWN = GIB


class Plan(Protocol):
    """Sizes and numbers of the parts of one image."""

    def size_at(self, offset: int) -> int:
        """Return the bytes of the part that begins at an offset."""
        ...

    def number_at(self, offset: int) -> int:
        """Return the number of the part that begins at an offset; the first is 1."""
        ...


class EqualParts:
    """Parts of an image of known size.

    :param size: bytes of the image
    :param chunk: bytes of a part, if 10,000 of them suffice
    """

    def __init__(self, size: int, chunk: int) -> None:
        self._part = max(chunk, -(-size // MAX_PARTS))

    def size_at(self, offset: int) -> int:
        """Return the bytes of the part that begins at an offset."""
        return self._part

    def number_at(self, offset: int) -> int:
        """Return the number of the part that begins at an offset."""
        return offset // self._part + 1


class GrowingParts:
    """Parts of an image of unknown size: they grow so that 10,000 of them hold 5 TiB.

    :param chunk: bytes of the first part
    """

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk
        self._lock = threading.Lock()
        self._offsets = [0]

    def size_at(self, offset: int) -> int:
        """Return the bytes of the part that begins at an offset: a number of MiB once they grow."""
        grown = -(-offset // (_GROWTH * MIB)) * MIB
        return max(self._chunk, min(grown, _LARGEST_GROWN))

    def number_at(self, offset: int) -> int:
        """Return the number of the part that begins at an offset."""
        with self._lock:
            while self._offsets[-1] < offset:
                last = self._offsets[-1]
                self._offsets.append(last + self.size_at(last))
            return bisect.bisect_left(self._offsets, offset) + 1
