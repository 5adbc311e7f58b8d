# SPDX-License-Identifier: Apache-2.0
"""Images with holes: long runs of zeros."""

from __future__ import annotations

import pytest

from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import RANGES, WRITE, Kit, needs, touches

# Runs of data as (start, end), each in (blocks, bytes). The rest up to END is zeros.
Bound = tuple[int, int]
END: Bound = (5, 3)
PATTERNS: dict[str, list[tuple[Bound, Bound]]] = {
    "zeros-alone": [],
    "hole-at-the-start": [((3, 0), END)],
    "hole-at-the-end": [((0, 0), (2, 0))],
    "hole-in-the-middle": [((0, 0), (1, 0)), ((4, 0), END)],
    "several-holes": [((0, 0), (0, 1)), ((2, -1), (2, 1)), ((5, 2), END)],
    "holes-off-the-blocks": [((0, 100), (1, -100)), ((2, 777), (3, 1)), ((4, 4), (4, 5))],
}


@touches("layout")
class Sparse(Kit):
    """Holes read as zeros, and take no space if the store supports that."""

    def _bytes(self, bound: Bound) -> int:
        return bound[0] * self.block_size + bound[1]

    def _image(self, pattern: str) -> bytes:
        data = bytearray(self._bytes(END))
        for start, stop in PATTERNS[pattern]:
            first, last = self._bytes(start), self._bytes(stop)
            data[first:last] = image(last - first)
        return bytes(data)

    @pytest.mark.parametrize("pattern", PATTERNS)
    def test_image_with_holes(self, pattern: str) -> None:
        """An image with holes reads back as it was stored."""
        data = self._image(pattern)
        uri = self.place(data)
        check_bytes(self.read(uri), data)
        assert self.size(uri) == len(data)

    @needs(WRITE)
    @pytest.mark.parametrize("pattern", ["zeros-alone", "hole-at-the-end", "several-holes"])
    def test_image_with_holes_of_unknown_size(self, pattern: str) -> None:
        """An image with holes whose size was not announced reads back as it was stored."""
        data = self._image(pattern)
        uri = self.add(self.new_id(), data, size=0)
        check_bytes(self.read(uri), data)
        assert self.size(uri) == len(data)

    @needs(RANGES)
    def test_ranges_of_an_image_with_holes(self) -> None:
        """Ranges may start and end in holes."""
        data = self._image("several-holes")
        uri = self.place(data)
        for first, last in [
            ((0, 0), (0, 1)),
            ((0, 1), (1, 0)),
            ((1, 0), (1, 1)),
            ((1, 5), (3, 5)),
            ((2, -2), (2, 2)),
            ((2, 1), (5, 2)),
            ((5, 1), END),
        ]:
            start, stop = self._bytes(first), self._bytes(last)
            found = self.read(uri, offset=start, chunk_size=stop - start)
            check_bytes(found, data[start:stop])

    @needs(WRITE, "holes")
    @pytest.mark.parametrize("pattern", ["zeros-alone", "hole-in-the-middle", "several-holes"])
    def test_holes_take_no_room(self, pattern: str) -> None:
        """The backend allocates no space for whole blocks of zeros."""
        data = self._image(pattern)
        blocks = [data[at : at + self.block_size] for at in range(0, len(data), self.block_size)]
        needed = sum(self.block_size for block in blocks if block.strip(b"\0"))
        for announced in (len(data), 0):
            uri = self.add(self.new_id(), data, announced)
            allocated = self.allocated(uri)
            if allocated is None:
                pytest.skip("allocated() does not tell how much space an image takes")
            assert allocated <= needed
            check_bytes(self.read(uri), data)
