# SPDX-License-Identifier: Apache-2.0
"""How images are laid out in the cluster, found and removed there."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from tests.drivers.rbd.conftest import (
    FEATURES,
    LAYERING,
    MIB,
    Bed,
    add,
    delete,
    locate,
    new_id,
    read,
    size_of,
)
from tests.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.services

DATA = os.urandom(2 * MIB + 777)
STRIPING = 2  # RBD_FEATURE_STRIPINGV2


# -- layout


def test_layout(bed: Bed) -> None:
    """r131, r138, r154: an image of format 2, with objects of a chunk, protected as `snap`."""
    store = bed.store(rbd_store_chunk_size=4)
    image_id = new_id()
    uri = add(store, DATA, image_id)
    assert uri == f"rbd://{bed.ceph.fsid}/{bed.ceph.pool}/{image_id}/snap"
    assert store.url_prefix == f"rbd://{bed.ceph.fsid}/{bed.ceph.pool}/"
    with bed.image(image_id, "snap") as image:
        assert image.stat()["obj_size"] == 4 * MIB
        assert image.size() == len(DATA)
        assert image.is_protected_snap("snap")
        assert not image.old_format()
        assert image.read(0, len(DATA)) == DATA


def test_r151_chunk_size_that_is_no_power_of_two(bed: Bed) -> None:
    store = bed.store(rbd_store_chunk_size=7)
    uri = add(store, DATA)
    with bed.image(uri.split("/")[-2]) as image:
        assert image.stat()["obj_size"] == 4 * MIB
    assert read(store, uri) == DATA


def test_chunk_size_beyond_what_rbd_allows(bed: Bed) -> None:
    with pytest.raises(exceptions.BadStoreConfiguration, match="32 MiB at most"):
        bed.store(rbd_store_chunk_size=64)


@pytest.mark.parametrize(
    ("configured", "expected"),
    [("61", 61), ("1", 1), ("0", LAYERING), ("layering,exclusive-lock", 5)],
)
def test_r134_r135_features(bed: Bed, configured: str, expected: int) -> None:
    conf = bed.ceph.client_conf("features.conf", rbd_default_features=configured)
    uri = add(bed.store(rbd_store_ceph_conf=str(conf)), DATA)
    with bed.image(uri.split("/")[-2]) as image:
        assert image.features() == expected
    assert read(bed.store(), uri) == DATA


def test_data_pool(bed: Bed, tmp_path: Path) -> None:
    """An image with its data in the erasure-coded pool can be read by Ceph's own client."""
    store = bed.store(rbd_store_data_pool=bed.ceph.data_pool)
    image_id = new_id()
    uri = add(store, DATA, image_id)
    with bed.image(image_id) as image:
        assert image.data_pool_id() == bed.cluster.pool_lookup(bed.ceph.data_pool)
    bed.command("export", "--no-progress", f"images/{image_id}@snap", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    # Who reads and deletes needs no option.
    assert read(bed.store(), uri) == DATA
    delete(bed.store(), uri)
    assert bed.names() == []


def test_data_pool_that_is_not_there(bed: Bed) -> None:
    store = bed.store(rbd_store_data_pool="nowhere")
    with pytest.raises(exceptions.BadStoreConfiguration, match="no pool nowhere"):
        add(store, DATA)
    with pytest.raises(exceptions.BadStoreConfiguration, match="no pool nowhere"):
        store.check_health()


def test_pool_that_is_not_there(bed: Bed) -> None:
    store = bed.store(rbd_store_pool="nowhere")
    with pytest.raises(exceptions.BadStoreConfiguration, match="no pool nowhere"):
        add(store, DATA)
    with pytest.raises(exceptions.NotFound, match="no pool nowhere"):
        read(store, "rbd://fsid/nowhere/image/snap")


def test_two_stores_of_one_pool_are_noticed(bed: Bed) -> None:
    plain, same = bed.store(), bed.store("other")
    coded = bed.store(rbd_store_data_pool=bed.ceph.data_pool)
    assert plain.storage_ids() == same.storage_ids() != coded.storage_ids()
    assert bed.ceph.pool in plain.check_health()


# -- growth


@pytest.mark.parametrize("thin", [False, True])
def test_r140_r141_r150_images_of_unknown_size(bed: Bed, thin: bool) -> None:
    """Two at a time, with a length that fits nothing; no upload knows the steps of another."""
    store = bed.store(rbd_thin_provisioning=thin)
    big = os.urandom(9 * MIB + 12345)
    for data in (big, DATA, b"", bytes(5 * MIB + 1), big[:1] + bytes(3 * MIB)):
        uri = add(store, data, size=0)
        assert read(store, uri) == data
        with bed.image(uri.split("/")[-2]) as image:
            assert image.size() == len(data)


# -- reading


def test_r132_pool_of_the_location(bed: Bed) -> None:
    image_id = new_id()
    uri = add(bed.store(), DATA, image_id)
    elsewhere = bed.store(rbd_store_pool=bed.ceph.data_pool)
    assert read(elsewhere, uri) == DATA
    assert size_of(elsewhere, uri) == len(DATA)
    delete(elsewhere, uri)
    assert bed.names() == []


def test_r145_r146_reading_leaves_no_trace(bed: Bed) -> None:
    """A user who may only read can read, also a range (r157)."""
    data = DATA + bytes(2 * MIB)
    uri = add(bed.store(), data)
    pools = f"profile rbd-read-only pool={bed.ceph.pool}"
    bed.ceph.command(
        "auth get-or-create", entity="client.reader", caps=["mon", "profile rbd", "osd", pools]
    )
    key = bed.ceph.command("auth get-key", entity="client.reader")["key"]
    keyring = bed.ceph.keyring_of("reader")
    keyring.write_text(f"[client.reader]\n\tkey = {key}\n")
    store = bed.store(rbd_store_user="reader")
    chunks, size = store.get(locate(store, uri))
    with bed.image(uri.split("/")[-2]) as image:
        assert list(image.watchers_list()) == []
    assert (b"".join(chunks), size) == (data, len(data))
    assert read(store, uri, offset=MIB - 3, chunk_size=77) == DATA[MIB - 3 : MIB + 74]
    with pytest.raises(exceptions.StorageWriteDenied, match="profile rbd"):
        add(store, DATA)
    with pytest.raises(exceptions.GlanceStoreException):
        delete(store, uri)
    assert read(store, uri) == data


def test_r152_r156_missing_image_is_noticed_before_the_first_chunk(bed: Bed) -> None:
    store = bed.store()
    for uri in ("rbd://missing", f"{store.url_prefix}missing/snap"):
        with pytest.raises(exceptions.NotFound):
            store.get(locate(store, uri))
        with pytest.raises(exceptions.NotFound):
            size_of(store, uri)
        with pytest.raises(exceptions.NotFound):
            delete(store, uri)


def test_image_that_is_deleted_while_it_is_read(bed: Bed) -> None:
    """RBD delivers zeros for objects that are gone; they never reach the caller."""
    store = bed.store(rbd_store_io_depth=1)
    uri = add(store, os.urandom(8 * MIB))
    chunks, _size = store.get(locate(store, uri))
    next(chunks)
    delete(bed.store(), uri)
    with pytest.raises(exceptions.NotFound, match="deleted while it was read"):
        b"".join(chunks)


def test_short_locations(bed: Bed) -> None:
    """Those of old releases name the image alone."""
    store = bed.store()
    image_id = new_id()
    add(store, DATA, image_id)
    assert read(store, f"rbd://{image_id}") == DATA
    assert size_of(store, f"rbd://{image_id}") == len(DATA)
    delete(store, f"rbd://{image_id}")
    assert bed.names() == []


def test_image_of_format_1(bed: Bed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Releases of before 2013 wrote images without a snapshot."""
    monkeypatch.setenv("RBD_FORCE_ALLOW_V1", "1")
    (tmp_path / "old").write_bytes(DATA)
    bed.command("import", "--no-progress", "--image-format", 1, tmp_path / "old", "images/old")
    with bed.image("old") as image:
        assert image.old_format()
    store = bed.store()
    assert read(store, "rbd://old") == DATA
    assert read(store, "rbd://old", offset=5, chunk_size=10) == DATA[5:15]
    with pytest.raises(exceptions.Duplicate):
        add(store, DATA, "old")
    delete(store, "rbd://old")
    assert bed.names() == []


def test_snapshot_of_another_name(bed: Bed) -> None:
    bed.create("by-hand", DATA)
    with bed.image("by-hand", read_only=False) as image:
        image.create_snap("golden")
    store = bed.store()
    assert read(store, f"{store.url_prefix}by-hand/golden") == DATA
    with pytest.raises(exceptions.NotFound):
        read(store, f"{store.url_prefix}by-hand/snap")


def test_clone_is_read_with_what_its_parent_has(bed: Bed) -> None:
    import rbd

    data = DATA + bytes(3 * MIB) + DATA
    parent = add(bed.store(rbd_thin_provisioning=True), data).split("/")[-2]
    rbd.RBD().clone(bed.pool, parent, "snap", bed.pool, "child", features=61)
    with bed.image("child", read_only=False) as image:
        image.create_snap("snap")
        image.protect_snap("snap")
    store = bed.store()
    assert read(store, f"{store.url_prefix}child/snap") == data


# -- deletion


def test_r142_r148_image_with_clones_stays(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    import rbd

    store = bed.store()
    uri = add(store, DATA)
    image_id = uri.split("/")[-2]
    rbd.RBD().clone(bed.pool, image_id, "snap", bed.pool, "clone", features=61)
    with pytest.raises(exceptions.InUseByStore, match="clones"):
        delete(store, uri)
    (record,) = [entry for entry in caplog.records if "cannot be deleted" in entry.message]
    assert record.levelname == "WARNING"
    with bed.image(image_id) as image:
        assert image.is_protected_snap("snap")
    assert read(store, uri) == DATA
    rbd.RBD().remove(bed.pool, "clone")
    delete(store, uri)
    assert bed.names() == []


def test_image_that_is_open_elsewhere_stays(bed: Bed) -> None:
    store = bed.store()
    uri = add(store, DATA)
    with (
        bed.image(uri.split("/")[-2], read_only=False),
        pytest.raises(exceptions.InUseByStore, match="open"),
    ):
        delete(store, uri)
    assert read(store, uri) == DATA
    delete(store, uri)


def test_image_that_somebody_has_locked_stays(bed: Bed) -> None:
    """RBD itself would wait for the end of the lock, which nobody may ever take away."""
    store = bed.store()
    uri = add(store, DATA)
    image_id = uri.split("/")[-2]
    with bed.image(image_id, read_only=False) as image:
        image.lock_exclusive("mine")
    with pytest.raises(exceptions.InUseByStore, match="rbd lock list"):
        delete(store, uri)
    assert read(store, uri) == DATA
    with bed.image(image_id, read_only=False) as image:
        image.unlock("mine")
    delete(store, uri)


def test_r137_snapshot_that_is_not_protected_any_more(bed: Bed) -> None:
    store = bed.store()
    uri = add(store, DATA)
    with bed.image(uri.split("/")[-2], read_only=False) as image:
        image.unprotect_snap("snap")
    delete(store, uri)
    assert bed.names() == []


def test_image_without_its_snapshot_can_be_deleted(bed: Bed) -> None:
    bed.create("half", DATA)
    store = bed.store()
    delete(store, f"{store.url_prefix}half/snap")
    assert bed.names() == []


def test_r143_image_with_further_snapshots_goes_to_the_trash(bed: Bed) -> None:
    store = bed.store()
    uri = add(store, DATA)
    image_id = uri.split("/")[-2]
    with bed.image(image_id, read_only=False) as image:
        image.create_snap("backup")
    delete(store, uri)
    assert (bed.names(), bed.trash()) == ([], [image_id])
    with pytest.raises(exceptions.NotFound):
        delete(store, uri)


def test_single_store_mode(bed: Bed) -> None:
    """Without other stores the location names the cluster all the same."""
    store = bed.store(None)
    assert store.url_prefix is None
    image_id = new_id()
    uri, size, _checksum, metadata = store.add(image_id, io.BytesIO(DATA), len(DATA))
    assert (size, metadata) == (len(DATA), {})
    assert uri == f"rbd://{bed.ceph.fsid}/images/{image_id}/snap"
    assert read(store, uri) == DATA


# -- deletion that is refused


def is_whole(bed: Bed, uri: str) -> bool:
    """Tell whether an image can be read and cloned as before."""
    with bed.image(uri.split("/")[-2], "snap") as image:
        protected = image.is_protected_snap("snap")
    return protected and read(bed.store(), uri) == DATA


def test_image_of_a_group(bed: Bed) -> None:
    uri = add(bed.store(), DATA)
    image_id = uri.split("/")[-2]
    bed.command("group", "create", "images/together")
    bed.command("group", "image", "add", "images/together", f"images/{image_id}")
    with pytest.raises(exceptions.InUseByStore, match="group together"):
        delete(bed.store(), uri)
    assert is_whole(bed, uri)
    bed.command("group", "rm", "images/together")
    delete(bed.store(), uri)
    assert (bed.names(), bed.trash()) == ([], [])


def test_image_that_is_mirrored(bed: Bed) -> None:
    """Snapshots that mirroring makes are its own: the image goes, and its space."""
    bed.command("mirror", "pool", "enable", "images", "image")
    try:
        uri = add(bed.store(), DATA)
        bed.command("mirror", "image", "enable", f"images/{uri.split('/')[-2]}", "snapshot")
        delete(bed.store(), uri)
        assert (bed.names(), bed.trash()) == ([], [])
    finally:

        def is_off() -> bool:
            # The cluster may still be busy with the image.
            with contextlib.suppress(subprocess.CalledProcessError):
                bed.command("mirror", "pool", "disable", "images")
                return True
            return False

        until(is_off, "the pool is mirrored no more")


def test_image_that_is_migrated(bed: Bed) -> None:
    """It is neither missing nor to be deleted."""
    uri = add(bed.store(), DATA)
    image_id = uri.split("/")[-2]
    bed.command("migration", "prepare", f"images/{image_id}", f"images/{image_id}")
    try:
        assert read(bed.store(), uri) == DATA
        with pytest.raises(exceptions.InUseByStore, match="migrat"):
            delete(bed.store(), uri)
        with pytest.raises(exceptions.Duplicate):
            add(bed.store(), DATA, image_id)
    finally:
        bed.command("migration", "abort", f"images/{image_id}")
    assert is_whole(bed, uri)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EMLINK, errno.EROFS, errno.ETIMEDOUT])
def test_last_step_that_fails(bed: Bed, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The image can be read and cloned as before."""
    import rbd

    uri = add(bed.store(), DATA)

    class Refusing(rbd.RBD):  # type: ignore[misc]
        def trash_move(self, *_arguments: object) -> None:
            raise rbd.OSError("error moving image to trash", errno=number)

    with monkeypatch.context() as patched:
        patched.setattr(rbd, "RBD", Refusing)
        expected = (exceptions.InUseByStore, exceptions.TimeoutError)[number == errno.ETIMEDOUT]
        with pytest.raises(expected):
            delete(bed.store(), uri)
    assert is_whole(bed, uri)


def test_image_that_nobody_may_change_here(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the copy that mirroring keeps of an image of another cluster."""
    import rbd

    uri = add(bed.store(), DATA)

    class Frozen(rbd.Image):  # type: ignore[misc]
        def unprotect_snap(self, _name: str) -> None:
            raise rbd.ReadOnlyImage("error unprotecting snapshot", errno=errno.EROFS)

    with monkeypatch.context() as patched:
        patched.setattr(rbd, "Image", Frozen)
        with pytest.raises(exceptions.InUseByStore, match="mirrored"):
            delete(bed.store(), uri)
    assert is_whole(bed, uri)


# -- striped images


def test_striped_image(bed: Bed) -> None:
    """An object has pieces of the image that do not follow each other."""
    data = os.urandom(6 * MIB)
    bed.create("striped", data, stripe_unit=64 * 1024, stripe_count=3, features=FEATURES | STRIPING)
    with bed.image("striped", read_only=False) as image:
        image.create_snap("snap")
        image.protect_snap("snap")
    store = bed.store(rbd_store_io_depth=1)
    uri = f"{store.url_prefix}striped/snap"
    assert read(store, uri) == data
    assert read(store, uri, offset=MIB - 5, chunk_size=2 * MIB) == data[MIB - 5 : 3 * MIB - 5]
    chunks, _size = store.get(locate(store, uri))
    next(chunks)
    delete(bed.store(), uri)
    with pytest.raises(exceptions.NotFound, match="deleted while it was read"):
        b"".join(chunks)
