# SPDX-License-Identifier: Apache-2.0
"""Parts of an image."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.capabilities import BitMasks
from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import RANGES, Kit, needs, touches

# Offset and length, each in (blocks, bytes); END is the size of the image.
END = (3, 5)
CASES = {
    "from-the-start": ((0, 0), None),
    "more-than-all": ((0, 0), (9, 0)),
    "first-byte": ((0, 0), (0, 1)),
    "all-but-the-first-byte": ((0, 1), None),
    "last-byte": ((3, 4), (0, 1)),
    "over-the-end": ((3, 0), (0, 100)),
    "at-the-end": (END, None),
    "byte-at-the-end": (END, (0, 1)),
    "past-the-end": ((3, 6), None),
    "far-past-the-end": ((100, 0), (1, 0)),
    "last-byte-of-a-block": ((1, -1), (0, 1)),
    "across-blocks": ((1, -1), (0, 2)),
    "one-block": ((1, 0), (1, 0)),
    "block-and-both-neighbours": ((1, -1), (1, 2)),
    "from-a-block-on": ((2, 0), None),
    "length-of-zero": ((1, 3), (0, 0)),
}
Bound = tuple[int, int]


@touches("layout", "wire")
class Ranges(Kit):
    """Ranges of an image, and abandoned downloads."""

    def _bytes(self, bound: Bound) -> int:
        return bound[0] * self.block_size + bound[1]

    @needs(RANGES)
    @pytest.mark.parametrize(("offset", "length"), CASES.values(), ids=CASES)
    def test_range(self, offset: Bound, length: Bound | None) -> None:
        """A range has exactly its bytes, clipped at the end; length 0 means the rest."""
        data = image(self._bytes(END))
        uri = self.place(data)
        start = self._bytes(offset)
        wanted = None if length is None else self._bytes(length)
        stop = start + wanted if wanted else len(data)
        check_bytes(self.read(uri, offset=start, chunk_size=wanted), data[start:stop])

    @needs(RANGES)
    def test_ranges_in_any_order(self) -> None:
        """Ranges of one image can be read in any order."""
        data = image(self._bytes(END))
        uri = self.place(data)
        numbers = random.Random(3)
        for _number in range(20):
            start = numbers.randrange(len(data))
            length = numbers.randint(1, self.block_size)
            found = self.read(uri, offset=start, chunk_size=length)
            check_bytes(found, data[start : start + length])

    @needs(RANGES)
    def test_ranges_make_the_whole(self) -> None:
        """Adjacent ranges add up to the image."""
        data = image(self._bytes(END))
        uri = self.place(data)
        step = self.block_size // 2 + 1
        parts = [
            self.read(uri, offset=start, chunk_size=step) for start in range(0, len(data), step)
        ]
        check_bytes(b"".join(parts), data)

    @needs(RANGES)
    def test_range_of_an_empty_image(self) -> None:
        """Any range of an empty image is empty."""
        uri = self.place(b"")
        assert self.read(uri, offset=0, chunk_size=10) == b""
        assert self.read(uri, offset=10) == b""

    @touches("wire")
    @needs(RANGES)
    def test_range_of_a_missing_image(self) -> None:
        """A range of a missing image raises `NotFound`."""
        uri = self.missing_uri()
        with pytest.raises(exceptions.NotFound):
            self.get(uri, offset=5, chunk_size=7)

    @touches()
    @needs(RANGES)
    @pytest.mark.parametrize(
        "bounds",
        [{"offset": -1}, {"offset": 1, "chunk_size": -1}],
        ids=["offset", "length"],
    )
    def test_negative_range(self, bounds: dict[str, Any]) -> None:
        """A negative offset or length is refused."""
        uri = self.place(image(self.block_size))
        with pytest.raises(exceptions.Invalid):
            self.get(uri, **bounds)

    @touches()
    def test_ranges_that_the_store_cannot_read(self) -> None:
        """A store that cannot read ranges refuses them."""
        if self.store.is_capable(BitMasks.READ_RANDOM):
            pytest.skip("the store reads ranges")
        uri = self.place(image(self.block_size))
        if not self.store.is_capable(BitMasks.READ_OFFSET):
            with pytest.raises(exceptions.StoreRandomGetNotSupported):
                self.get(uri, offset=1)
        if not self.store.is_capable(BitMasks.READ_CHUNK):
            with pytest.raises(exceptions.StoreRandomGetNotSupported):
                self.get(uri, chunk_size=1)

    @touches("wire", "locking")
    def test_download_given_up(self) -> None:
        """A download can be closed before its end, twice, or before it starts."""
        data = image(max(3 * self.block_size, 2 * self.store.read_size) + 5)
        uri = self.place(data)
        chunks, _size = self.get(uri)
        first = self.call(next, chunks)
        check_bytes(first, data[: len(first)])
        self.call(chunks.close)
        self.call(chunks.close)
        assert list(chunks) == []
        with contextlib.closing(self.get(uri)[0]):
            pass
        check_bytes(self.read(uri), data)
