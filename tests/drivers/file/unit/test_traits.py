# SPDX-License-Identifier: Apache-2.0
"""File systems that lack a call, a figure or a permission which others have.

No such file system is at hand on every machine: the calls are made to answer as theirs do.
"""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers.filesystem import Store, datadirs, mounts, reader, syscalls
from tests.drivers.file.conftest import MakeStore, fetch, listing, locate, put

MIB = 1024 * 1024
DATA = os.urandom(2 * MIB + 5)


def figures(**given: int) -> SimpleNamespace:
    plain = dict.fromkeys(("f_bsize", "f_frsize"), 4096)
    return SimpleNamespace(**{**plain, "f_blocks": 10**6, "f_bavail": 10**6, "f_flag": 0, **given})


def failing(code: int) -> Callable[..., Any]:
    def fail(*_args: object, **_more: object) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


# -- figures


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        lambda _path: figures(f_blocks=0, f_bavail=0),
        lambda _path: figures(f_bsize=0, f_frsize=0, f_blocks=0, f_bavail=0),
        lambda _path: figures(f_bavail=2**64 - 5),
        lambda _path: figures(f_bavail=-5),
        failing(errno.ENOSYS),
        failing(errno.EOPNOTSUPP),
        failing(errno.EPERM),
        failing(errno.EACCES),
        failing(errno.EOVERFLOW),
    ],
)
def test_no_figures_are_not_a_full_disk(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[..., Any],
    several: bool,
) -> None:
    monkeypatch.setattr(os, "statvfs", answer)
    directories = [f"{tmp_path}/one", f"{tmp_path}/two"]
    store = make_store(datadirs=directories) if several else make_store()
    assert fetch(store, put(store, "image", DATA)) == DATA
    assert fetch(store, put(store, "unknown", DATA, size=0)) == DATA
    assert "unknown free space" in store.check_health()
    assert store.capacity() is None


def test_free_space_is_counted_in_fragments(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    monkeypatch.setattr(
        os, "statvfs", lambda _path: figures(f_bsize=512, f_frsize=MIB, f_bavail=1000)
    )
    assert "1.0 GiB free" in store.check_health()
    put(store, "image", DATA)
    monkeypatch.setattr(
        os, "statvfs", lambda _path: figures(f_bsize=MIB, f_frsize=512, f_bavail=1000)
    )
    with pytest.raises(exceptions.StorageFull, match="512000 are free"):
        put(store, "other", DATA)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, 524])
