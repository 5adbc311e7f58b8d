# SPDX-License-Identifier: Apache-2.0
"""Writes one RBD image, which is complete when it has a protected snapshot."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.claim import Claim, claimed
from glance_store._drivers.rbd.connection import Cluster, Lease
from glance_store._drivers.rbd.image import SNAPSHOT, OpenImage
from glance_store._drivers.rbd.leftovers import LateRemoval, discard, remove_leftover
from glance_store._drivers.rbd.location import StoreLocation
from glance_store._drivers.rbd.trash import purge
from glance_store.i18n import _
from glance_store.transfer.source import bytes_of

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

_LAYERING = 1
_LONGEST_STEP = 8 * 1024**3


class WriteSettings(NamedTuple):
    """What the options of the store say about writing."""

    chunk_size: int  # bytes
    block_size: int  # bytes
    depth: int
    thin: bool
    data_pool: str | None

    @property
    def order(self) -> int:
        """Binary logarithm of the bytes of an object: those of a chunk, rounded down."""
        return self.chunk_size.bit_length() - 1


def grown(allocated: int, step: int, end: int) -> tuple[int, int]:
    """Return how an image of unknown size grows: by steps that double, so that there are few.

    :param allocated: bytes of the image so far
    :param step: bytes to add
    :param end: bytes that have to fit
    :returns: bytes of the image, and of the next step
    """
    return max(allocated + step, end), min(2 * step, _LONGEST_STEP)


def default_features(connection: Any) -> int:
    """Return the features that new images get, as the configuration of Ceph says.

    :param connection: the bindings' connection
    """
    text = str(connection.conf_get("rbd_default_features") or "").strip()
    try:
        features = int(text or 0)
    except ValueError:
        # Their names, as people write them into the configuration file.
        features = int(bindings.rbd().RBD().features_from_string(text))
    return features or _LAYERING


class RBDWriter:
    """A `StoreWriter` into a new image.

    :param cluster: for what has to be removed later
    :param lease: the pool; given back when the upload has ended, also when this fails
    :param place: where the image will be
    :param size: bytes, 0 when unknown
    :param settings: how to write
    :raises Duplicate: there is an image of this name, or an upload of it that is alive
    :raises StorageFull: the pool is full
    """

    metadata: dict[str, Any]

    def __init__(
        self,
        cluster: Cluster,
        lease: Lease,
        place: StoreLocation,
        size: int,
        settings: WriteSettings,
    ) -> None:
        self._cluster = cluster
        self._lease = lease
        self._settings = settings
        self._place = place
        self._name = str(place.image)
        self._growing = threading.Lock()
        self._allocated = size
        self._step = 2 * settings.chunk_size
        self._lost = False
        self._calls = errors.bounded_calls(lease.connection, settings.depth)
        self.metadata = {}
        self.block_size = settings.block_size
        self.concurrency = settings.depth
        self.holes = settings.thin
        try:
            with self._translated(_("Creating image %s")):
                self._image = self._created(size)
        except BaseException:
            lease.close()
            raise

    @property
    def uri(self) -> str:
        """The location of the image."""
        return self._place.get_uri()

    def _translated(self, action: str) -> AbstractContextManager[None]:
        return errors.translated(
            action % self._name,
            self._lease.connection,
            self._name,
            exceptions.StorageWriteDenied,
        )

    def _created(self, size: int) -> OpenImage:
        """Return the new image, opened: with that the upload counts as alive."""
        leftover = None
        with claimed(self._lease, self._name) as claim:
            try:
                self._create(size)
            except Exception as exc:
                if errors.number_of(exc) != errno.EEXIST:
                    raise
                leftover = remove_leftover(self._lease, self._name, claim)
                # Who has been quicker now does not keep to claims: an older release.
                self._create(size)
            image = self._opened(claim)
        if leftover is not None:
            LOG.info(
                "RBD image %s/%s was the leftover of an upload that was broken off, and is "
                "replaced",
                self._lease.pool,
                self._name,
            )
            try:
                purge(self._lease, leftover)
            except BaseException:
                # Interrupted: an image that stays open would count as a living upload.
                image.close_quietly()
                raise
        return image

    def _opened(self, claim: Claim) -> OpenImage:
        try:
            image = OpenImage(self._lease, self._name, read_only=False)
        except BaseException:
            if claim.is_held and not self._lease.connection.retired:
                with contextlib.suppress(*errors.native_errors()):
                    bindings.rbd().RBD().remove(self._lease.access, self._name)
            raise
        try:
            claim.check()
        except BaseException:
            image.close_quietly()
            raise
        return image

    def _create(self, size: int) -> None:
        bindings.rbd().RBD().create(
            self._lease.access,
            self._name,
            size,
            self._settings.order,
            old_format=False,
            features=default_features(self._lease.connection.native),
            data_pool=self._settings.data_pool,
        )

    def write(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset; they are in the cluster when this returns."""
        # The bindings take bytes alone.
        data = bytes_of(block)
        written = self._run(_("Writing image %s"), lambda: self._write(offset, data))
        if written != len(data):
            raise exceptions.Invalid(
                _("Writing image %(image)s: the cluster took %(written)d of %(length)d bytes"),
                image=self._name,
                written=written,
                length=len(data),
            )

    def _write(self, offset: int, data: bytes) -> int:
        self._make_room(offset + len(data))
        return int(self._image.native.write(data, offset))

    def _make_room(self, end: int) -> None:
        if end <= self._allocated:
            return
        with self._growing:
            if end <= self._allocated:
                return
            size, step = grown(self._allocated, self._step, end)
            self._image.native.resize(size)
            # Not before the image has grown may another thread rely on it.
            self._allocated, self._step = size, step

    def commit(self, size: int) -> None:
        """Cut the image to its size, and make the snapshot whose protection completes it."""
        self._run(_("Completing image %s"), lambda: self._complete(size))
        self._image.close_quietly()
        self._lease.close()

    def _complete(self, size: int) -> None:
        native = self._image.native
        if size != self._allocated:
            native.resize(size)
        native.flush()
        native.create_snap(SNAPSHOT)
        native.protect_snap(SNAPSHOT)

    def _run(self, action: str, call: Callable[[], _T]) -> _T:
        try:
            with self._translated(action):
                return errors.bounded(
                    self._calls, call, action % self._name, self._lease.connection
                )
        except (exceptions.TimeoutError, errors.NotAvailable):
            self._lost = True
            raise

    def abort(self) -> None:
        """Remove the image; with the cluster out of reach, as soon as it is back."""
        if self._lost:
            LateRemoval(self._cluster, self._lease, self._image).start()
            LOG.warning(
                "The Ceph cluster is out of reach: what the failed upload has left, RBD image "
                "%s/%s, is removed when it is back. Should this process end before that, a new "
                "upload of the image replaces it",
                self._lease.pool,
                self._name,
            )
            return
        try:
            with self._translated(_("Removing what is left of image %s")):
                discard(self._lease, self._image)
        except (exceptions.TimeoutError, errors.NotAvailable):
            LateRemoval(self._cluster, self._lease, self._image).start()
            raise
        except BaseException:
            self._image.close_quietly()
            self._lease.close()
            raise
        self._lease.close()
