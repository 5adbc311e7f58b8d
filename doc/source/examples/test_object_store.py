# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the memory store as an object service."""

from __future__ import annotations

import time
from collections.abc import Iterable

import object_store
import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store.testing import StoreConformance, image

PART = 64 * 1024


class TestObjectStore(StoreConformance):
    block_size = PART

    @pytest.fixture
    def backend(self) -> None:
        """Start with an empty shelf."""
        self.shelf = object_store.Shelf()

    def make_store(self) -> object_store.Store:
        conf = cfg.ConfigOpts()
        store = object_store.Store(conf, "objects")
        conf.set_override("memory_store_limit", 256, group="objects")
        store.shelf = self.shelf
        store.part_size = PART
        store.configure(re_raise_bsc=True)
        return store

    def listing(self) -> Iterable[str]:
        return [*self.shelf, *self.shelf.uploads]

    def test_what_an_upload_has_left(self) -> None:
        """A test of the driver's own."""
        writer = self.store.open_writer(self.new_id(), 0)
        writer.write(0, memoryview(image(PART)))
        assert not list(self.store.leftovers(3600))
        (upload,) = self.shelf.uploads.values()
        upload.changed -= 7200
        (leftover,) = self.store.leftovers(3600)
        assert leftover.size == PART
        upload.changed = time.time()
        with pytest.raises(exceptions.InUseByStore):
            leftover.remove()
        upload.changed -= 7200
        leftover.remove()
        assert not self.listing()

    def test_image_that_is_refused_at_the_end(self) -> None:
        """One that was sent in one request is there by then, and is removed."""

        class Verifier:
            def update(self, data: bytes) -> None:
                pass

            def approve(self, size: int, checksum: str, multihash: str) -> None:
                raise ValueError("refused")

        with self.leaving_nothing(), pytest.raises(ValueError, match="refused"):
            self.add(self.new_id(), image(PART // 2), verifier=Verifier())
