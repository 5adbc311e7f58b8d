# SPDX-License-Identifier: Apache-2.0
"""A store that keeps images in the memory of its process: a small driver, complete."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from glance_store import capabilities, driver, exceptions, location
from glance_store.transfer.interface import Extent

SCHEME = "memory"
MIB = 1024 * 1024

OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt(
        "memory_store_limit",
        default=64,
        min=1,
        help="MiB that the images of this store may take together.",
    ),
]


class StoreLocation(location.StoreLocation):
    """``memory://<name of the store>/<image id>``; the engine finds this class by its name."""

    store_name: str = ""
    image_id: str = ""

    def process_specs(self) -> None:
        """Take the attributes from the specs."""
        self.store_name = self.specs["store_name"]
        self.image_id = self.specs["image_id"]

    def get_uri(self) -> str:
        """Return the URI made of the attributes."""
        return f"{SCHEME}://{self.store_name}/{self.image_id}"

    def parse_uri(self, uri: str) -> None:
        """Take the attributes from a URI."""
        self.validate_schemas(uri, (f"{SCHEME}://",))
        self.store_name, _slash, self.image_id = uri[len(f"{SCHEME}://") :].partition("/")
        if not self.store_name or not self.image_id or "/" in self.image_id:
            raise exceptions.BadStoreUri(uri=location.redact(uri))

    def get_image_id(self) -> str:
        """Return the id of the image."""
        return self.image_id


class Shelf:
    """The backend: a dictionary with a limit. Another driver has a client library here."""

    def __init__(self) -> None:
        self.limit = 0  # bytes
        self._images: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._images

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._images))

    def check_room(self, size: int) -> None:
        """Raise StorageFull if an image of this size does not fit."""
        if self.used() + size > self.limit:
            raise exceptions.StorageFull(
                "There is no room for the image: memory_store_limit is %(limit)d MiB",
                limit=self.limit // MIB,
            )

    def used(self) -> int:
        """Return the bytes of all images."""
        return sum(map(len, list(self._images.values())))

    def put(self, image_id: str, data: bytes) -> None:
        """Add an image; of two uploads of one id the first wins."""
        with self._lock:
            if image_id in self._images:
                raise exceptions.Duplicate(image=image_id)
            self.check_room(len(data))
            self._images[image_id] = data

    def find(self, image_id: str) -> bytes:
        """Return an image."""
        try:
            return self._images[image_id]
        except KeyError:
            raise exceptions.NotFound(image=image_id) from None

    def remove(self, image_id: str) -> None:
        """Remove an image."""
        with self._lock:
            if self._images.pop(image_id, None) is None:
                raise exceptions.NotFound(image=image_id)


class MemoryWriter:
    """One image on its way in; nobody sees it before `commit`."""

    block_size = MIB
    concurrency = 1  # the blocks come in order
    holes = True  # runs of zeros need not be written

    def __init__(self, shelf: Shelf, target: StoreLocation) -> None:
        self.uri = target.get_uri()
        self.metadata: dict[str, Any] = {}
        self._shelf = shelf
        self._image_id = target.image_id
        self._data = bytearray()

    def write(self, offset: int, block: memoryview) -> None:
        """Keep a copy of the block; what was left out before it is zeros."""
        self._shelf.check_room(offset + len(block))
        self._data.extend(bytes(offset - len(self._data)))
        self._data += block

    def commit(self, size: int) -> None:
        """Put the image on the shelf."""
        # The image may end with zeros that were left out.
        self._data.extend(bytes(size - len(self._data)))
        self._shelf.put(self._image_id, bytes(self._data))

    def abort(self) -> None:
        """Forget the bytes."""
        self._data.clear()


class MemoryReader:
    """One stored image."""

    concurrency = 1  # several reads at a time would not be faster

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read_at(self, offset: int, length: int) -> bytes:
        """Return a part of the image."""
        return self._data[offset : offset + length]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say that all of it is data."""
        yield Extent(offset, length, True)

    def close(self) -> None:
        """Do nothing: there is no connection to close."""


class Store(driver.Store):
    """Images in the memory of the process, gone when it ends."""

    OPTIONS = OPTIONS
    # Reusable: one object serves all requests. A new one for each would have no images.
    _CAPABILITIES = (
        capabilities.BitMasks.READ_RANDOM
        | capabilities.BitMasks.WRITE_ACCESS
        | capabilities.BitMasks.DRIVER_REUSABLE
    )

    def __init__(self, conf: cfg.ConfigOpts, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self.shelf = Shelf()

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return (SCHEME,)

    def configure_add(self) -> None:
        """Read the options."""
        self.shelf.limit = self.store_conf.memory_store_limit * MIB
        self._url_prefix = f"{SCHEME}://{self.name}/"

    def open_writer(self, image_id: str, size: int, context: Any = None) -> Any:
        """Begin to store an image."""
        return MemoryWriter(self.shelf, self.check_new(image_id, size))

    def check_new(self, image_id: str, size: int) -> StoreLocation:
        """Return the location of a new image; refuse it before any of it is read."""
        if not image_id or "/" in image_id:
            raise exceptions.Invalid("%(image)r cannot be the id of an image", image=image_id)
        if image_id in self.shelf:
            # Shelf.put() decides between two uploads at the same time.
            raise exceptions.Duplicate(image=image_id)
        self.shelf.check_room(size)
        return StoreLocation({"store_name": self.name, "image_id": image_id}, self.conf)

    def open_reader(self, location: location.Location, context: Any = None) -> Any:
        """Open a stored image."""
        return MemoryReader(self.shelf.find(self.image_id_at(location)))

    @capabilities.check
    def delete(self, location: location.Location, context: Any = None) -> None:
        """Remove an image."""
        self.shelf.remove(self.image_id_at(location))

    def image_id_at(self, location: location.Location) -> str:
        """Return the id of the image at a location of this store."""
        parsed = location.store_location
        assert isinstance(parsed, StoreLocation)
        if parsed.store_name != self.name:
            raise exceptions.NotFound(image=parsed.get_uri())
        return parsed.image_id
