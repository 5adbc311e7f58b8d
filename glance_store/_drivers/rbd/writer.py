# SPDX-License-Identifier: Apache-2.0
"""Writes one RBD image, which gets its name when it is complete."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.claim import Claim, claimed
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import SNAPSHOT, OpenImage, id_of
from glance_store._drivers.rbd.leftovers import (
    discard,
    is_half_named,
    new_name,
    remove_leftovers,
)
from glance_store._drivers.rbd.location import StoreLocation
from glance_store._drivers.rbd.trash import purge
from glance_store.i18n import _
from glance_store.transfer.source import bytes_of

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

_LAYERING = 1
# The cluster's answers to settings with which no image can be created.
_MISTAKES = (errno.EINVAL, errno.ENOENT, errno.ENOSYS, errno.EOPNOTSUPP)
_LONGEST_STEP = 8 * 1024**3
# Objects to trim at a time: one call must finish within its timeout.
_CUT_AT_ONCE = 256


class WriteSettings(NamedTuple):
    """The store's options for writing."""

    chunk_size: int  # bytes
    block_size: int  # bytes
    depth: int
    thin: bool
    data_pool: str | None

    @property
    def order(self) -> int:
        """Binary logarithm of the object size: that of a chunk, rounded down."""
        return self.chunk_size.bit_length() - 1

    @property
    def object_size(self) -> int:
        """Bytes in an object."""
        return 1 << self.order


def grown(allocated: int, step: int, end: int) -> tuple[int, int]:
    """Return the new size of an image of unknown final size, and the next step.

    Steps double, so that there are few of them.
    """
    return max(allocated + step, end), min(2 * step, _LONGEST_STEP)


def default_features(connection: Any) -> int:
    """Return the features for new images, from Ceph's configuration."""
    text = str(connection.conf_get("rbd_default_features") or "").strip()
    try:
        features = int(text or 0)
    except ValueError:
        # Feature names, as people write them in the configuration file.
        features = int(bindings.rbd().RBD().features_from_string(text))
    # Without it, no snapshot can be protected.
    return features | _LAYERING


