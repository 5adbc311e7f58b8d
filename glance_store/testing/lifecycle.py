# SPDX-License-Identifier: Apache-2.0
"""The life of an image: stored once, found, deleted. And what a store says about itself."""

from __future__ import annotations

import io

import pytest

from glance_store import exceptions
from glance_store.location import check_location_metadata
from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import ALGORITHM, WRITE, Kit, needs, touches


@touches("layout", "wire", "account", "locking")
class Lifecycle(Kit):
    """Duplicate ids, deletion, sizes, metadata, prefix, read-only stores."""

    # -- one id, one image

    @needs(WRITE)
    @pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
    def test_duplicate(self, known: bool) -> None:
        """An id that is taken is refused, and its image does not change."""
        image_id = self.new_id()
        data = image(2 * self.block_size + 3)
        uri = self.add(image_id, data)
        other = image(self.block_size + 9, seed=1)
        with self.leaving_nothing(), pytest.raises(exceptions.Duplicate):
            self.add(image_id, other, len(other) if known else 0)
        check_bytes(self.read(uri), data)

    @touches("wire", "account", "locking")
    @needs(WRITE)
    def test_duplicate_in_another_store(self) -> None:
        """An id taken by another store on the same backend is refused."""
        image_id = self.new_id()
        data = image(self.block_size + 3)
        uri = self.add(image_id, data, store=self.new_store())
        with self.leaving_nothing(), pytest.raises(exceptions.Duplicate):
            self.add(image_id, data)
        check_bytes(self.read(uri), data)

    # -- deletion

    @needs(WRITE)
    def test_delete(self) -> None:
        """A deleted image is gone, with everything that belonged to it."""
        with self.leaving_nothing():
            uri = self.add(self.new_id(), image(3 * self.block_size + 3))
            self.delete(uri)
        self.check_missing(uri)

    @touches("wire", "account")
    @needs(WRITE)
    def test_delete_twice(self) -> None:
        """Deleting an image twice raises `NotFound`."""
        uri = self.add(self.new_id(), image(self.block_size))
        self.delete(uri)
        with self.leaving_nothing(), pytest.raises(exceptions.NotFound):
            self.delete(uri)

    @touches("layout")
    @needs(WRITE)
    def test_delete_one_of_several(self) -> None:
        """Deleting an image does not affect another one, even with the same bytes."""
        data = image(2 * self.block_size + 3)
        first, second = (self.add(self.new_id(), data) for _number in range(2))
        assert first != second
        self.delete(first)
        self.check_missing(first)
        check_bytes(self.read(second), data)

    @touches("layout", "wire")
    @needs(WRITE)
    def test_id_is_free_after_delete(self) -> None:
        """The id of a deleted image can be used for a new one."""
        image_id = self.new_id()
        self.delete(self.add(image_id, image(2 * self.block_size + 3)))
        data = image(self.block_size + 3, seed=1)
        check_bytes(self.read(self.add(image_id, data)), data)

    @touches("layout", "wire", "locking")
    @needs(WRITE)
    @pytest.mark.parametrize("begun", [True, False], ids=["begun", "not-begun"])
    def test_delete_while_reading(self, begun: bool) -> None:
        """A download of a deleted image completes or raises; it never delivers wrong data."""
        data = image(max(3 * self.block_size, 2 * self.store.read_size) + 3)
        uri = self.add(self.new_id(), data)
        chunks, _size = self.get(uri)
        found = bytearray(self.call(next, chunks) if begun else b"")
        deleted = True
        try:
            self.delete(uri, self.new_store())
        except (exceptions.InUseByStore, exceptions.Forbidden):
            deleted = False
        try:
            found += self.call(b"".join, chunks)
        except exceptions.GlanceStoreException:
            assert deleted, "the deletion was refused, but the download failed"
        else:
            check_bytes(bytes(found), data)
        if not deleted:
            self.delete(uri)
        self.check_missing(uri)

    # -- missing images and sizes

    @touches("wire", "account", "locations")
    def test_missing_image(self) -> None:
        """A missing image raises `NotFound` before the first chunk is requested."""
        self.check_missing(self.missing_uri())

    @touches("layout", "wire")
    def test_size(self) -> None:
        """`get_size` and `get` return the size of an image."""
        data = image(2 * self.block_size + 3)
        uri = self.place(data)
        assert self.size(uri) == len(data)
        chunks, size = self.get(uri)
        self.call(chunks.close)
        assert size == len(data)

    # -- what a store says about itself and its images

    @touches("locations")
    @needs(WRITE)
    def test_metadata(self) -> None:
        """Location metadata consists of strings, and names the store in multi-store mode."""
        data = image(10)
        result = self.call(self.store.add, self.new_id(), io.BytesIO(data), len(data), ALGORITHM)
        metadata = result[-1]
        check_location_metadata(metadata)
        assert isinstance(metadata, dict)
        if self.store.backend_group is not None:
            assert metadata["store"] == self.store.backend_group

    @touches("account", "locations")
    @needs(WRITE)
    def test_url_prefix(self) -> None:
        """Locations start with the store's `url_prefix`, if known, and one of its schemes."""
        uri = self.add(self.new_id(), image(10))
        prefix = self.store.url_prefix
        assert prefix is None or uri.startswith(prefix)
        assert uri.partition("://")[0] in self.store.get_schemes()

    @touches("wire", "account")
    def test_health(self) -> None:
        """`check_health` of a working store returns a few words."""
        self.place(image(10))
        words = self.call(self.store.check_health)
        assert isinstance(words, str)
        assert words.strip()

    @touches("account")
    def test_configured_twice(self) -> None:
        """Configuring a store again does no harm."""
        data = image(self.block_size + 3)
        uri = self.place(data)
        before = self.store.capabilities
        self.call(self.store.configure)
        assert self.store.capabilities == before
        check_bytes(self.read(uri), data)

    @touches()
    def test_read_only_store(self) -> None:
        """A read-only store refuses to add and delete, but can read."""
        data = image(self.block_size + 3)
        uri = self.place(data)
        store = self.new_store()
        store.unset_capabilities(WRITE)
        with pytest.raises(exceptions.StoreAddDisabled):
            self.add(self.new_id(), data, store=store)
        with pytest.raises(exceptions.StoreDeleteNotSupported):
            self.delete(uri, store)
        check_bytes(self.read(uri), data)