def test_free_space_proves_nothing_where_none_can_be_set_aside(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """ZFS may compress an image; other file systems count what they could free."""
    store = make_store()
    monkeypatch.setattr(syscalls, "preallocate", failing(code))
    monkeypatch.setattr(os, "statvfs", lambda _path: figures(f_bavail=1))
    assert fetch(store, put(store, "image", DATA)) == DATA


def test_a_directory_that_says_how_much_is_free_goes_before_one_that_does_not(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(path: str) -> SimpleNamespace:
        return figures(f_blocks=0) if str(path).endswith("silent") else figures()

    monkeypatch.setattr(os, "statvfs", answer)
    store = make_store(datadirs=[f"{tmp_path}/silent", f"{tmp_path}/telling"])
    assert put(store, "image", b"data") == f"file://{tmp_path}/telling/image"


@pytest.mark.parametrize("several", [False, True])
def test_a_file_server_that_is_lost_when_it_is_asked_for_figures(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    directories = [f"{tmp_path}/one", f"{tmp_path}/two"]
    store = make_store(datadirs=directories) if several else make_store()
    monkeypatch.setattr(os, "statvfs", failing(errno.ESTALE))
    with pytest.raises(exceptions.BackendUnavailable, match="Stale"):
        put(store, "image", DATA)


# -- removing


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_an_image_that_was_removed_is_removed_whatever_the_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    uri = put(store, "image", b"data")
    unlink = os.unlink

    def remove(path: str) -> None:
        unlink(path)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "unlink", remove)
    store.delete(locate(store, uri))
    monkeypatch.undo()
    with pytest.raises(exceptions.NotFound):
        store.get_size(locate(store, uri))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EIO, exceptions.BackendUnavailable),
        (errno.EACCES, exceptions.Forbidden),
        (errno.ESTALE, exceptions.BackendUnavailable),
        (errno.EHOSTDOWN, exceptions.BackendUnavailable),
        (errno.EKEYEXPIRED, exceptions.BackendUnavailable),
        (errno.EMFILE, exceptions.BackendUnavailable),
        (errno.EAGAIN, exceptions.BackendUnavailable),
    ],
)
@pytest.mark.parametrize("look", [os.lstat, failing(errno.ESTALE)])
def test_an_image_that_cannot_be_removed(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[..., Any],
    code: int,
    expected: type[Exception],
) -> None:
    uri = put(store, "image", b"data")
    monkeypatch.setattr(os, "unlink", failing(code))
    monkeypatch.setattr(os, "lstat", look)
    with pytest.raises(expected, match=os.strerror(code)):
        store.delete(locate(store, uri))
    monkeypatch.undo()
    assert fetch(store, uri) == b"data"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_file_system_that_has_no_room_to_remove_a_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As ZFS with a quota, and btrfs. A file with another name keeps its data."""
    uri, other = put(store, "image", b"data"), put(store, "other", b"data")
    os.link(tmp_path / "images" / "other", tmp_path / "kept")
    unlink = os.unlink

    def remove(path: str) -> None:
        if os.path.getsize(path):
            raise OSError(code, os.strerror(code))
        unlink(path)

    monkeypatch.setattr(os, "unlink", remove)
    store.delete(locate(store, uri))
    with pytest.raises(exceptions.Forbidden, match=os.strerror(code)):
        store.delete(locate(store, other))
    monkeypatch.undo()
    assert listing(tmp_path / "images") == ["other"]
    assert (tmp_path / "kept").read_bytes() == b"data"


# -- what the process or the user lacks for a while


PASSING = [
    *(errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ENOKEY, errno.EKEYEXPIRED, errno.EIO),
]


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_is_an_outage(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    location = locate(store, put(store, "image", b"data"))
    monkeypatch.setattr(os, "open", failing(code))
    for action in (lambda: store.get(location), lambda: put(store, "other", b"data")):
        with pytest.raises(exceptions.BackendUnavailable, match=os.strerror(code)):
            action()
    monkeypatch.undo()
    monkeypatch.setattr(os, "stat", failing(code))
    with pytest.raises(exceptions.BackendUnavailable, match=os.strerror(code)):
        store.get_size(location)


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_does_not_make_a_store_read_only(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(syscalls, "open_directory", failing(code))
    with pytest.raises(exceptions.BackendUnavailable, match=os.strerror(code)):
        make_store()


# -- flushing


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, 524])
def test_a_directory_that_cannot_be_flushed(
    make_store: MakeStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    flush = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(code, os.strerror(code))
        flush(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    store = make_store()
    for name in ("one", "two"):
        assert fetch(store, put(store, name, DATA)) == DATA
    assert caplog.text.count("cannot be flushed") == 1
    assert os.strerror(code) in caplog.text


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_files_that_cannot_be_flushed(
    make_store: MakeStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    monkeypatch.setattr(os, "fsync", failing(code))
    store = make_store()
    for name in ("one", "two"):
        assert fetch(store, put(store, name, DATA)) == DATA
    assert store.check_health().startswith("ok")
    assert caplog.text.count("files cannot be flushed") == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.EBADF, errno.ENOSPC, errno.EDQUOT])
def test_data_that_did_not_reach_the_disk_is_an_error(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store = make_store()
    monkeypatch.setattr(os, "fsync", failing(code))
    expected = (OSError, exceptions.StorageFull, exceptions.BackendUnavailable)
    with pytest.raises(expected, match=os.strerror(code)):
        put(store, "image", DATA)
    with pytest.raises(exceptions.GlanceStoreException, match=os.strerror(code)):
        store.check_health()
    assert listing(tmp_path / "images") == []


class SlowDisk:
    """A disk that writes 50 MiB a second, and only when somebody waits for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dirty = 0
        for owner, name, length in ((os, "pwrite", 1), (syscalls, "finish_writeback", 2)):
            really = getattr(owner, name)
            monkeypatch.setattr(owner, name, self.counted(really, length, name == "pwrite"))
        monkeypatch.setattr(os, "fsync", lambda _file: self.write(self.dirty))

    def counted(self, really: Callable[..., Any], length: int, dirties: bool) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            size = args[length] if isinstance(args[length], int) else len(args[length])
            if dirties:
                self.dirty += size
            else:
                self.write(min(size, self.dirty))
            return really(*args)

        return call

    def write(self, size: int) -> None:
        time.sleep(size / (50 * MIB))
        self.dirty -= size


