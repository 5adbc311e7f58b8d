# SPDX-License-Identifier: Apache-2.0
"""The Ceph RBD store."""

from __future__ import annotations

import contextlib
import errno
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from oslo_config import cfg

from glance_store import capabilities, driver, exceptions
from glance_store._drivers.rbd import bindings, errors, holdings
from glance_store._drivers.rbd.claim import claimed
from glance_store._drivers.rbd.cluster import Cluster, UnknownPool
from glance_store._drivers.rbd.connection import Connection, Lease, Settings
from glance_store._drivers.rbd.deletion import remove_image
from glance_store._drivers.rbd.image import SNAPSHOT, is_possible_name
from glance_store._drivers.rbd.location import StoreLocation
from glance_store._drivers.rbd.options import OPTIONS
from glance_store._drivers.rbd.reader import RBDReader
from glance_store._drivers.rbd.writer import RBDWriter, WriteSettings
from glance_store.i18n import _
from glance_store.inventory import Capacity, Leftover, StoredImage
from glance_store.location import Location
from glance_store.transfer.threads import Calls

__all__ = ["Store", "StoreLocation"]

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

_MIB = 1024 * 1024
# Largest read or write. Larger ones are no faster, and take several times their size in Ceph's
# libraries.
_LARGEST_BLOCK = 4 * _MIB
_LARGEST_CHUNK = 32  # MiB, the largest object RBD allows
# Seconds that the start of a service waits for a cluster.
_START_TIMEOUT = 5.0


