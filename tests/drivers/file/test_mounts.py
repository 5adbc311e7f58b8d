# SPDX-License-Identifier: Apache-2.0
"""A data directory whose file system has gone away is not written to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from glance_store import exceptions
from glance_store._drivers.filesystem import mounts
from tests.drivers.file.conftest import MakeStore, fetch, listing, locate, mounted, put


@pytest.fixture
def no_fstab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    table = tmp_path / "fstab"
    table.write_text("# nothing\n")
    monkeypatch.setattr(mounts, "FSTAB", str(table))
    monkeypatch.setattr(mounts.MountGuard.__init__, "__defaults__", (str(table),))
    return table


def test_a_mount_that_goes_away_is_noticed(
    make_store: MakeStore, tmp_path: Path, no_fstab: Path
) -> None:
    with mounted("mount", "-t", "tmpfs", "tmpfs", at=tmp_path / "share") as share:
        images = share / "images"
        store = make_store(datadir=str(images))
        uri = put(store, "image", b"data")
        subprocess.run(["umount", str(share)], check=True)
        # The directory may even be there, on the file system below.
        images.mkdir()
        with pytest.raises(exceptions.StorageWriteDenied, match=f"{share} is gone"):
            put(store, "other", b"data")
        assert listing(images) == []
        # The image is not deleted: it is out of sight.
        for operation in (store.get, store.get_size, store.delete):
            with pytest.raises(exceptions.BackendUnavailable, match="is gone"):
                operation(locate(store, uri))
        with pytest.raises(exceptions.StorageWriteDenied, match="is gone"):
            store.check_health()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(share)], check=True)
        images.mkdir()
        put(store, "other", b"data")
        assert listing(images) == ["other"]


def test_a_link_that_leads_elsewhere_now(
    make_store: MakeStore, tmp_path: Path, no_fstab: Path
) -> None:
    """The images have been moved to another place, and the mount is not needed any more."""
    (tmp_path / "new").mkdir()
    link = tmp_path / "link"
    with mounted("mount", "-t", "tmpfs", "tmpfs", at=tmp_path / "share") as share:
        no_fstab.write_text(f"server:/export {share} nfs defaults 0 0\n")
        link.symlink_to(share)
        store = make_store(datadir=str(link))
        put(store, "image", b"data")
        link.unlink()
        subprocess.run(["umount", str(share)], check=True)
        with pytest.raises(exceptions.StorageWriteDenied):
            put(store, "other", b"data")
        link.symlink_to(tmp_path / "new")
        assert fetch(store, put(store, "other", b"data")) == b"data"
        with pytest.raises(exceptions.NotFound):
            store.delete(locate(store, f"file://{link}/image"))


def test_a_mount_that_fstab_declares_is_missing_at_start_up(
    make_store: MakeStore, tmp_path: Path, no_fstab: Path
) -> None:
    share = tmp_path / "the share"
    share.mkdir()
    name = str(share).replace(" ", "\\040")
    no_fstab.write_text(f"server:/export {name} nfs defaults 0 0\nnone swap swap sw 0 0\n")
    with pytest.raises(exceptions.BadStoreConfiguration, match="nothing is mounted"):
        make_store(datadir=str(share / "images"))
    assert listing(share) == []
    (tmp_path / "link").symlink_to("the share/images")
    with pytest.raises(exceptions.BadStoreConfiguration, match="nothing is mounted"):
        make_store(datadir=str(tmp_path / "link"))
    no_fstab.write_text(f"server:/export {name} nfs noauto,rw 0 0\nbroken line\n")
    make_store(datadir=str(share / "images"))


def test_a_mount_can_be_required(make_store: MakeStore, tmp_path: Path, no_fstab: Path) -> None:
    if mounts.mount_point(str(tmp_path)) == "/":
        with pytest.raises(exceptions.BadStoreConfiguration, match="root file system"):
            make_store(require_mount=True)
        assert listing(tmp_path) == ["fstab"]
    with mounted("mount", "-t", "tmpfs", "tmpfs", at=tmp_path / "share") as share:
        store = make_store(datadir=str(share / "images"), require_mount=True)
        assert fetch(store, put(store, "image", b"data")) == b"data"


def test_an_unreadable_table_declares_nothing(tmp_path: Path) -> None:
    assert mounts.declared_mount_points(str(tmp_path / "none")) == []


def test_mount_points_of_paths_that_do_not_exist() -> None:
    assert mounts.mount_point("/proc/none/at/all") == "/proc"
    assert mounts.is_within("/a/b", "/a")
    assert mounts.is_within("/a", "/")
    assert not mounts.is_within("/ab", "/a")


def test_the_upload_goes_to_the_directory_that_was_checked(
    make_store: MakeStore, tmp_path: Path, no_fstab: Path
) -> None:
    """A share that goes away in the middle of an upload takes the upload with it."""
    with mounted("mount", "-t", "tmpfs", "tmpfs", at=tmp_path / "share") as share:
        store = make_store(datadir=str(share))

        class Source:
            reads = 0

            def read(self, size: int) -> bytes:
                self.reads += 1
                if self.reads == 3:
                    subprocess.run(["umount", "--lazy", str(share)], check=True)
                return os.urandom(size) if self.reads < 5 else b""

        store.add("image", Source(), 0, "md5")
        assert listing(share) == []
