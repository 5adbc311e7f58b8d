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

# Objects whose presence is asked for at once. Where the image has no object map the cluster looks
# at each of them.
_WINDOW = 256


class RBDReader:
    """An `ImageReader` of a snapshot; of an image of format 1 also without one.

    An image may be deleted while it is read. RBD reads objects that are gone as zeros, and so zeros
    are believed only while the snapshot is there: a deletion removes it before the data.

    :param lease: the pool; given back
    :param name: of the image
    :param snapshot: the one to read; None for locations that name none
    :param depth: how many reads are worth having in flight
    :raises NotFound: there is no such image, or it is incomplete
    """

    def __init__(self, lease: Lease, name: str, snapshot: str | None, depth: int) -> None:
        self._lease = lease
        self._name = name
        self.concurrency = depth
        try:
            self._image = self._opened(snapshot)
            self._look(snapshot)
        finally:
            # An image that is open holds the connection itself.
            lease.close()

    def _look(self, snapshot: str | None) -> None:
        """Find out what reading needs to know; the image is closed when that fails."""
        try:
            with self._translated():
                native = self._image.native
                self.size = int(native.size())
                self._object_size = int(native.stat()["obj_size"])
                features = native.features()
                striped = features & bindings.FEATURE_STRIPING
                # What lies in one object, one after the other.
                self._piece = int(native.stripe_unit()) if striped else self._object_size
                # An object that is missing is no hole where the data of others shine through.
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
                # RBD gives no image the id of another one.
                self.version = (
                    None if self._image.is_old else f"{self._image.id}@{self._snapshot_id}"
                )
        except BaseException:
            self.close()
            raise

    def _opened(self, snapshot: str | None) -> OpenImage:
        try:
            return OpenImage(self._lease, self._name, snapshot or SNAPSHOT)
        except exceptions.NotFound:
            # Without the image there is no difference; without the snapshot it is incomplete.
            image = OpenImage(self._lease, self._name)
            if snapshot is None and image.is_old:
                # Written before there were snapshots; no release since has made such images.
                return image
            image.close_quietly()
            raise incomplete(self._name, snapshot or SNAPSHOT) from None

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
        """Tell whether all that was read of some object are zeros."""
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
        # What `rbd` asks the cluster for, too; through the image, its own memory would answer.
        header, question = f"rbd_header.{self._image.id}", struct.pack("<Q", self._snapshot_id)
        try:
            self._lease.access.execute(header, "rbd", "get_protection_status", question)
        except Exception as exc:
            if errors.number_of(exc) != errno.ENOENT:
                raise
            raise exceptions.NotFound(
                _("Image %(image)s has been deleted while it was read"), image=self._name
            ) from exc

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say which parts of a range are data and which are holes, by whole objects."""
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
            # From the beginning of an object: librbd before 16.2.8 is wrong about others
            # (https://tracker.ceph.com/issues/54970).
            first = position - position % self._object_size
            native.diff_iterate(
                first, end - first, None, note, include_parent=False, whole_object=True
            )
            if sum(stop - start for start, stop in found) < end - position:
                # Not after a deletion: then all would be holes.
                self._check_not_deleted()
        for start, stop in sorted(found):
            if start > position:
                yield Extent(position, start - position, False)
            yield Extent(start, stop - start, True)
            position = stop
        if position < end:
            yield Extent(position, end - position, False)

    def close(self) -> None:
        """Close the image."""
        self._image.close_quietly()
        self._lease.close()