class Store(driver.Store):
    """Stores images as RBD images in a Ceph pool, each with a protected snapshot."""

    OPTIONS: list[cfg.Opt] | None = OPTIONS
    _CAPABILITIES: int = (
        capabilities.BitMasks.READ_RANDOM
        | capabilities.BitMasks.WRITE_ACCESS
        | capabilities.BitMasks.DRIVER_REUSABLE
    )
    EXAMPLE_URL = "rbd://<FSID>/<POOL>/<IMAGE>/<SNAPSHOT>"

    chunk_size: int = 8 * _MIB
    pool: str = "images"
    namespace: str = ""
    data_pool: str | None = None
    thin_provisioning: bool = False
    io_depth: int = 8

    def __init__(self, conf: cfg.ConfigOpts, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self._fsid: str | None = None
        self._fsid_told_by: Connection | None = None
        self._other_clusters: set[str] = set()  # named by locations; logged once
        self._cluster = Cluster(self._settings, self._unreachable)

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return ("rbd",)

    # -- configuration

    def configure_add(self) -> None:
        """Apply the options and, in multi-store mode, ask the cluster for its id.

        If the cluster cannot be reached, it is asked again on first use.

        :raises BadStoreConfiguration: Ceph's bindings are missing, or an option is wrong
        """
        options = self.store_conf
        self.pool = str(options.rbd_store_pool)
        self.namespace = options.rbd_store_namespace or ""
        self.data_pool = options.rbd_store_data_pool or None
        self.thin_provisioning = options.rbd_thin_provisioning
        self.io_depth = options.rbd_store_io_depth
        self.chunk_size = options.rbd_store_chunk_size * _MIB
        self.READ_CHUNKSIZE = self.chunk_size
        self.WRITE_CHUNKSIZE = self.chunk_size
        self._check_bindings()
        if options.rbd_store_chunk_size > _LARGEST_CHUNK:
            raise self._misconfigured(
                f"rbd_store_chunk_size is {options.rbd_store_chunk_size}, but RBD allows "
                f"objects of {_LARGEST_CHUNK} MiB at most: use a power of two up to "
                f"{_LARGEST_CHUNK}"
            )
        for option, name in (
            ("rbd_store_pool", self.pool),
            ("rbd_store_namespace", self.namespace),
            ("rbd_store_data_pool", self.data_pool or ""),
        ):
            if "/" in name:
                raise self._misconfigured(
                    f"{option} is {name!r}: a pool name has no slash; set a namespace with "
                    "rbd_store_namespace"
                )
        if self.backend_group is not None:
            self._url_prefix = "rbd://"
            calls = Calls(_START_TIMEOUT, 1, "glance_store-rbd-start")
            try:
                calls.call(self._connect_early)
            except errors.ClusterUnreachable as exc:
                LOG.warning("%s. The store tries again when it is used", exc.msg)
            except exceptions.TimeoutError:
                LOG.warning(
                    "Store %s: the Ceph cluster cannot be used: it has not answered within %g "
                    "seconds. The store tries again when it is used",
                    self.name,
                    _START_TIMEOUT,
                )

    def _connect_early(self) -> None:
        with self.get_connection() as connection:
            self._learn_fsid(connection)

    def _check_bindings(self) -> None:
        missing = [
            f"python3-{name}"
            for name, module in (("rados", bindings.rados()), ("rbd", bindings.rbd()))
            if module is None
        ]
        if missing:
            raise self._misconfigured(
                f"Ceph's Python bindings are missing: install {' and '.join(missing)} for the "
                "Python that runs this service, from your distribution or from Ceph; no Python "
                "package index has them"
            )

    def _misconfigured(self, reason: str) -> exceptions.BadStoreConfiguration:
        return exceptions.BadStoreConfiguration(store_name=self.name, reason=reason)

    def _learn_fsid(self, connection: Any) -> None:
        try:
            fsid = connection.get_fsid()
        except Exception as exc:
            if not errors.is_native(exc):
                raise
            LOG.warning(
                "Store %s: cannot get the id of the Ceph cluster (%s); new locations will not "
                "name the cluster",
                self.name,
                exc,
            )
            return
        # Older bindings return it as bytes.
        self._fsid = fsid.decode() if isinstance(fsid, bytes) else str(fsid)
        if self.backend_group is not None:
            self._url_prefix = f"rbd://{self._fsid}/{self._pool_spec}/"

    @property
    def _pool_spec(self) -> str:
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool

    def storage_ids(self) -> set[str]:
        """Return the pools, by cluster."""
        # Stores that share a pool often differ only in their data pool.
        data = f" (data in pool {self.data_pool})" if self.data_pool else ""
        # Also by file: a cluster that is out of reach has not told its id.
        file = self._settings().conf_file or "ceph.conf"
        clusters = [f"of {file}"] + ([self._fsid] if self._fsid else [])
        return {f"pool {self._pool_spec} of Ceph cluster {cluster}{data}" for cluster in clusters}

    def check_health(self) -> str:
        """Check that the cluster and the pools can be used.

        :returns: their names
        :raises BackendException: the cluster cannot be reached
        :raises NotFound: a pool does not exist
        :raises StorageFull: the pool is full
        """
        self._check_bindings()
        with self._lease() as lease:
            self._check_pools(lease)
            action = _("Checking pool %s") % self._pool_spec
            with (
                errors.translated(action, lease.connection, self.pool),
                # The list of images: absent in an empty pool, otherwise it must be readable.
                errors.expected(errno.ENOENT),
            ):
                lease.access.stat("rbd_directory")
            with (
                errors.translated(action, lease.connection, self.pool),
                # Who may only read can serve images all the same.
                errors.expected(errno.EACCES, errno.EPERM),
                claimed(lease, f"health.{uuid.uuid4()}"),
            ):
                pass
        data = f", data in pool {self.data_pool}" if self.data_pool else ""
        return f"ok, pool {self._pool_spec} of Ceph cluster {self._fsid}{data}"

    def images(self) -> Iterator[StoredImage]:
        """Yield all images of the pool; those without an image's snapshot are foreign."""
        with self._lease(latest=True) as lease:
            yield from holdings.images(lease, lambda name: self._location_of(name).get_uri())

    def leftovers(self, older_than: float) -> Iterator[Leftover]:
        """Yield unfinished uploads that no client has open.

        :param older_than: minimum age in seconds
        """
        with self._lease(latest=True) as lease:
            yield from holdings.leftovers(lease, older_than)

    def capacity(self) -> Capacity | None:
        """Return the cluster's space, before replication; None if it does not tell."""
        with self._lease() as lease:
            return holdings.capacity(lease)

    # -- connection

    def _settings(self) -> Settings:
        options = self.store_conf
        return Settings(
            options.rbd_store_ceph_conf or "",
            options.rbd_store_user or None,
            options.rados_connect_timeout,
        )

    def _unreachable(self, reason: str, number: int | None) -> Exception:
        return errors.unusable(number)(f"Store {self.name}: {reason}")

    @contextlib.contextmanager
    def get_connection(
        self, conffile: str | None = None, rados_id: str | None = None
    ) -> Iterator[Any]:
        """Yield the bindings' connection to the cluster, which all operations of the store share.

        :param conffile: ignored: the store's options decide
        :param rados_id: ignored: the store's options decide
        :raises ClusterRefused: the cluster refuses these options
        :raises ClusterUnreachable: the cluster cannot be reached
        """
        connection: Connection = self._cluster.borrow()
        try:
            yield connection.native
        finally:
            connection.give_back()

    def _lease(self, target: StoreLocation | None = None, latest: bool = False) -> Lease:
        """Return a lease on a location's pool, or on the pool for new images."""
        if bindings.rados() is None or bindings.rbd() is None:
            self._check_bindings()
        if target is None or target.pool is None:
            lease = self._cluster.lease(self.pool, self.namespace, latest)
        else:
            lease = self._cluster.lease(target.pool, target.namespace or "", latest)
        if self._fsid_told_by is not lease.connection:
            # Each connection is asked: it may lead to another cluster than the one before.
            self._fsid_told_by = lease.connection
            self._learn_fsid(lease.connection.native)
        return lease

    def _retry_once(self, use: Callable[[], _T]) -> _T:
        """Run an operation, and run it again if its connection turned out to be dead."""
        try:
            return use()
        except errors.NotAvailable as exc:
            LOG.warning("Store %s: %s; reconnecting", self.name, exc)
        return use()

    def _check_pools(self, lease: Lease) -> None:
        """Check that the namespace and the data pool for new images exist."""
        with errors.translated(_("Looking for the data pool"), lease.connection, self.pool):
            known = not self.data_pool or lease.connection.native.pool_exists(self.data_pool)
            if self.namespace and not self._has_namespace(lease):
                raise self._misconfigured(
                    f"pool {self.pool} has no namespace {self.namespace}: create it with 'rbd "
                    f"namespace create {self._pool_spec}', or correct rbd_store_namespace"
                )
        if not known:
            raise self._misconfigured(
                f"the Ceph cluster has no pool {self.data_pool}: create it, or correct "
                "rbd_store_data_pool"
            )

    def _has_namespace(self, lease: Lease) -> bool:
        with self._cluster.lease(lease.pool) as whole:
            known = True
            # A user with rights in the namespace only may not ask.
            with errors.expected(errno.EACCES, errno.EPERM):
                known = bool(bindings.rbd().RBD().namespace_exists(whole.access, self.namespace))
        return known

    # -- images

    @property
    def read_size(self) -> int:
        """Bytes in each chunk that `get` returns."""
        return min(self.READ_CHUNKSIZE, _LARGEST_BLOCK)

    def open_writer(self, image_id: str, size: int, context: Any = None) -> RBDWriter:
        """Begin to store an image.

        :param image_id: the image's id, used as the name of the RBD image
        :param size: bytes, 0 if unknown
        :param context: not used
        :raises Duplicate: an RBD image of this name exists or is being uploaded
        :raises Invalid: no RBD image can have this name
        :raises StorageFull: the pool is full
        :raises BadStoreConfiguration: a pool does not exist
        """
        name = str(image_id)
        if not is_possible_name(name):
            raise exceptions.Invalid(
                _("The image id %(image)r cannot be the name of an RBD image"), image=name[:100]
            )
        return self._retry_once(lambda: self._writer(name, size))

    def _writer(self, name: str, size: int) -> RBDWriter:
        try:
            lease = self._lease(latest=True)
        except UnknownPool as exc:
            raise self._misconfigured(str(exc.msg)) from exc
        try:
            self._check_pools(lease)
            target = self._location_of(name)
        except BaseException:
            lease.close()
            raise
        settings = WriteSettings(
            chunk_size=self.WRITE_CHUNKSIZE,
            block_size=min(self.WRITE_CHUNKSIZE, _LARGEST_BLOCK),
            depth=self.io_depth,
            thin=self.thin_provisioning,
            data_pool=self.data_pool,
        )
        return RBDWriter(lease, target, size, settings)

    def _location_of(self, name: str) -> StoreLocation:
        specs = {
            "fsid": self._fsid,
            "pool": self.pool,
            "namespace": self.namespace,
            "image": name,
            "snapshot": SNAPSHOT,
        }
        return StoreLocation(specs, self.conf, backend_group=self.backend_group)

    def open_reader(self, location: Location, context: Any = None) -> RBDReader:
        """Open an image.

        :param location: the image's location
        :param context: not used
        :raises NotFound: there is no such image, or it is incomplete
        :raises Forbidden: the Ceph user may not read it
        :raises TimeoutError: the cluster does not answer
        """
        target = self._target(location)

        def read(latest: bool) -> RBDReader:
            lease = self._lease(target, latest)
            return RBDReader(lease, str(target.image), target.snapshot, self.io_depth)

        def opened() -> RBDReader:
            try:
                return read(latest=False)
            except exceptions.NotFound:
                # Its pool may have been recreated since the last operation.
                return read(latest=True)

        return self._retry_once(opened)

    @capabilities.check
    def delete(self, location: Location, context: Any = None) -> None:
        """Remove an image; data that others still need moves to the pool's trash.

        :param location: the image's location
        :param context: not used
        :raises NotFound: there is no such image
        :raises InUseByStore: it has clones or is open elsewhere; nothing is destroyed
        :raises Forbidden: the Ceph user may not remove it
        :raises TimeoutError: the cluster does not answer
        """
        target = self._target(location)

        def remove() -> None:
            with self._lease(target, latest=True) as lease:
                remove_image(lease, str(target.image), target.snapshot)

        self._retry_once(remove)

    def _target(self, location: Location) -> StoreLocation:
        """Return the store location, checked; warn once about each other cluster named."""
        target = _checked(location)
        cluster = target.fsid
        if cluster and self._fsid and cluster != self._fsid and cluster not in self._other_clusters:
            self._other_clusters.add(cluster)
            LOG.warning(
                "Store %s: some locations name the Ceph cluster %s, but the store uses cluster "
                "%s and looks for their images there. If it should use the other cluster, "
                "correct rbd_store_ceph_conf",
                self.name,
                cluster,
                self._fsid,
            )
        return target


def _checked(location: Location) -> StoreLocation:
    target = cast("StoreLocation", location.store_location)
    for text in (target.pool, target.namespace, target.image, target.snapshot):
        if text is not None and not is_possible_name(text):
            raise exceptions.BadStoreUri(
                _("The Store URI was malformed: %(uri)s: not a valid RBD image name"),
                uri=f"rbd://...{text[:50]!r}",
            )
    return target