def test_a_large_image_on_a_slow_disk_takes_longer_than_one_call_may(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(timeout=1)
    disk = SlowDisk(monkeypatch)
    data = os.urandom(MIB) * 80
    uri = put(store, "image", data)
    assert disk.dirty == 0
    assert fetch(store, uri) == data


# -- files without a name


@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize(
    "code", [errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENOENT, errno.EXDEV, errno.EINVAL]
)
def test_files_without_a_name_that_cannot_be_given_one(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    thin: bool,
) -> None:
    """The first upload loses no data; later ones take the other way from the start."""
    link, open_, opened = os.link, os.open, []

    def refused(source: str, target: str, **more: Any) -> None:
        if source.startswith("/proc/"):
            raise OSError(code, os.strerror(code))
        link(source, target, **more)

    def counted(path: str, flags: int, *args: Any, **more: Any) -> int:
        opened.append(flags & os.O_TMPFILE == os.O_TMPFILE)
        return open_(path, flags, *args, **more)

    store = make_store(filesystem_thin_provisioning=thin, file_perm=644)
    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "open", counted)
    before = len(os.listdir("/proc/self/fd"))
    data = DATA + bytes(3 * MIB)
    for number in range(2):
        uri = put(store, f"image{number}", data, size=0)
        assert fetch(store, uri) == data
        assert any(opened) == (number == 0)
        opened.clear()
    assert listing(tmp_path / "images") == ["image0", "image1"]
    for path in (tmp_path / "images").iterdir():
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o644
        assert (status.st_blocks * 512 < len(data)) == thin
    assert len(os.listdir("/proc/self/fd")) == before
    assert caplog.text.count("cannot be given a name: " + os.strerror(code)) == 1


