# SPDX-License-Identifier: Apache-2.0
"""Reads one RBD image."""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import SNAPSHOT, OpenImage, incomplete
from glance_store.i18n import _
from glance_store.transfer import sparse
from glance_store.transfer.interface import Extent

LOG = logging.getLogger(__name__)

# Objects to look up in one request. Without an object map, the cluster checks each of them.
_WINDOW = 256


class RBDReader:
    """An `ImageReader` of a snapshot; a format 1 image may have none.

    An image may be deleted while it is read. RBD reads deleted objects as zeros, so zeros are
    trusted only while the snapshot exists: a deletion removes it before the data. The reader gives
    the lease back. Raises NotFound if there is no such image or it is incomplete.
    """

    def __init__(self, lease: Lease, name: str, snapshot: str | None, depth: int) -> None:
        self._lease = lease
        self._name = name
        self.concurrency = depth
        try:
            self._image = self._opened(snapshot)
            self._inspect(snapshot)
        finally:
            # The open image itself holds the connection.
            lease.close()

    def _inspect(self, snapshot: str | None) -> None:
        """Find out what reading needs to know; close the image on failure."""
        try:
            with self._translated():
                native = self._image.native
                self.size = int(native.size())
                self._object_size = int(native.stat()["obj_size"])
                features = native.features()
                striped = features & bindings.FEATURE_STRIPING
                # Bytes in a row that lie in one object.
                self._piece = int(native.stripe_unit()) if striped else self._object_size
                # A missing object is a hole only if nothing else can supply its data.
                migrating = features & bindings.FEATURE_MIGRATING
                self._tells_holes = not (
                    migrating
                    or self._image.is_old
                    or self._piece != self._object_size
                    or self._image.has_parent()
                )
                self._snapshot_id = (
                    None if self._image.is_old else int(native.snap_get_id(snapshot or SNAPSHOT))
                )
                # RBD never reuses an image id.
                self.version = (
                    None if self._image.is_old else f"{self._image.id}@{self._snapshot_id}"
                )
        except BaseException:
            self.close()
            raise

    def _opened(self, snapshot: str | None) -> OpenImage:
        image = OpenImage(self._lease, self._name)
        try:
            image.select(snapshot or SNAPSHOT)
        except exceptions.NotFound:
            if snapshot is None and image.is_old:
                # Written before snapshots were used; no later release made such images.
                return image
            image.close_quietly()
            raise incomplete(self._name, snapshot or SNAPSHOT) from None
        except BaseException:
            image.close_quietly()
            raise
        return image

    def _translated(self) -> AbstractContextManager[None]:
        return errors.translated(
            _("Reading image %s") % self._name, self._lease.connection, self._name
        )

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        with self._translated(), self._image.in_use() as native:
            data: bytes = native.read(offset, length)
            if self._lacks_an_object(data, offset):
                self._check_not_deleted()
        return data

    def _lacks_an_object(self, data: bytes, offset: int) -> bool:
        """Tell whether the data covers some object with nothing but zeros."""
        start = 0
        while start < len(data):
            end = start + self._piece - (offset + start) % self._piece
            if sparse.is_zero(data, start, min(end, len(data))):
                return True
            start = end
        return False

    def _check_not_deleted(self) -> None:
        if self._snapshot_id is None:
            return
        # `rbd` sends this request too. The open image would answer from its own cache.
        header, question = f"rbd_header.{self._image.id}", struct.pack("<Q", self._snapshot_id)
        try:
            self._lease.access.execute(header, "rbd", "get_protection_status", question)
        except Exception as exc:
            if errors.number_of(exc) != errno.ENOENT:
                raise
            raise exceptions.NotFound(
                _("Image %(image)s was deleted while it was read"), image=self._name
            ) from exc

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say which parts of a range are data and which are holes, in whole objects."""
        if not self._tells_holes or length <= self._object_size:
            yield Extent(offset, length, True)
            return
        position, stop = offset, offset + length
        step = _WINDOW * self._object_size
        while position < stop:
            end = min(stop, position - position % self._object_size + step)
            yield from self._window(position, end)
            position = end

    def _window(self, position: int, end: int) -> Iterator[Extent]:
        found: list[tuple[int, int]] = []

        def note(start: int, length: int, exists: bool) -> None:
            if exists and start + length > position:
                found.append((max(start, position), min(start + length, end)))

        with self._translated(), self._image.in_use() as native:
            # Start at an object boundary: librbd before 16.2.8 is wrong elsewhere
            # (https://tracker.ceph.com/issues/54970).
            first = position - position % self._object_size
            native.diff_iterate(
                first, end - first, None, note, include_parent=False, whole_object=True
            )
            if sum(stop - start for start, stop in found) < end - position:
                # After a deletion everything would look like a hole.
                self._check_not_deleted()
        for start, stop in sorted(found):
            if start > position:
                yield Extent(position, start - position, False)
            yield Extent(start, stop - start, True)
            position = stop
        if position < end:
            yield Extent(position, end - position, False)

    def interrupt(self) -> None:
        """Do nothing: reads of a silent cluster do not end, but nobody needs to wait for them."""

    def close(self) -> None:
        """Close the image."""
        self._image.close_quietly()
        self._lease.close()
