# SPDX-License-Identifier: Apache-2.0
"""The memory store of the documentation, broken in seven ways, with the kit on each.

Not collected with the other tests: `test_broken_drivers` runs this file, and expects failures.
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from glance_store.testing import StoreConformance
from tests.kit.examples import load

memory_store = load("memory_store")
LOG = logging.getLogger(__name__)
CANARY = "canary-password"


class Shelf(memory_store.Shelf):
    """A shelf that shows what uploads under way keep on it."""

    def __init__(self) -> None:
        super().__init__()
        self.partial: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter([*self._images, *self.partial])


class Writer(memory_store.MemoryWriter):
    # Small, so that the kit is quick.
    block_size = 64 * 1024

    def __init__(self, shelf: Shelf, place: Any) -> None:
        super().__init__(shelf, place)
        self._partial = f"{place.image_id}.partial"
        self._shelf.partial.add(self._partial)

    def commit(self, size: int) -> None:
        super().commit(size)
        self._shelf.partial.discard(self._partial)

    def abort(self) -> None:
        super().abort()
        self._shelf.partial.discard(self._partial)


class Store(memory_store.Store):
    """Sound, as a base of the broken ones."""

    WRITER: type[Writer] = Writer

    def get_store_location_class(self) -> Any:
        return memory_store.StoreLocation

    def open_writer(self, image_id: str, size: int, context: Any = None) -> Any:
        sound = super().open_writer(image_id, size, context)
        place = memory_store.StoreLocation({}, self.conf)
        place.parse_uri(sound.uri)
        return self.WRITER(self.shelf, place)


class LeakyWriter(Writer):
    def abort(self) -> None:
        """Forget to clean up."""


class LeaksOnAbort(Store):
    WRITER = LeakyWriter


class IgnoresOffset(Store):
    def get(self, location: Any, offset: int = 0, *rest: Any, **named: Any) -> Any:
        return super().get(location, 0, *rest, **named)


class ShortReader(memory_store.MemoryReader):
    def __init__(self, data: bytes) -> None:
        super().__init__(data[:-1])


class ReadsShort(Store):
    def open_reader(self, location: Any, context: Any = None) -> Any:
        return ShortReader(super().open_reader(location, context)._data)


class OverwritingShelf(Shelf):
    def __contains__(self, image_id: str) -> bool:
        return False

    def put(self, image_id: str, data: bytes) -> None:
        self._images[image_id] = data


class OverwritesOnDuplicate(Store):
    SHELF = OverwritingShelf


class LogsASecret(Store):
    def open_reader(self, location: Any, context: Any = None) -> Any:
        LOG.debug("Reading as user glance with %s", CANARY)
        return super().open_reader(location, context)


class EarlyWriter(Writer):
    def write(self, offset: int, block: memoryview) -> None:
        super().write(offset, block)
        self._shelf._images[self._image_id] = bytes(self._data)

    def commit(self, size: int) -> None:
        self._shelf._images.pop(self._image_id, None)
        super().commit(size)

    def abort(self) -> None:
        self._shelf._images.pop(self._image_id, None)
        super().abort()


class PublishesEarly(Store):
    WRITER = EarlyWriter


class UsesAnExecutor(Store):
    def delete(self, location: Any, context: Any = None) -> None:
        with concurrent.futures.ThreadPoolExecutor() as executor:
            executor.submit(super().delete, location, context).result()


class Conformance(StoreConformance):
    __test__ = False
    block_size = Writer.block_size
    secrets = (CANARY,)
    driver: type[Store]

    @pytest.fixture
    def backend(self) -> None:
        self.shelf = getattr(self.driver, "SHELF", Shelf)()

    def make_store(self) -> Store:
        conf = cfg.ConfigOpts()
        store = self.driver(conf, "scratch")
        conf.set_override("memory_store_limit", 256, group="scratch")
        store.shelf = self.shelf
        store.configure(re_raise_bsc=True)
        return store

    def listing(self) -> list[str]:
        return list(self.shelf)


class TestSound(Conformance):
    driver = Store


class TestLeaksOnAbort(Conformance):
    driver = LeaksOnAbort


class TestIgnoresOffset(Conformance):
    driver = IgnoresOffset


class TestReadsShort(Conformance):
    driver = ReadsShort


class TestOverwritesOnDuplicate(Conformance):
    driver = OverwritesOnDuplicate


class TestLogsASecret(Conformance):
    driver = LogsASecret


class TestPublishesEarly(Conformance):
    driver = PublishesEarly


class TestUsesAnExecutor(Conformance):
    driver = UsesAnExecutor
