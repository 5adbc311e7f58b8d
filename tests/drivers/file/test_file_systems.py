# SPDX-License-Identifier: Apache-2.0
"""Real file systems that are full, read-only, silent, leased, somebody else's, or dead."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glance_store import exceptions, registry
from glance_store._drivers.filesystem import Store, mounts
from tests.drivers.file.conftest import MakeStore, fetch, listing, locate, mounted, need, put

MIB = 1024 * 1024
DATA = os.urandom(2 * MIB)


def tmpfs(at: Path, options: str) -> contextlib.AbstractContextManager[Path]:
    return mounted("mount", "-t", "tmpfs", "-o", options, "tmpfs", at=at)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two file systems of 8 MiB."""
    with tmpfs(tmp_path / "one", "size=8m") as one, tmpfs(tmp_path / "two", "size=8m") as two:
        yield one, two


def fill(path: Path) -> None:
    with open(path / "filler", "wb") as filler, pytest.raises(OSError, match="space"):
        filler.write(bytes(20 * MIB))


def test_a_file_system_that_does_not_say_how_much_is_free(
    make_store: MakeStore, tmp_path: Path
) -> None:
    # A tmpfs without a limit reports zeros.
    with tmpfs(tmp_path / "silent", "size=0") as path:
        assert os.statvfs(path).f_blocks == 0
        store = make_store(datadir=str(path))
        assert fetch(store, put(store, "image", DATA)) == DATA
        assert store.check_health() == f"ok, unknown free space in {path}"
        several = make_store(datadirs=[f"{path}/a", f"{path}/b"])
        assert fetch(several, put(several, "image", DATA)) == DATA


def test_a_full_file_system_is_not_healthy(make_store: MakeStore, small_disk: Path) -> None:
    fill(small_disk)
    # It will pass: the store is there, and images can be deleted.
    store = make_store(datadir=str(small_disk))
    with pytest.raises(exceptions.StorageFull, match="No space left"):
        store.check_health()
    with pytest.raises(exceptions.StorageFull):
        put(store, "image", DATA)
    (small_disk / "filler").unlink()
    assert store.check_health().startswith("ok, ")
    assert listing(small_disk) == []


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """An XFS of 300 MiB, the smallest there is."""
    need("mkfs.xfs", "xfsprogs")
    (tmp_path / "disk").touch()
    os.truncate(tmp_path / "disk", 300 * MIB)
    subprocess.run(["mkfs.xfs", "-q", str(tmp_path / "disk")], check=True)
    with mounted("mount", "-o", "loop", str(tmp_path / "disk"), at=tmp_path / "xfs") as path:
        yield path


@pytest.mark.parametrize("several", [False, True])
def test_room_that_comes_back_late(
    make_store: MakeStore, xfs: Path, small_disk: Path, several: bool
) -> None:
    """XFS says how much was free before the last image was deleted."""
    where = {"datadirs": [str(xfs), str(small_disk)]} if several else {"datadir": str(xfs)}
    store = make_store(**where)
    figures = os.statvfs(xfs)
    filler = xfs / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, figures.f_bavail * figures.f_frsize - 16 * MIB)
    with pytest.raises(exceptions.StorageFull):
        put(store, "image", bytes(48 * MIB))
    filler.unlink()
    assert put(store, "image", bytes(48 * MIB)).endswith("/image")


