# SPDX-License-Identifier: Apache-2.0
"""Images of any size read back as they were stored."""

from __future__ import annotations

import contextlib

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import WRITE, Kit, needs, touches

# (blocks, bytes): (1, -1) is one byte less than a block.
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
        """An image reads back as it was stored."""
        data = image(size[0] * self.block_size + size[1])
        uri = self.place(data)
        check_bytes(self.read(uri), data)
        assert self.size(uri) == len(data)

    @needs(WRITE)
    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    def test_round_trip_of_unknown_size(self, size: tuple[int, int]) -> None:
        """An image whose size was not announced reads back as it was stored."""
        data = image(size[0] * self.block_size + size[1])
        uri = self.add(self.new_id(), data, size=0)
        check_bytes(self.read(uri), data)
        assert self.size(uri) == len(data)

    @touches("layout", "wire")
    def test_chunks(self) -> None:
        """`get` returns an iterator that can be closed, of bytes that are never empty."""
        chunks, _size = self.get(self.place(image(3 * self.block_size)))
        with contextlib.closing(chunks):
            assert iter(chunks) is not None
            for chunk in chunks:
                assert isinstance(chunk, bytes)
                assert chunk

    @touches("account")
    def test_another_store_on_the_same_backend(self) -> None:
        """A new store, as after a restart of the service, reads existing images."""
        data = image(2 * self.block_size + 3)
        uri = self.place(data)
        check_bytes(self.read(uri, self.new_store()), data)

    @touches("layout")
    @needs(WRITE)
    def test_block_size_of_the_kit(self) -> None:
        """`Kit.block_size` is that of the writer, as the sizes of these tests depend on it."""
        try:
            writer = self.call(self.store.open_writer, self.new_id(), 0)
        except NotImplementedError:
            pytest.skip("the driver has its own add()")
        try:
            assert type(self).block_size == writer.block_size
        finally:
            self.call(writer.abort)

    @touches("wire", "locations")
    @needs(WRITE)
    @pytest.mark.parametrize("image_id", ODD_IDS.values(), ids=ODD_IDS)
    def test_odd_image_id(self, image_id: str) -> None:
        """With any id, everything works, or `add` refuses it and leaves nothing."""
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
        """Ids that differ only in case, escapes or spaces are different images."""
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
