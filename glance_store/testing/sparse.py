# SPDX-License-Identifier: Apache-2.0
"""Images with holes: long runs of zeros."""

from __future__ import annotations

import pytest

from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import RANGES, WRITE, Kit, needs, touches

# What is data, from and to, each in blocks and bytes; the rest of the size is zeros.
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
    """The bytes of a hole are zeros, and take up no room where the store can help it."""

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
        """An image with holes is read as it was stored."""
        data = self._image(pattern)
        uri = self.place(data)
        check_bytes(self.read(uri), data)
        assert self.size(uri) == len(data)

    @needs(WRITE)
    @pytest.mark.parametrize("pattern", ["zeros-alone", "hole-at-the-end", "several-holes"])
    def test_image_with_holes_of_unknown_size(self, pattern: str) -> None:
        """So is one whose size was not announced."""
        data = self._image(pattern)
        uri = self.add(self.new_id(), data, size=0)
        check_bytes(self.read(uri), data)
        assert self.size(uri) == len(data)

    @needs(RANGES)
    def test_ranges_of_an_image_with_holes(self) -> None:
        """Ranges may begin and end in holes."""
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
        """The backend sets no room aside for whole blocks of zeros."""
        data = self._image(pattern)
        blocks = [data[at : at + self.block_size] for at in range(0, len(data), self.block_size)]
        needed = sum(self.block_size for block in blocks if block.strip(b"\0"))
        for announced in (len(data), 0):
            uri = self.add(self.new_id(), data, announced)
            allocated = self.allocated(uri)
            if allocated is None:
                pytest.skip("allocated() does not tell how much room an image takes up")
            assert allocated <= needed
            check_bytes(self.read(uri), data)
