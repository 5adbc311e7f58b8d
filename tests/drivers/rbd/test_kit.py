# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the rbd driver: a real cluster with cephx, both kinds of pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from oslo_config import cfg

from glance_store._drivers.rbd import Store
from glance_store.testing import StoreConformance
from tests.drivers.shared_reads import SharingReads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.ceph import Ceph

pytestmark = pytest.mark.services

MIB = 1024 * 1024
# A pool has these for good once it has been used; what is in them is looked at another way.
BOOKKEEPING = ("rbd_children", "rbd_directory", "rbd_info", "rbd_trash")


class TestRbd(StoreConformance):
    knows_the_living = True
    random_sequences = 5
    data_pool: ClassVar[bool] = False
    hostile_uris = ("rbd://a/b/c/%00", "rbd://%ff", "rbd://a/../c/snap", "rbd://" + "x" * 5000)

    @pytest.fixture
    def backend(self, ceph: Ceph) -> Iterator[None]:
        import rados

        self.ceph = ceph
        self.made: list[Store] = []
        with (
            rados.Rados(conffile=str(ceph.conf), rados_id=ceph.user) as cluster,
            cluster.open_ioctx(ceph.pool) as self.pool,
            cluster.open_ioctx(ceph.data_pool) as self.coded,
        ):
            yield
            # What the tests of the kit have stored: nobody else's images have such names.
            import rbd

            for name in rbd.RBD().list(self.pool):
                _remove(self.pool, name)
        for store in self.made:
            # Each has some 25 threads, and not all are garbage that the collector has found by now.
            store._cluster.end()

    def make_store(self) -> Store:
        conf = cfg.ConfigOpts()
        store = Store(conf, "ceph")
        options: dict[str, Any] = {
            "rbd_store_ceph_conf": str(self.ceph.conf),
            "rbd_store_user": self.ceph.user,
            "rbd_store_pool": self.ceph.pool,
            "rbd_store_data_pool": self.ceph.data_pool if self.data_pool else None,
            "rbd_store_chunk_size": 1,
            "rbd_store_io_depth": 4,
            "rbd_thin_provisioning": self.holes,
        }
        for name, value in options.items():
            conf.set_override(name, value, group="ceph")
        self.made.append(store)
        store.configure(re_raise_bsc=True)
        return store

    def listing(self) -> list[str]:
        """Every object of RADOS: also those that are no images; and what is in the trash."""
        import rbd

        pools = {"images": self.pool, "data": self.coded}
        objects = [
            f"{name}/{item.key}"
            for name, pool in pools.items()
            for item in pool.list_objects()
            if item.key not in BOOKKEEPING
        ]
        directory = [f"image {name}" for name in rbd.RBD().list(self.pool)]
        trash = [f"trash {entry['name']}" for entry in rbd.RBD().trash_list(self.pool)]
        return [*objects, *directory, *trash]


class TestRbdErasureCoded(TestRbd):
    """The objects with the data lie in a pool of their own; headers and locks stay."""

    variant = ("layout",)
    data_pool = True


class TestRbdWithSharedReads(SharingReads, TestRbd):
    """Downloads that share what they read."""


class TestRbdWithHoles(TestRbd):
    """Thin provisioning: objects of zeros are not written."""

    variant = ("layout",)
    holes = True

    def allocated(self, uri: str) -> int:
        import rbd

        image_id, snapshot = uri.split("/")[-2:]
        with rbd.Image(self.pool, image_id, snapshot=snapshot, read_only=True) as image:
            prefix = image.block_name_prefix() + "."
        return sum(MIB for item in self.pool.list_objects() if item.key.startswith(prefix))


def _remove(pool: Any, name: str) -> None:
    import rbd

    with rbd.Image(pool, name) as image:
        for snapshot in list(image.list_snaps()):
            if image.is_protected_snap(snapshot["name"]):
                image.unprotect_snap(snapshot["name"])
            image.remove_snap(snapshot["name"])
    rbd.RBD().remove(pool, name)