class RBDWriter:
    """A `StoreWriter` into a new image; gives the lease back when the upload ends or fails.

    Raises Duplicate if an image of this name, or a living upload of it, exists.
    """

    metadata: dict[str, Any]

    def __init__(
        self,
        lease: Lease,
        location: StoreLocation,
        size: int,
        settings: WriteSettings,
    ) -> None:
        self._lease = lease
        self._settings = settings
        self._location = location
        self._name = str(location.image)
        self._hidden = new_name(self._name)
        self._growing = threading.Lock()
        self._not_grown: Exception | None = None
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
                self._check_free()
                self._image = self._created(size)
        except BaseException:
            lease.close()
            raise

    @property
    def uri(self) -> str:
        """The location of the image."""
        return self._location.get_uri()

    @contextlib.contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        action %= self._name
        denied = exceptions.StorageWriteDenied
        try:
            with errors.translated(action, self._lease.connection, self._name, denied):
                yield
        except exceptions.NotFound as exc:
            # Image services take NotFound for a deletion of the image during its upload.
            raise exceptions.BackendException(f"{action}: {exc.__cause__ or exc}") from exc

    def _check_free(self) -> None:
        """Fail before any data is sent if an image already has the name."""
        # Objects that every image has, in format 2 and in format 1.
        for key in (f"rbd_id.{self._name}", f"{self._name}.rbd"):
            with errors.expected(errno.ENOENT):
                self._lease.access.stat(key)
                if not is_half_named(self._lease, self._name):
                    raise self._duplicate()

    def _duplicate(self) -> exceptions.Duplicate:
        return exceptions.Duplicate(
            _(
                "Image %(image)s already exists as RBD image %(place)s/%(image)s. If that is "
                "not an image of this store (see 'rbd snap list'), rename or remove it"
            ),
            image=self._name,
            place=self._lease.pool_spec,
        )

    def _created(self, size: int) -> OpenImage:
        """Return the new image, open: from now on the upload counts as alive."""
        with claimed(self._lease, self._name) as claim:
            leftovers = remove_leftovers(self._lease, self._name, claim)
            self._create(size)
            image = self._opened(claim)
        try:
            for leftover in leftovers:
                LOG.info(
                    "Removing what an interrupted upload of RBD image %s/%s has left",
                    self._lease.pool_spec,
                    self._name,
                )
                purge(self._lease, leftover)
        except BaseException:
            # Interrupted: an image left open would count as a living upload.
            image.close_quietly()
            raise
        return image

    def _opened(self, claim: Claim) -> OpenImage:
        try:
            image = OpenImage(self._lease, self._hidden, read_only=False)
        except BaseException:
            if claim.is_held and not self._lease.connection.lost:
                with contextlib.suppress(*errors.native_errors()):
                    bindings.rbd().RBD().remove(self._lease.access, self._hidden)
            raise
        try:
            claim.check()
        except BaseException:
            image.close_quietly()
            raise
        return image

    def _create(self, size: int) -> None:
        features = default_features(self._lease.connection.native)
        try:
            bindings.rbd().RBD().create(
                self._lease.access,
                self._hidden,
                size,
                self._settings.order,
                old_format=False,
                features=features,
                data_pool=self._settings.data_pool,
            )
        except Exception as exc:
            if errors.number_of(exc) not in _MISTAKES:
                raise
            data_pool = self._settings.data_pool
            pools = f"{self._lease.pool}, {data_pool}" if data_pool else self._lease.pool
            raise exceptions.BadStoreConfiguration(
                store_name="rbd",
                reason=_(
                    "the Ceph cluster cannot create an image with features %(features)d in pool "
                    "%(pools)s (%(cause)s). Check rbd_default_data_pool, rbd_default_stripe_unit "
                    "(which must divide rbd_store_chunk_size) and "
                    "rbd_default_features in its configuration file, as some features require "
                    "others. An erasure-coded pool can only be "
                    "rbd_store_data_pool and must allow overwrites (allow_ec_overwrites), and a "
                    "pool with its own snapshots ('rados lssnap') cannot hold images"
                )
                % {"features": features, "pools": pools, "cause": exc},
            ) from exc

    def write(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset; the cluster has them when this returns."""
        # The bindings accept only bytes.
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
            if self._not_grown is not None:
                raise self._not_grown
            size, step = grown(self._allocated, self._step, end)
            try:
                self._image.native.resize(size)
            except Exception as exc:
                # Asked again after a timeout, librbd 16.2 enlarges the image but not its object
                # map; a write beyond that ends the process.
                self._not_grown = exc
                raise
            # Other threads must not rely on the new size before the image has grown.
            self._allocated, self._step = size, step

    def commit(self, size: int) -> None:
        """Trim the image, create and protect its snapshot, and give it its name."""
        native, action = self._image.native, _("Completing image %s")
        while self._allocated > size:
            self._allocated = max(size, self._allocated - _CUT_AT_ONCE * self._settings.object_size)
            self._run(action, lambda: native.resize(self._allocated))
        if self._allocated < size:
            self._run(action, lambda: native.resize(size))
        self._run(action, native.flush)
        self._run(action, lambda: native.create_snap(SNAPSHOT))
        self._run(action, lambda: native.protect_snap(SNAPSHOT))
        self._run(action, self._publish)
        try:
            moved = self._run(action, self._lease.has_moved)
        except (exceptions.TimeoutError, errors.NotAvailable):
            # The image is published, and silent monitors do not rename a pool.
            moved = False
        if moved:
            raise exceptions.BackendException(
                _("Image %(image)s was not stored: pool %(pool)s was renamed or removed meanwhile")
                % {"image": self._name, "pool": self._lease.pool}
            )
        self._image.close_quietly()
        self._lease.close()

    def _publish(self) -> None:
        try:
            bindings.rbd().RBD().rename(self._lease.access, self._hidden, self._name)
        except Exception as exc:
            number = errors.number_of(exc)
            if number is None or number in errors.LOST:
                raise
            # The answer to a repeated request says nothing about the first one.
            is_ours = id_of(self._lease, self._name) == self._image.id
            if is_ours and not is_half_named(self._lease, self._name):
                return
            if number == errno.EEXIST:
                raise self._duplicate() from exc
            raise

    def _run(self, action: str, call: Callable[[], _T]) -> _T:
        def use() -> _T:
            # A late call may outlast the upload.
            with self._image.in_use():
                return call()

        try:
            with self._translated(action):
                return errors.bounded(self._calls, use, action % self._name, self._lease.connection)
        except (exceptions.TimeoutError, errors.NotAvailable):
            self._lost = True
            raise

    def abort(self) -> None:
        """Remove the image, or leave it to the next upload if the cluster is out of reach."""
        try:
            if not self._lost:
                with self._translated(_("Removing what is left of image %s")):
                    discard(self._lease, self._image, self._hidden, self._name)
        except (exceptions.TimeoutError, errors.NotAvailable):
            self._lost = True
            raise
        finally:
            if self._lost:
                LOG.warning(
                    "The Ceph cluster is out of reach: a failed upload leaves RBD image %s/%s. "
                    "The next upload of image %s removes it, or run: rbd remove %s/%s",
                    self._lease.pool_spec,
                    self._hidden,
                    self._name,
                    self._lease.pool_spec,
                    self._hidden,
                )
            self._image.close_quietly()
            self._lease.close()
