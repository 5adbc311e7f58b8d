# SPDX-License-Identifier: Apache-2.0
"""What the file store finds in its directories."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.filesystem import Store, holdings
from glance_store.inventory import COMPLETE, FOREIGN

ANY_AGE = -60.0
# Without the files that have no name, as on NFS.
UPLOAD = """
import sys
from oslo_config import cfg
from glance_store._drivers.filesystem import Store
conf = cfg.ConfigOpts()
store = Store(conf, "files")
conf.set_override("filesystem_store_datadir", sys.argv[1], group="files")
store.configure(re_raise_bsc=True)
for directory in store._datadirs.all:
    directory.unnamed_files = False
class Source:
    def read(self, length):
        print("read", flush=True)
        sys.stdin.readline()
        return bytes(length)
store.add("image", Source(), 0, "sha256")
"""


def make_store(*folders: Path) -> Store:
    conf = cfg.ConfigOpts()
    store = Store(conf, "files")
    conf.set_override("filesystem_store_datadir", "", group="files")
    conf.set_override("filesystem_store_datadirs", [str(one) for one in folders], group="files")
    store.configure(re_raise_bsc=True)
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


def test_living_stopped_and_killed(folder: Path) -> None:
    """An upload that is stopped for however long is alive; one that was killed is not."""
    store = make_store(folder)
    command = [sys.executable, "-c", UPLOAD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as upload:
        assert upload.stdin is not None
        assert upload.stdout is not None
        for _read in range(3):
            upload.stdout.readline()
            upload.stdin.write(b"\n")
            upload.stdin.flush()
        assert len(list(folder.iterdir())) == 1
        assert list(store.leftovers(ANY_AGE)) == []
        upload.send_signal(signal.SIGSTOP)
        assert list(store.leftovers(ANY_AGE)) == []
        upload.kill()
    (left,) = store.leftovers(ANY_AGE)
    assert list(store.leftovers(3600)) == []
    left.remove()
    left.remove()
    assert list(folder.iterdir()) == []


def test_one_that_comes_to_life(folder: Path) -> None:
    """It is looked at again before it goes."""
    store = make_store(folder)
    path = folder / ".glance_store-0123456789abcdef.partial"
    path.write_bytes(b"half")
    (left,) = store.leftovers(ANY_AGE)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(exceptions.InUseByStore, match="is being written"):
            left.remove()
    os.utime(path, (2**32, 2**32))
    with pytest.raises(exceptions.InUseByStore):
        left.remove()
    assert path.exists()


def test_a_link_is_no_leftover(folder: Path, tmp_path: Path) -> None:
    """What it leads to stays."""
    store = make_store(folder)
    (tmp_path / "precious").write_bytes(b"data")
    link = folder / ".glance_store-0123456789abcdef.partial"
    link.symlink_to(tmp_path / "precious")
    assert list(store.leftovers(ANY_AGE)) == []
    assert [image.state for image in store.images()] == [FOREIGN]


def test_several_directories(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    store = make_store(*folders)
    for number in range(1500):
        (folders[number % 2] / f"image-{number}").touch()
    found = {image.image_id: image for image in store.images()}
    assert len(found) == 1500
    assert {image.state for image in found.values()} == {COMPLETE}
    assert found["image-7"].uri == f"file://{folders[1]}/image-7"
    room = store.capacity()
    # Both are on one file system, which counts once.
    figures = os.statvfs(tmp_path)
    assert room is not None
    assert room.total == figures.f_blocks * figures.f_frsize


def test_a_directory_that_has_gone(folder: Path) -> None:
    store = make_store(folder)
    folder.rmdir()
    with pytest.raises((OSError, exceptions.GlanceStoreException)):
        list(store.images())
    assert store.capacity() is None


def test_what_cannot_be_looked_at_does_not_hide_the_rest(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(folder)
    directory = store._datadirs.all[0]
    for name in ("image", "broken"):
        (folder / name).write_bytes(b"data")
    codes = iter([errno.EIO, errno.ESTALE])

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def stat(self, follow_symlinks: bool) -> os.stat_result:
            if self.name == "broken":
                code = next(codes)
                raise OSError(code, os.strerror(code))
            return os.stat(folder / self.name, follow_symlinks=follow_symlinks)

    def look() -> list[tuple[str, str]]:
        found = [holdings._entry(Entry(name), directory) for name in ("broken", "image")]
        return [(image.image_id, image.state) for image in found if image is not None]

    assert look() == [("broken", FOREIGN), ("image", COMPLETE)]
    assert f"{folder}/broken cannot be examined: Input/output error" in caplog.text
    with pytest.raises(OSError, match="Stale"):
        look()


def test_leftovers_that_cannot_be_opened_do_not_hide_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(folder)
    for number in range(2):
        (folder / f".glance_store-{number:016x}.partial").write_bytes(b"data")
    opened = holdings._opened

    def refuse(path: str) -> int:
        if path.endswith("0.partial"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path)

    monkeypatch.setattr(holdings, "_opened", refuse)
    assert [left.name[-9:] for left in store.leftovers(ANY_AGE)] == ["1.partial"]
    assert "0.partial is being written: Permission denied" in caplog.text
