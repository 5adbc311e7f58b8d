# SPDX-License-Identifier: Apache-2.0
"""Does the Ceph of the tests keep images, guard its pools, and survive what tests do to it?"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.ceph import Ceph

pytestmark = pytest.mark.services

MiB = 1024 * 1024


def client(ceph: Ceph, **options: str) -> Any:
    """Return a client of the driver's user; as a context manager it is connected."""
    import rados

    return rados.Rados(conffile=str(ceph.conf), rados_id=ceph.user, conf=options)


@pytest.fixture
def images(ceph: Ceph) -> Iterator[Any]:
    """The pool of images, for the driver's user."""
    with client(ceph) as cluster, cluster.open_ioctx(ceph.pool) as pool:
        yield pool


def rbd_command(ceph: Ceph, *arguments: str | Path) -> str:
    """Run Ceph's own client as the driver's user."""
    command = ["rbd", "--conf", ceph.conf, "--id", ceph.user, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("coded", [False, True], ids=["replicated", "erasure-coded"])
def test_bindings_write_and_read(ceph: Ceph, images: Any, coded: bool) -> None:
    import rbd

    content = os.urandom(6 * MiB)
    data_pool = ceph.data_pool if coded else None
    rbd.RBD().create(images, "bound", 8 * MiB, 22, old_format=False, data_pool=data_pool)
    try:
        with rbd.Image(images, "bound") as image:
            image.write(content, MiB)
        with rbd.Image(images, "bound", read_only=True) as image:
            assert image.read(0, 8 * MiB) == bytes(MiB) + content + bytes(MiB)
            home = image.data_pool_id()
        with client(ceph) as cluster:
            assert home == cluster.pool_lookup(ceph.data_pool if coded else ceph.pool)
    finally:
        rbd.RBD().remove(images, "bound")


def test_command_line_writes_and_reads(ceph: Ceph, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(5 * MiB))
    image = f"{ceph.pool}/imported"
    rbd_command(ceph, "import", "--no-progress", "--data-pool", ceph.data_pool, source, image)
    try:
        rbd_command(ceph, "export", "--no-progress", image, copy)
        assert copy.read_bytes() == source.read_bytes()
        assert "imported" in rbd_command(ceph, "ls", ceph.pool).split()
    finally:
        rbd_command(ceph, "rm", "--no-progress", image)


def test_cluster_is_the_one_that_was_made(ceph: Ceph) -> None:
    with client(ceph) as cluster:
        assert cluster.get_fsid() == ceph.fsid
    pools = {pool["pool_name"]: pool for pool in ceph.command("osd pool ls", detail="detail")}
    assert pools[ceph.data_pool]["erasure_code_profile"] == "k2m1"
    assert not pools[ceph.pool]["erasure_code_profile"]
    store = ceph.command("osd metadata", id=0)
    assert store["osd_objectstore"] == "bluestore"


def test_user_may_use_the_pools_of_images_alone(ceph: Ceph) -> None:
    import rados

    ceph.command("osd pool create", pool="forbidden", pool_type="replicated")
    try:
        with (
            client(ceph) as cluster,
            cluster.open_ioctx("forbidden") as pool,
            pytest.raises(rados.PermissionError),
        ):
            pool.write_full("mine", b"mine")
    finally:
        really = {"pool2": "forbidden", "yes_i_really_really_mean_it": True}
        ceph.command("osd pool delete", pool="forbidden", **really)


@pytest.mark.parametrize("loss", ["freeze", "kill"])
def test_osd_is_lost_and_comes_back(ceph: Ceph, loss: str) -> None:
    import rados

    try:
        with (
            client(ceph, rados_osd_op_timeout="1") as cluster,
            cluster.open_ioctx(ceph.pool) as pool,
        ):
            pool.write_full("kept", b"kept")
            getattr(ceph.osd, loss)()
            with pytest.raises(rados.TimedOut):
                pool.read("kept")
    finally:
        ceph.heal()
    with client(ceph) as cluster, cluster.open_ioctx(ceph.pool) as pool:
        assert pool.read("kept") == b"kept"
        pool.remove_object("kept")


@pytest.mark.parametrize("loss", ["freeze", "kill"])
def test_monitor_is_lost_and_comes_back(ceph: Ceph, loss: str) -> None:
    import rados

    try:
        getattr(ceph.mon, loss)()
        with pytest.raises(rados.Error, match=r"TimedOut|timed out|110"):
            client(ceph, client_mount_timeout="1").connect()
    finally:
        ceph.heal()
    with client(ceph) as cluster:
        assert ceph.pool in cluster.list_pools()


def test_clients_can_have_other_options(ceph: Ceph) -> None:
    import rados

    conf = ceph.client_conf("impatient.conf", rados_osd_op_timeout="7")
    with rados.Rados(conffile=str(conf), rados_id=ceph.user) as cluster:
        assert float(cluster.conf_get("rados_osd_op_timeout")) == 7