def test_a_file_system_without_inodes(make_store: MakeStore, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=8m,nr_inodes=4") as small:
        store = make_store(datadir=str(small))
        several = make_store(datadirs=[f"{small}:2", f"{tmp_path}/large:1"])
        for number in range(3):
            (small / f"file{number}").write_text("")
        with pytest.raises(exceptions.StorageFull, match="No space left"):
            put(store, "image", DATA)
        with pytest.raises(exceptions.StorageFull, match="No space left"):
            store.check_health()
        assert put(several, "image", DATA) == f"file://{tmp_path}/large/image"


def test_a_read_only_file_system_is_not_healthy(make_store: MakeStore, small_disk: Path) -> None:
    store = make_store(datadir=str(small_disk))
    uri = put(store, "image", DATA)
    remount(small_disk, "ro")
    with pytest.raises(exceptions.StorageWriteDenied, match="read-only"):
        store.check_health()
    with pytest.raises(exceptions.StorageWriteDenied, match="Read-only"):
        put(store, "other", DATA)
    assert fetch(store, uri) == DATA
    with pytest.raises(exceptions.BadStoreConfiguration, match="Read-only file system"):
        make_store(datadir=str(small_disk))
    remount(small_disk, "rw")
    assert store.check_health().startswith("ok, ")


LEASE = """
import fcntl, os, signal, sys

def give_back(*_args):
    # The kernel asks for it when somebody else opens the file.
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    sys.exit(0)

signal.signal(signal.SIGIO, give_back)
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
while True:
    signal.pause()
"""


def test_a_lease_of_a_file_server_is_given_back(store: Store) -> None:
    uri = put(store, "image", DATA)
    path = uri.removeprefix("file://")
    server = subprocess.Popen([sys.executable, "-c", LEASE, path], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"held\n"
        assert fetch(store, uri) == DATA
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()


FOREIGN = """
import io, os, sys
from oslo_config import cfg
from glance_store._drivers.filesystem import Store

conf = cfg.ConfigOpts()
store = Store(conf, "files")
conf.set_override("filesystem_store_datadir", sys.argv[1], group="files")
conf.set_override("filesystem_store_file_perm", 644, group="files")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
store.configure(re_raise_bsc=True)
sys.stdout.write(store.add("image", io.BytesIO(b"data"), 4, "md5")[0])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("mode", [0o767, 0o763])
def test_a_directory_that_belongs_to_somebody_else(tmp_path: Path, mode: int) -> None:
    with tmpfs(tmp_path / "share", "size=8m,uid=1") as share:
        # The folders of the tests are closed to others.
        for folder in (tmp_path, *tmp_path.parents):
            before = folder.stat().st_mode
            if before & 0o711 != 0o711:
                folder.chmod(before | 0o711)
        share.chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", FOREIGN, str(share)], capture_output=True, text=True, check=False
        )
        assert done.stdout == f"file://{share}/image", done.stderr
        assert "Operation not permitted" in done.stderr
        assert (share / "image").read_bytes() == b"data"


# -- several directories


def test_a_read_only_directory_takes_itself_out_and_comes_back(
    make_store: MakeStore, disks: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = disks
    store = make_store(datadirs=[f"{one}:2", f"{two}:1"])
    kept = put(store, "kept", DATA)
    remount(one, "ro")
    for name in ("a", "b"):
        assert put(store, name, b"data") == f"file://{two}/{name}"
    # What is there can be read, and is known.
    assert fetch(store, kept) == DATA
    with pytest.raises(exceptions.Duplicate):
        put(store, "kept", DATA)
    with pytest.raises(exceptions.StorageWriteDenied, match=f"read-only; other .* in {two}"):
        store.check_health()
    assert caplog.text.count("takes no images for now") == 1
    remount(one, "rw")
    assert put(store, "c", b"data") == f"file://{one}/c"
    assert caplog.text.count("takes images again") == 1
    assert store.check_health().count("GiB free") == 2


@pytest.fixture
def no_fstab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mounts.MountGuard.__init__, "__defaults__", (str(tmp_path / "none"),))


def test_a_directory_whose_file_system_is_gone_takes_itself_out_and_comes_back(
    make_store: MakeStore, tmp_path: Path, no_fstab: None
) -> None:
    with tmpfs(tmp_path / "share", "size=8m") as share:
        store = make_store(datadirs=[f"{share}/images:2", f"{tmp_path}/other:1"])
        uri = put(store, "image", DATA)
        subprocess.run(["umount", str(share)], check=True)
        assert put(store, "a", b"data") == f"file://{tmp_path}/other/a"
        for operation in (store.get, store.get_size, store.delete):
            with pytest.raises(exceptions.StorageWriteDenied, match="is gone"):
                operation(locate(store, uri))
        with pytest.raises(exceptions.StorageWriteDenied, match="is gone"):
            store.check_health()
        assert listing(share) == []
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(share)], check=True)
        (share / "images").mkdir()
        assert put(store, "b", b"data") == f"file://{share}/images/b"


def test_a_directory_that_is_dead_at_start_up_comes_back(
    make_store: MakeStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one").symlink_to("nowhere")
    store = make_store(datadirs=[f"{tmp_path}/one:2", f"{tmp_path}/two:1"])
    assert f"symbolic link to {tmp_path}/nowhere" in caplog.text
    assert store.storage_ids() > {f"directory {tmp_path}/one", f"directory {tmp_path}/two"}
    assert put(store, "a", b"data") == f"file://{tmp_path}/two/a"
    with pytest.raises(exceptions.StorageWriteDenied, match="symbolic link"):
        store.get(locate(store, f"file://{tmp_path}/one/image"))
    (tmp_path / "nowhere").mkdir()
    assert put(store, "b", b"data") == f"file://{tmp_path}/one/b"
    assert store.check_health().startswith("ok, ")


def test_a_store_all_of_whose_directories_are_dead(make_store: MakeStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        make_store(datadirs=[f"{tmp_path}/one", f"{tmp_path}/two"])
    for name in ("one", "two"):
        assert f"{tmp_path}/{name} cannot be created" in str(caught.value)


def test_a_full_directory_among_others_is_healthy(
    make_store: MakeStore, disks: tuple[Path, Path]
) -> None:
    one, two = disks
    store = make_store(datadirs=[f"{one}:2", f"{two}:1"])
    fill(one)
    assert f"{one} takes no images: No space left" in store.check_health()
    assert put(store, "image", b"data") == f"file://{two}/image"
    fill(two)
    with pytest.raises(exceptions.StorageFull):
        store.check_health()
    with pytest.raises(exceptions.StorageFull, match="No data directory has room"):
        put(store, "other", b"data")
    assert registry.failures() == {}


def test_without_links_and_with_several_directories(
    make_store: MakeStore, tmp_path: Path, without_tmpfile: Path
) -> None:
    store = make_store(datadirs=[f"{without_tmpfile}/a:2", f"{tmp_path}/b:1"])
    assert fetch(store, put(store, "image", DATA)) == DATA
    with pytest.raises(exceptions.Duplicate):
        put(store, "image", DATA)
    assert listing(without_tmpfile / "a") == ["image"]
