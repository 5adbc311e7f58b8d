# SPDX-License-Identifier: Apache-2.0
"""What was stored is what is read, at all sizes."""

from __future__ import annotations

import contextlib

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import WRITE, Kit, needs, touches

# In blocks and bytes: (1, -1) is one byte less than a block.
SIZES = {
    "nothing": (0, 0),
    "one-byte": (0, 1),
    "block-1": (1, -1),
    "block": (1, 0),
    "block+1": (1, 1),
    "many-blocks": (9, 7),
}

ODD_IDS = {
    "space": "with space",
    "leading-space": " leading",
    "trailing-space": "trailing ",
    "option": "-rf",
    "escape": "a%2Fb",
    "query": "a?b=c#d",
    "authority": "a:b@c",
    "quotes": "quote\"s'",
    "backslash": "back\\slash",
    "letters-of-others": "größe-图像-🖼",
    "decomposed": "e\u0301-decomposed",
    "line-feed": "line\nfeed",
    "empty": "",
    "dots": "..",
    "slash": "a/b",
    "outside": "../outside",
    "absolute": "/absolute",
    "zero-byte": "nul\0byte",
    "surrogate": "surrogate-\ud800",
    "long": "x" * 300,
}


@touches("layout", "wire", "account")
class RoundTrips(Kit):
    """Images of all sizes and odd ids."""

    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    def test_round_trip(self, size: tuple[int, int]) -> None:
        """An image is read as it was stored."""
        data = image(size[0] * self.block_size + size[1])
        uri = self.place(data)
        check_bytes(self.read(uri), data)
        assert self.size(uri) == len(data)

    @needs(WRITE)
    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    def test_round_trip_of_unknown_size(self, size: tuple[int, int]) -> None:
        """So is one whose size was not announced."""
        data = image(size[0] * self.block_size + size[1])
        uri = self.add(self.new_id(), data, size=0)
        check_bytes(self.read(uri), data)
        assert self.size(uri) == len(data)

    @touches("layout", "wire")
    def test_chunks(self) -> None:
        """An image is delivered as bytes, never empty ones, by an iterator that can be closed."""
        chunks, _size = self.get(self.place(image(3 * self.block_size)))
        with contextlib.closing(chunks):
            assert iter(chunks) is not None
            for chunk in chunks:
                assert isinstance(chunk, bytes)
                assert chunk

    @touches("account")
    def test_another_store_on_the_same_backend(self) -> None:
        """A store that is made later, as after a restart of the service, reads what is there."""
        data = image(2 * self.block_size + 3)
        uri = self.place(data)
        check_bytes(self.read(uri, self.new_store()), data)

    @touches("layout")
    @needs(WRITE)
    def test_block_size_of_the_kit(self) -> None:
        """The sizes above are meant for the blocks of the writer: `block_size` must be theirs."""
        try:
            writer = self.call(self.store.open_writer, self.new_id(), 0)
        except NotImplementedError:
            pytest.skip("the driver has an add() of its own")
        try:
            assert type(self).block_size == writer.block_size
        finally:
            self.call(writer.abort)

    @touches("wire", "locations")
    @needs(WRITE)
    @pytest.mark.parametrize("image_id", ODD_IDS.values(), ids=ODD_IDS)
    def test_odd_image_id(self, image_id: str) -> None:
        """Whatever the id: all works, or `add` refuses it and leaves nothing."""
        data = image(self.block_size + 1)
        with self.leaving_nothing():
            try:
                uri = self.add(image_id, data)
            except exceptions.GlanceStoreException:
                return
            check_bytes(self.read(uri, self.new_store()), data)
            self.delete(uri)
            self.check_missing(uri)

    @touches("wire", "locations")
    @needs(WRITE)
    def test_similar_ids_are_different_images(self) -> None:
        """Ids that differ in case, escapes or spaces alone do not get into each other's way."""
        stored = {}
        for number, image_id in enumerate(
            ["image", "IMAGE", "image ", "image.", "imag%65", "image?x", "image#x", "image;x"]
        ):
            data = image(100, seed=number)
            with contextlib.suppress(exceptions.Invalid):
                stored[self.add(image_id, data)] = data
        assert stored
        for uri, data in stored.items():
            check_bytes(self.read(uri), data)
            self.delete(uri)
