# SPDX-License-Identifier: Apache-2.0
"""How an image is cut into segments: a cluster takes a limited number of them."""

from __future__ import annotations

import bisect
import threading
from typing import Protocol

from glance_store import exceptions
from glance_store.i18n import _

# Segments of an image of unknown size stay as they are for the first half of their number. From
# there on they grow with what they hold, so fast that all of them hold terabytes.
_STEPS = 20


class Plan(Protocol):
    """Sizes and numbers of the segments of one image."""

    def size_at(self, offset: int) -> int:
        """Return the bytes of the segment that begins at an offset.

        :param offset: 0, or where the segment before ends
        """
        ...

    def number_at(self, offset: int) -> int:
        """Return the number of the segment that begins at an offset; the first is 1.

        :param offset: 0, or where the segment before ends
        :raises StorageFull: the cluster does not take so many
        """
        ...


def plan(size: int, chunk: int, most: int, largest: int) -> Plan:
    """Return how an image is cut.

    :param size: bytes of the image, 0 when unknown
    :param chunk: bytes of a segment, as long as the image fits into segments like that
    :param most: segments of an image
    :param largest: bytes of a segment
    :raises StorageFull: the cluster does not take an image of that size
    """
    chunk = min(chunk, largest)
    return EqualSegments(size, chunk, most, largest) if size else Growing(chunk, most, largest)


class EqualSegments:
    """Segments of an image of known size; the last one may be smaller.

    :param size: bytes of the image
    :param chunk: bytes of a segment, if the cluster takes so many of them
    :param most: segments of an image
    :param largest: bytes of a segment
    :raises StorageFull: the cluster does not take an image of that size
    """

    def __init__(self, size: int, chunk: int, most: int, largest: int) -> None:
        self._segment = max(chunk, -(-size // most))
        if self._segment > largest:
            raise too_large(most, largest)

    def size_at(self, offset: int) -> int:
        """Return the bytes of the segment that begins at an offset."""
        return self._segment

    def number_at(self, offset: int) -> int:
        """Return the number of the segment that begins at an offset."""
        return offset // self._segment + 1


class Growing:
    """Segments of an image of unknown size, which grow when there are many.

    :param chunk: bytes of the first segment; all of them have a multiple of it, or `largest`
    :param most: segments of an image
    :param largest: bytes of a segment
    """

    def __init__(self, chunk: int, most: int, largest: int) -> None:
        self._chunk = chunk
        self._most = most
        self._largest = largest
        self._grows_from = most // 2 * chunk
        self._step = max(1, most // _STEPS) * chunk
        self._lock = threading.Lock()
        self._offsets = [0]

    def size_at(self, offset: int) -> int:
        """Return the bytes of the segment that begins at an offset."""
        times = 1 + max(0, offset - self._grows_from) // self._step
        return min(times * self._chunk, self._largest)

    def number_at(self, offset: int) -> int:
        """Return the number of the segment that begins at an offset."""
        with self._lock:
            while self._offsets[-1] < offset:
                last = self._offsets[-1]
                self._offsets.append(last + self.size_at(last))
            number = bisect.bisect_left(self._offsets, offset) + 1
        if number > self._most:
            raise too_large(self._most, self._largest)
        return number


def too_large(most: int, largest: int) -> exceptions.StorageFull:
    """Return the error for an image that the cluster cannot keep, ready to raise.

    :param most: segments of an image
    :param largest: bytes of a segment
    """
    return exceptions.StorageFull(
        _(
            "The image is too large for the cluster, which takes %(most)d segments of %(largest)d "
            "bytes; for an image whose size is not known beforehand a larger "
            "swift_store_large_object_chunk_size may help"
        ),
        most=most,
        largest=largest,
    )