def test_a_name_that_is_taken_says_nothing_about_files_without_a_name(
    make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store()

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            (tmp_path / "images" / "image").write_bytes(b"other")
            return super().read(size)

    with pytest.raises(exceptions.Duplicate):
        store.add("image", Source(b"data"), 0, "md5")
    assert store._datadirs is not None
    assert store._datadirs.all[0].unnamed_files


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.EISDIR])
def test_files_without_a_name_that_cannot_be_opened(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    open_, refused = os.open, []

    def refusing(path: str, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            refused.append(path)
            raise OSError(code, os.strerror(code))
        return open_(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", refusing)
    store = make_store()
    for name in ("one", "two"):
        assert fetch(store, put(store, name, DATA)) == DATA
    assert len(refused) == 1
    assert listing(tmp_path / "images") == ["one", "two"]


def test_directories_that_cannot_be_locked(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """NFS locks nothing that is open for reading alone."""
    monkeypatch.setattr(fcntl, "flock", failing(errno.EBADF))
    store = make_store(datadirs=[f"{tmp_path}/one", f"{tmp_path}/two"])
    for name in ("image", "other"):
        assert fetch(store, put(store, name, b"data")) == b"data"
    with pytest.raises(exceptions.Duplicate):
        put(store, "image", b"data")
    # Once for each directory.
    assert caplog.text.count("cannot be locked") == 2


@pytest.mark.parametrize("call", ["preallocate", "start_writeback", "finish_writeback"])
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, 524])
def test_calls_that_only_help(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    monkeypatch.setattr(datadirs.syscalls, call, failing(code))
    store = make_store(timeout=20 if call == "finish_writeback" else 0)
    data = os.urandom(9 * MIB)
    assert fetch(store, put(store, "image", data)) == data


# -- directories of others


@pytest.mark.parametrize("code", [errno.EPERM, errno.EROFS, errno.EOPNOTSUPP])
def test_a_directory_whose_permissions_are_not_ours_to_change(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images").chmod(0o770)
    monkeypatch.setattr(os, "chmod", failing(code))
    store = make_store(file_perm=644)
    put(store, "image", b"data")
    assert os.strerror(code) in caplog.text
    assert "keeps its permissions 770" in caplog.text


def test_a_directory_is_tried_not_asked(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """access() knows permission bits; lists of access, CIFS and FUSE have rules of their own."""
    monkeypatch.setattr(os, "access", lambda _path, mode, **_more: mode == os.R_OK)
    put(make_store(), "image", b"data")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE])
def test_the_reason_is_the_one_that_came(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "images").mkdir()
    open_ = os.open

    def refusing(path: str, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_ACCMODE:
            raise OSError(code, os.strerror(code))
        return open_(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(exceptions.BadStoreConfiguration, match=os.strerror(code)) as caught:
        make_store()
    assert f"{tmp_path}/images" in str(caught.value)


# -- walks up to the root


@pytest.mark.parametrize("broken", ["lstat", "path.exists", "path.ismount", "path.isdir"])
def test_a_walk_ends_at_the_root(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Tests of the image service replace these functions in the whole process."""
    module: Any = os.path if "." in broken else os
    name = broken.rpartition(".")[2]
    answer = failing(errno.EACCES) if name == "lstat" else lambda *_args: False
    monkeypatch.setattr(mounts, "MOUNTINFO", "/nonexistent")
    with monkeypatch.context() as patched:
        patched.setattr(module, name, answer)
        assert mounts.mount_point("/no/such/place") == "/"
        store = make_store()
    put(store, "image", b"data")


@pytest.mark.parametrize("answer", ["", "images", "."])
def test_a_walk_ends_where_there_is_no_path(
    monkeypatch: pytest.MonkeyPatch, answer: str, tmp_path: Path
) -> None:
    """One of the image service's tests has os.path.join() return something that is no path."""
    monkeypatch.setattr(mounts, "MOUNTINFO", "/nonexistent")
    with monkeypatch.context() as patched:
        patched.setattr(os.path, "realpath", lambda _path: answer)
        patched.setattr(os.path, "ismount", lambda _path: False)
        found = mounts.mount_point(str(tmp_path))
    assert found in ("", "/")


# -- reading


def test_a_file_that_is_leased_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put(store, "image", b"data")
    open_ = os.open

    def leased(path: str, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_NONBLOCK:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return open_(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", leased)
    assert fetch(store, uri) == b"data"
    # But nothing else is: opening a pipe would wait for ever.
    path = uri.removeprefix("file://")
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(exceptions.BadStoreUri, match="regular file"):
        store.get(locate(store, uri))


def sparse_file(path: Path, runs: list[tuple[int, int]], size: int) -> bytes:
    """Write a file with data in these runs (offset, length), holes elsewhere."""
    whole = bytearray(size)
    with open(path, "wb") as file:
        for offset, length in runs:
            whole[offset : offset + length] = os.urandom(length)
            file.seek(offset)
            file.write(whole[offset : offset + length])
        file.truncate(size)
    return bytes(whole)


KIB = 1024
RUNS = {
    "short holes": [(offset, 4 * KIB) for offset in range(0, 8 * MIB, 8 * KIB)],
    "short holes behind data": [
        (0, 3 * MIB),
        *((offset, 4 * KIB) for offset in range(3 * MIB + 8 * KIB, 8 * MIB, 8 * KIB)),
    ],
    "long holes": [(offset, 4 * KIB) for offset in range(0, 8 * MIB, MIB)],
    "both": [(0, 4 * KIB), (8 * KIB, 4 * KIB), (5 * MIB + 4 * KIB, MIB)],
    "hole first": [(3 * MIB, 4 * KIB)],
    "nothing": [],
}


@pytest.mark.parametrize("runs", RUNS.values(), ids=list(RUNS))
@pytest.mark.parametrize("size", [8 * MIB, 8 * MIB - 3])
def test_holes_are_worth_a_step_when_they_are_long(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: list[tuple[int, int]],
    size: int,
) -> None:
    data = sparse_file(tmp_path / "image", runs, max(size, 0))
    lseek, seeks = os.lseek, []

    def counted(*args: int) -> int:
        seeks.append(args)
        return lseek(*args)

    monkeypatch.setattr(reader.os, "lseek", counted)
    for offset, length in ((0, None), (5000, None), (3 * MIB - 1, 2 * MIB), (0, 100 * KIB)):
        seeks.clear()
        where = locate(store, f"file://{tmp_path}/image")
        chunks = list(store.get(where, offset=offset, chunk_size=length)[0])
        stop = size if length is None else offset + length
        assert b"".join(chunks) == data[offset:stop]
        steps = (stop - offset) // store.read_size + 1
        long_holes = sum(1 for _run in runs) if runs is RUNS["long holes"] else 2
        assert len(chunks) <= 2 * (steps + long_holes)
        assert len(seeks) <= 3 * 2 * (steps + long_holes)


def test_long_holes_are_not_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse_file(tmp_path / "image", RUNS["long holes"], 8 * MIB)
    pread, read = os.pread, []

    def counted(fd: int, length: int, offset: int) -> bytes:
        read.append(length)
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    fetch(store, f"file://{tmp_path}/image")
    assert sum(read) == 8 * 4 * KIB


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EIO, 524])
def test_file_systems_that_know_no_holes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    data = sparse_file(tmp_path / "image", RUNS["both"], 8 * MIB)
    monkeypatch.setattr(reader.os, "lseek", failing(code))
    assert fetch(store, f"file://{tmp_path}/image") == data


def test_a_file_system_that_finds_no_way_on_is_read_to_the_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sparse_file(tmp_path / "image", RUNS["both"], 8 * MIB)
    monkeypatch.setattr(reader.os, "lseek", lambda _fd, offset, _whence: offset)
    assert fetch(store, f"file://{tmp_path}/image") == data


# -- one of several


def test_a_directory_that_takes_no_files_is_passed_over(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No inodes, no permission, an error of the disk: known when the file is created."""
    store = make_store(datadirs=[f"{tmp_path}/one:2", f"{tmp_path}/two:1"])
    open_ = os.open
    refused = [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS]
    directory = ""

    def refusing(path: str, flags: int, *args: Any, **more: Any) -> int:
        nonlocal directory
        if flags & os.O_DIRECTORY and not flags & os.O_ACCMODE:
            directory = path
        if flags & os.O_ACCMODE and directory.endswith("one"):
            raise OSError(refused[0], os.strerror(refused[0]))
        return open_(path, flags, *args, **more)

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(os, "open", refusing)
        for number, code in enumerate(list(refused)):
            refused[0] = code
            uri = put(store, f"image{number}", DATA)
            assert uri == f"file://{tmp_path}/two/image{number}"
            assert fetch(store, uri) == DATA
    assert caplog.text.count("takes no images for now") == 1
    assert put(store, "last", DATA) == f"file://{tmp_path}/one/last"
    assert caplog.text.count("takes images again") == 1
    assert listing(tmp_path / "two") == [f"image{number}" for number in range(4)]


def test_a_directory_that_hangs_when_it_is_opened_is_passed_over(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it answers whatever else is asked, as from a cache."""
    store = make_store(datadirs=[f"{tmp_path}/one:2", f"{tmp_path}/two:1"], timeout=1)
    opening, answers = syscalls.open_directory, threading.Event()

    def hang(path: str) -> int:
        if path.endswith("one"):
            answers.wait(20)
        return opening(path)

    monkeypatch.setattr(syscalls, "open_directory", hang)
    try:
        for name in ("a", "b"):
            assert put(store, name, b"data") == f"file://{tmp_path}/two/{name}"
    finally:
        answers.set()
    assert listing(tmp_path / "one") == []


def test_a_child_does_not_wait_for_the_answers_of_its_parent(tmp_path: Path) -> None:
    directory = datadirs.DataDir(str(tmp_path))

    def child() -> int:
        pid = os.fork()
        if not pid:
            os._exit(directory.is_overdue(0))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert directory.tracked(lambda: (directory.is_overdue(0), child())) == (True, 0)
    assert not directory.is_overdue(0)


def test_a_directory_that_cannot_be_looked_at_is_passed_over(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(datadirs=[f"{tmp_path}/one:2", f"{tmp_path}/two:1"])
    look = os.fstat

    def fstat(file: int) -> os.stat_result:
        if os.readlink(f"/proc/self/fd/{file}").startswith(f"{tmp_path}/one"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return look(file)

    monkeypatch.setattr(os, "fstat", fstat)
    assert put(store, "image", b"data") == f"file://{tmp_path}/two/image"
