# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the memory store."""

from __future__ import annotations

from collections.abc import Iterable

import memory_store
import pytest
from oslo_config import cfg

from glance_store.testing import StoreConformance


class TestMemoryStore(StoreConformance):
    block_size = memory_store.MemoryWriter.block_size
    group: str | None = "scratch"

    @pytest.fixture
    def backend(self) -> None:
        """Start with an empty shelf; another driver starts a server, or makes a directory."""
        self.shelf = memory_store.Shelf()

    def make_store(self) -> memory_store.Store:
        conf = cfg.ConfigOpts()
        store = memory_store.Store(conf, self.group)
        conf.set_override("memory_store_limit", 256, group=self.group or "glance_store")
        # The stores of a test see the same images. Those of another driver meet in its backend.
        store.shelf = self.shelf
        store.configure(re_raise_bsc=True)
        return store

    def listing(self) -> Iterable[str]:
        return list(self.shelf)


class TestSingleStoreMode(TestMemoryStore):
    """The one store of its service: only its locations differ, so only tests of them run."""

    variant = ("locations",)
    group = None
