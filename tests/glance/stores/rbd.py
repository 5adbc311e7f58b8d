# SPDX-License-Identifier: Apache-2.0
"""Stores of images of Ceph, looked at through librbd."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from glance_store._drivers.rbd.leftovers import UPLOAD_PREFIX

from ..images import MIB
from .base import StoreUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.services.ceph import Ceph

SNAPSHOT = "snap"


class CephPool:
    """A pool of a cluster, with a connection that lasts until it is closed.

    :param conf: configuration file of the cluster
    :param user: of the cluster, without `client.`
    :param name: of the pool
    """

    def __init__(self, conf: Path, user: str, name: str) -> None:
        import rados
        import rbd

        self.name = name
        self.user = user
        self.rbd: Any = rbd
        self._cluster: Any = rados.Rados(conffile=str(conf), rados_id=user)
        self._cluster.connect()
        self.access: Any = self._cluster.open_ioctx(name)

    def close(self) -> None:
        """End the connection."""
        self.access.close()
        self._cluster.shutdown()

    def names(self) -> list[str]:
        """Return the names of all images."""
        found: list[str] = self.rbd.RBD().list(self.access)
        return found

    @contextlib.contextmanager
    def image(self, name: str, snapshot: str | None = None) -> Iterator[Any]:
        """Open an image, for reading alone if it is a snapshot's."""
        with self.rbd.Image(self.access, name, snapshot, read_only=snapshot is not None) as image:
            yield image

    def read(self, name: str, size: int | None = None, snapshot: str | None = None) -> bytes:
        """Return the first bytes of an image, or all of them."""
        with self.image(name, snapshot) as image:
            content: bytes = image.read(0, image.size() if size is None else size)
        return content


class RbdStore(StoreUnderTest):
    """A store of images of Ceph.

    :param ceph: the cluster
    :param pool: for headers, and for data unless that goes elsewhere
    :param coded: whether data goes to the erasure-coded pool
    """

    driver = "rbd"

    def __init__(self, name: str, ceph: Ceph, pool: CephPool, *, coded: bool = False) -> None:
        options = {
            "rbd_store_ceph_conf": str(ceph.conf),
            "rbd_store_user": pool.user,
            "rbd_store_pool": pool.name,
        }
        if coded:
            options["rbd_store_data_pool"] = ceph.data_pool
            options["rbd_store_chunk_size"] = "1"
            options["rbd_thin_provisioning"] = "true"
        super().__init__(name, options)
        self.thin = coded
        self._fsid = ceph.fsid
        self._pool = pool

    @property
    def properties(self) -> dict[str, object]:
        return {
            "chunk_size": (1 if self.thin else 8) * MIB,
            "pool": self._pool.name,
            "thin_provisioning": self.thin,
            "fsid": self._fsid,
        }

    def location(self, image_id: str) -> str:
        return f"rbd://{self._fsid}/{self._pool.name}/{image_id}/{SNAPSHOT}"

    def old_location(self, image_id: str) -> str:
        return f"rbd://{image_id}"

    def has(self, image_id: str) -> bool:
        if image_id not in self._pool.names():
            return False
        # Without its protected snapshot nobody can clone it.
        with self._pool.image(image_id) as image:
            found = {snapshot["name"] for snapshot in image.list_snaps()}
            return SNAPSHOT in found and bool(image.is_protected_snap(SNAPSHOT))

    def read(self, image_id: str) -> bytes:
        return self._pool.read(image_id, snapshot=SNAPSHOT)

    def remove(self, image_id: str) -> None:
        with self._pool.image(image_id) as image:
            image.unprotect_snap(SNAPSHOT)
            image.remove_snap(SNAPSHOT)
        self._pool.rbd.RBD().remove(self._pool.access, image_id)

    def everything(self) -> list[str]:
        trash = [
            f"trash: {it['name']}" for it in self._pool.rbd.RBD().trash_list(self._pool.access)
        ]
        return sorted(self._pool.names() + trash)

    def is_writing(self, image_id: str) -> bool:
        # Not before it is complete does an image have its name.
        beginning = f"{UPLOAD_PREFIX}{image_id}."
        return any(name.startswith(beginning) for name in self._pool.names())

    def put_in_the_way(self, image_id: str) -> Callable[[], bool]:
        content = b"not Glance's" * 1000
        self._pool.rbd.RBD().create(self._pool.access, image_id, len(content))
        with self._pool.image(image_id) as image:
            image.write(content, 0)
            image.create_snap(SNAPSHOT)
            image.protect_snap(SNAPSHOT)

        def untouched() -> bool:
            found = self.has(image_id) and self.read(image_id)
            self.remove(image_id)
            return found == content

        return untouched

    def used_bytes(self, image_id: str) -> int:
        used = []

        def count(_offset: int, length: int, exists: bool) -> None:
            used.append(length * exists)

        with self._pool.image(image_id, SNAPSHOT) as image:
            image.diff_iterate(0, image.size(), None, count, whole_object=True)
        return sum(used)
