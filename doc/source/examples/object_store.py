# SPDX-License-Identifier: Apache-2.0
"""The memory store as an object service: images in parts, long answers, and what it holds."""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import memory_store
from memory_store import MIB, StoreLocation
from oslo_config import cfg

from glance_store import capabilities, driver, exceptions, location
from glance_store.inventory import COMPLETE, Capacity, Leftover, StoredImage
from glance_store.transfer.memory import Memory
from glance_store.transfer.multipart import EqualParts, GrowingParts, MultipartWriter
from glance_store.transfer.retry import Patience, ResumingStreamingReader
from glance_store.transfer.upload import fill

__all__ = ["Store", "StoreLocation"]

OPTIONS: list[cfg.Opt] = [
    *memory_store.OPTIONS,
    cfg.FloatOpt(
        "memory_store_retry_timeout",
        default=30.0,
        min=0,
        help="Seconds for which a request that failed for a passing reason is sent again.",
    ),
]


class Limits(NamedTuple):
    """What the service takes: how many parts, and of how many bytes."""

    most: int = 10_000
    largest: int = 64 * MIB


class Shelf(memory_store.Shelf):
    """The service. It keeps the parts of uploads until they are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads: dict[str, Upload] = {}


class Upload:
    """The requests of one upload: what `MultipartWriter` asks for."""

    def __init__(self, shelf: Shelf, image_id: str, patience: Patience) -> None:
        self.image_id = image_id
        self.upload_id = secrets.token_hex(8)
        self.changed = time.time()
        self._shelf = shelf
        self._patience = patience
        self._parts: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._published = False

    @property
    def size(self) -> int:
        """Bytes that have come so far."""
        with self._lock:
            return sum(map(len, self._parts.values()))

    def put_whole(self, block: memoryview | bytes, md5: str | None) -> None:
        """Store a small image in one request."""
        self._publish(bytes(block))

    def begin(self) -> None:
        """Begin an upload in parts; called before each part."""
        self._shelf.uploads[self.upload_id] = self

    def put_part(self, number: int, block: memoryview) -> None:
        """Send a part, and send it again where that may help."""

        def send() -> None:
            with self._lock:
                self._parts[number] = bytes(block)
            self.changed = time.time()

        self._patience.call(send)

    def complete(self, size: int) -> None:
        """Join the parts."""
        self._publish(b"".join(self._parts[number] for number in sorted(self._parts)))
        self._shelf.uploads.pop(self.upload_id)

    def _publish(self, data: bytes) -> None:
        self._shelf.put(self.image_id, data)
        self._published = True

    def abort(self) -> None:
        """Remove the parts, and the image if it is this upload's."""
        self._shelf.uploads.pop(self.upload_id, None)
        if self._published:
            self._shelf.remove(self.image_id)

    def interrupt(self) -> None:
        """End the pauses between tries; `abort` follows."""
        self._patience.stop()


class ObjectReader(memory_store.MemoryReader):
    """One stored image; the service sends a range of any length in one answer."""

    concurrency = 4  # ranges side by side, where that is faster
    range_size = 8 * MIB

    def __init__(self, data: bytes, memory: Memory) -> None:
        super().__init__(data)
        self.memory = memory
        # A service names one: an ETag, a generation, a snapshot.
        self.version = hashlib.sha256(data).hexdigest()

    def open_stream(self, offset: int, length: int) -> Any:
        """Ask for a range."""
        return io.BytesIO(self._data[offset : offset + length])


class Store(memory_store.Store):
    """Images as objects in memory."""

    OPTIONS = OPTIONS
    part_size = 8 * MIB

    def __init__(self, conf: cfg.ConfigOpts, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self.shelf: Shelf = Shelf()
        self.memory = Memory(64 * MIB)  # of all transfers of the store

    def new_patience(self) -> Patience:
        """Return the patience of one transfer."""
        return Patience(self.store_conf.memory_store_retry_timeout)

    def open_writer(self, image_id: str, size: int, context: Any = None) -> MultipartWriter:
        """Begin to store an image: whole if it is small, else in parts, four at a time."""
        uri = self.check_new(image_id, size).get_uri()
        plan = (
            EqualParts(self.part_size, Limits(), size)
            if size
            else GrowingParts(self.part_size, Limits())
        )
        upload = Upload(self.shelf, image_id, self.new_patience())
        return MultipartWriter(upload, plan, uri, size, self.part_size, 4, self.memory)

    def open_reader(
        self, location: location.Location, context: Any = None
    ) -> ResumingStreamingReader:
        """Open a stored image; what breaks off goes on."""
        data = self.shelf.find(self.image_id_at(location))
        return ResumingStreamingReader(ObjectReader(data, self.memory), self.new_patience())

    def storage_ids(self) -> set[str]:
        """Return the shelf: no other store may write to it."""
        return {f"shelf {id(self.shelf)}"}

    def check_health(self) -> str:
        """Say how full the shelf is."""
        used, limit = self.shelf.used() // MIB, self.shelf.limit // MIB
        if used >= limit:
            raise exceptions.StorageFull(f"All of the {limit} MiB are in use")
        return f"{used} of {limit} MiB in use"

    def images(self) -> Iterator[StoredImage]:
        """Yield the images."""
        for image_id in self.shelf:
            size = len(self.shelf.find(image_id))
            uri = f"{self.url_prefix}{image_id}"
            yield StoredImage(image_id, uri, size, COMPLETE, used=size)

    def leftovers(self, older_than: float) -> Iterator[Leftover]:
        """Yield uploads in parts that nothing has happened to for a while."""
        for upload in list(self.shelf.uploads.values()):
            age = time.time() - upload.changed
            if age > older_than:
                yield Leftover(
                    name=f"upload {upload.upload_id} of image {upload.image_id}",
                    size=upload.size,
                    modified=upload.changed,
                    proof=f"parts without an image; the last one came {age:.0f} s ago",
                    remove=self._remover(upload, older_than),
                )

    @staticmethod
    def _remover(upload: Upload, older_than: float) -> Callable[[], None]:
        def remove() -> None:
            # A part may have come since it was listed.
            if time.time() - upload.changed <= older_than:
                raise exceptions.InUseByStore
            upload.abort()

        return remove

    def capacity(self) -> Capacity:
        """Return the room on the shelf."""
        used = self.shelf.used()
        return Capacity(self.shelf.limit, self.shelf.limit - used, used)

    @capabilities.check
    def copy_from(
        self,
        source: driver.Store,
        location: location.Location,
        image_id: str,
        progress: Callable[[int], None],
    ) -> tuple[str, int, dict[str, Any]] | None:
        """Have the service copy an image of another store, if that is on a shelf, too."""
        if not isinstance(source, Store):
            return None
        data = source.shelf.find(source.image_id_at(location))
        uri = self.check_new(image_id, len(data)).get_uri()
        copy = Copy(self.shelf, image_id, data)

        def copy_all() -> bool:
            progress(len(data))
            return True

        # Commits the copy, or aborts it if anything fails.
        if not fill(copy, copy_all, len(data)):
            return None
        return uri, len(data), {"store": self.backend_group} if self.backend_group else {}


class Copy:
    """An image that the service copies."""

    def __init__(self, shelf: Shelf, image_id: str, data: bytes) -> None:
        self._shelf = shelf
        self._image_id = image_id
        self._data = data

    def commit(self, size: int) -> None:
        """Give the copy its name."""
        self._shelf.put(self._image_id, self._data)

    def abort(self) -> None:
        """Do nothing: there is no copy before `commit`."""
