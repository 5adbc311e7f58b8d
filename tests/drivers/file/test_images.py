# SPDX-License-Identifier: Apache-2.0
"""Images in a data directory: stored, read, deleted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import resource
import stat
from pathlib import Path

import pytest

from glance_store import exceptions
from glance_store._drivers.filesystem import ChunkedFile, Store, StoreLocation, writer
from tests.drivers.file.conftest import (
    MakeStore,
    fetch,
    listing,
    locate,
    mounted,
    put,
)

MIB = 1024 * 1024


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 7])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("thin", [True, False])
def test_round_trip(
    make_store: MakeStore, images: Path, size: int, known: bool, thin: bool
) -> None:
    store = make_store(filesystem_thin_provisioning=thin)
    data = os.urandom(size)
    result = store.add("an-image", io.BytesIO(data), size if known else 0, "sha512")
    assert result == (
        f"file://{images}/an-image",
        size,
        hashlib.md5(data).hexdigest(),
        hashlib.sha512(data).hexdigest(),
        {"store": "files"},
    )
    assert (images / "an-image").read_bytes() == data
    assert fetch(store, result[0]) == data
    assert store.get_size(locate(store, result[0])) == size
    assert listing(images) == ["an-image"]
    store.delete(locate(store, result[0]))
    assert listing(images) == []


def test_single_store_mode_has_no_store_key(tmp_path: Path) -> None:
    from oslo_config import cfg

    conf = cfg.ConfigOpts()
    store = Store(conf)
    conf.set_override("filesystem_store_datadir", str(tmp_path), group="glance_store")
    store.configure()
    assert store.add("image", io.BytesIO(b"data"), 4, "md5")[4] == {}


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (1, None), (0, 1), (999, 1), (999, 5), (1000, None), (2000, 10), (3, 500)],
)
def test_r61_the_size_is_that_of_the_bytes_delivered(
    store: Store, offset: int, length: int | None
) -> None:
    data = os.urandom(1000)
    uri = put(store, "image", data)
    chunks, size = store.get(locate(store, uri), offset=offset, chunk_size=length)
    expected = data[offset:] if length is None else data[offset : offset + length]
    assert b"".join(chunks) == expected
    assert size == len(expected)


def test_negative_ranges_are_refused(store: Store) -> None:
    uri = put(store, "image", b"data")
    with pytest.raises(exceptions.Invalid):
        store.get(locate(store, uri), offset=-1)


def test_missing_images(store: Store, images: Path) -> None:
    gone = locate(store, f"file://{images}/none")
    for operation in (store.get, store.get_size, store.delete):
        with pytest.raises(exceptions.NotFound, match="none"):
            operation(gone)


def test_r53_thin_images_have_holes_and_their_exact_length(
    make_store: MakeStore, images: Path
) -> None:
    store = make_store(filesystem_thin_provisioning=True)
    data = bytes(3 * MIB) + os.urandom(MIB) + bytes(70_000) + b"x" + bytes(4 * MIB + 5)
    uri = put(store, "image", data)
    status = os.stat(images / "image")
    assert status.st_size == len(data)
    assert status.st_blocks * 512 <= MIB + 64 * 1024
    assert fetch(store, uri) == data
    # Reading ranges across the edges of the holes.
    for offset in (0, 3 * MIB - 10, 4 * MIB - 10, 4 * MIB + 69_990, 8 * MIB):
        assert fetch(store, uri, offset=offset, chunk_size=100_000) == data[offset:][:100_000]


def test_thin_images_of_zeros_only(make_store: MakeStore, images: Path) -> None:
    store = make_store(filesystem_thin_provisioning=True)
    uri = put(store, "image", bytes(3 * MIB + 1), size=0)
    assert os.stat(images / "image").st_blocks == 0
    assert fetch(store, uri) == bytes(3 * MIB + 1)


def test_space_is_set_aside_for_thick_images(make_store: MakeStore, images: Path) -> None:
    store = make_store()
    seen = []

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.append(open_bytes(images))
            return super().read(size)

    store.add("image", Source(os.urandom(8 * MIB)), 8 * MIB, "md5")
    assert seen[0] >= 8 * MIB


def free_of(path: Path) -> int:
    figures = os.statvfs(path)
    return figures.f_bfree * figures.f_frsize


def open_bytes(folder: Path) -> int:
    """Return how much space the files take that this process has open below a folder."""
    space = 0
    for entry in Path("/proc/self/fd").iterdir():
        # That of the listing itself has gone.
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(entry).startswith(f"{folder}/"):
                space += entry.stat().st_blocks * 512
    return space


def test_r58_an_existing_image_is_a_duplicate_and_untouched(store: Store, images: Path) -> None:
    put(store, "image", b"first")

    class Source:
        def read(self, size: int) -> bytes:
            raise AssertionError("nothing may be read for an image that exists")

    with pytest.raises(exceptions.Duplicate, match="image"):
        store.add("image", Source(), 0, "md5")
    assert (images / "image").read_bytes() == b"first"


def test_r58_an_image_that_appears_during_the_upload_wins(store: Store, images: Path) -> None:
    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            (images / "image").write_bytes(b"other")
            return super().read(size)

    with pytest.raises(exceptions.Duplicate):
        store.add("image", Source(b"mine"), 4, "md5")
    assert (images / "image").read_bytes() == b"other"
    assert listing(images) == ["image"]


def test_r67_nothing_is_visible_before_the_upload_is_complete(store: Store, images: Path) -> None:
    seen = []

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.append(listing(images))
            return super().read(size)

    store.add("image", Source(os.urandom(3 * MIB)), 0, "md5")
    assert seen
    assert all(names == [] for names in seen)


@pytest.mark.parametrize("failing_read", range(1, 6))
def test_r52_a_failing_source_leaves_nothing(store: Store, images: Path, failing_read: int) -> None:
    class Source:
        reads = 0

        def read(self, size: int) -> bytes:
            self.reads += 1
            if self.reads == failing_read:
                raise OSError(errno.ECONNRESET, "the client is gone")
            return bytes(size)

    with pytest.raises(OSError, match="the client is gone"):
        store.add("image", Source(), 0, "md5")
    assert listing(images) == []


@pytest.mark.parametrize("announced", [1, 4 * MIB - 1, 4 * MIB + 1, 100 * MIB])
def test_r23_wrong_sizes_leave_nothing(store: Store, images: Path, announced: int) -> None:
    with pytest.raises(exceptions.Invalid, match=r"Size (exceeds|mismatch): expected"):
        put(store, "image", bytes(4 * MIB), size=announced)
    assert listing(images) == []


def test_a_full_disk_is_known_at_once_when_the_size_is_known(
    make_store: MakeStore, small_disk: Path
) -> None:
    store = make_store(datadir=str(small_disk))

    class Source:
        def read(self, size: int) -> bytes:
            raise AssertionError("nothing may be read when there is no room")

    with pytest.raises(exceptions.StorageFull, match=r"no room.*image"):
        store.add("image", Source(), 20 * MIB, "md5")
    assert listing(small_disk) == []


@pytest.mark.parametrize("thin", [True, False])
def test_a_disk_that_fills_up_leaves_nothing(
    make_store: MakeStore, small_disk: Path, thin: bool
) -> None:
    store = make_store(datadir=str(small_disk), filesystem_thin_provisioning=thin)
    free = free_of(small_disk)
    with pytest.raises(exceptions.StorageFull):
        put(store, "image", os.urandom(20 * MIB), size=0)
    assert listing(small_disk) == []
    assert free_of(small_disk) == free
    put(store, "other", os.urandom(MIB))


def test_a_file_size_limit_is_a_full_store(store: Store, images: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, limits[1]))
    try:
        with pytest.raises(exceptions.StorageFull):
            put(store, "image", os.urandom(4 * MIB), size=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listing(images) == []


@pytest.mark.parametrize("known", [True, False])
def test_r66_a_read_only_file_system_denies_writing(
    make_store: MakeStore, tmp_path: Path, known: bool
) -> None:
    import subprocess

    # Root may write anywhere, but not to a read-only file system.
    with mounted("mount", "-t", "tmpfs", "tmpfs", at=tmp_path / "ro") as path:
        store = make_store(datadir=str(path))
        subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
        with pytest.raises(exceptions.StorageWriteDenied, match="Read-only"):
            put(store, "image", b"data", size=4 if known else 0)
        assert listing(path) == []


def test_r46_permissions_of_image_files_and_of_the_directory(
    make_store: MakeStore, images: Path
) -> None:
    images.mkdir(mode=0o700)
    put(make_store(file_perm=644), "image", b"data")
    assert stat.S_IMODE(os.stat(images / "image").st_mode) == 0o644
    assert stat.S_IMODE(os.stat(images).st_mode) == 0o711


def test_without_permissions_the_umask_counts(store: Store, images: Path) -> None:
    old = os.umask(0o027)
    try:
        put(store, "image", b"data")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(images / "image").st_mode) == 0o640


@pytest.mark.parametrize(
    "image_id", ["../escape", "a/b", "", ".", "..", "nul\0", " padded", "x.partial", "l" * 256]
)
def test_ids_that_are_no_file_names_are_refused(
    store: Store, tmp_path: Path, images: Path, image_id: str
) -> None:
    with pytest.raises(exceptions.Invalid):
        put(store, image_id, b"data")
    assert listing(tmp_path) == ["images"]
    assert listing(images) == []


@pytest.mark.parametrize("image_id", ["ünï-çødé", "with space", "per%20cent", "q?a=b#c", "l" * 255])
def test_r62_odd_ids_round_trip(store: Store, image_id: str) -> None:
    uri = put(store, image_id, b"data")
    assert fetch(store, uri) == b"data"
    store.delete(locate(store, uri))


def test_r62_odd_directories_round_trip(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(datadir=str(tmp_path / "a?b#c %41"))
    uri = put(store, "image", b"data")
    assert fetch(store, uri) == b"data"
    assert uri.startswith(str(store.url_prefix))


def test_hostile_locations(store: Store, tmp_path: Path, images: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    location = locate(store, f"file://{images}/../secret")
    for operation in (store.get, store.get_size, store.delete):
        with pytest.raises(exceptions.BadStoreUri):
            operation(location)
    assert secret.exists()
    with pytest.raises(exceptions.BadStoreUri, match="regular file"):
        store.get(locate(store, f"file://{tmp_path}"))
    os.mkfifo(images / "pipe")
    with pytest.raises(exceptions.BadStoreUri, match="regular file"):
        store.get(locate(store, f"file://{images}/pipe"))
    with pytest.raises(exceptions.Forbidden):
        store.delete(locate(store, f"file://{tmp_path}"))


def test_dots_inside_of_the_data_directory_stay_valid(make_store: MakeStore, images: Path) -> None:
    # An operator may have written the directory this way, and locations were stored with it.
    store = make_store(datadir=f"{images}/../images")
    uri = put(store, "image", b"data")
    assert ".." in uri
    assert fetch(store, uri) == b"data"


def test_locations_of_earlier_data_directories_stay_readable(store: Store, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "image").write_bytes(b"data")
    for scheme in ("file", "filesystem"):
        assert fetch(store, f"{scheme}://{old}/image") == b"data"
    store.delete(locate(store, f"filesystem://{old}/image"))
    assert listing(old) == []


def test_an_image_deleted_while_it_is_read_is_read_to_the_end(store: Store) -> None:
    data = os.urandom(3 * MIB)
    uri = put(store, "image", data)
    chunks, _size = store.get(locate(store, uri))
    first = next(chunks)
    store.delete(locate(store, uri))
    assert first + b"".join(chunks) == data


def test_an_image_cut_short_while_it_is_read_is_an_error(store: Store, images: Path) -> None:
    uri = put(store, "image", os.urandom(3 * MIB))
    chunks, _size = store.get(locate(store, uri))
    next(chunks)
    os.truncate(images / "image", MIB)
    with pytest.raises(exceptions.TruncatedImage, match=str(3 * MIB)):
        list(chunks)


def test_a_sparse_image_cut_short_while_it_is_read_is_an_error(
    make_store: MakeStore, images: Path
) -> None:
    store = make_store(filesystem_thin_provisioning=True)
    uri = put(store, "image", os.urandom(MIB) + bytes(9 * MIB))
    chunks, _size = store.get(locate(store, uri))
    os.truncate(images / "image", MIB)
    with pytest.raises(exceptions.TruncatedImage):
        list(chunks)


def test_descriptors_are_closed(store: Store) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    uri = put(store, "image", os.urandom(2 * MIB))
    before = count()
    for use in ("all", "close", "drop", "never"):
        chunks, _size = store.get(locate(store, uri))
        if use == "all":
            list(chunks)
        elif use == "close":
            next(chunks)
            chunks.close()
        elif use == "drop":
            next(chunks)
        del chunks
        assert count() == before, use
    with pytest.raises(exceptions.Duplicate):
        put(store, "image", b"")
    with pytest.raises(exceptions.Invalid):
        put(store, "other", b"x", size=2)
    assert count() == before


def test_file_systems_without_unnamed_files(make_store: MakeStore, without_tmpfile: Path) -> None:
    store = make_store(datadir=str(without_tmpfile))
    seen: list[list[str]] = []

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.append(listing(without_tmpfile))
            return super().read(size)

    data = os.urandom(3 * MIB)
    uri = store.add("image", Source(data), len(data), "md5")[0]
    assert all(len(names) == 1 and names[0].endswith(".partial") for names in seen)
    assert fetch(store, uri) == data
    assert listing(without_tmpfile) == ["image"]
    with pytest.raises(exceptions.Invalid):
        put(store, "short", data, size=len(data) + 1)
    (without_tmpfile / "late").write_bytes(b"there before")
    with pytest.raises(exceptions.Duplicate):
        put(store, "late", data)
    assert listing(without_tmpfile) == ["image", "late"]


@pytest.mark.parametrize("exclusive_rename", [True, False])
def test_file_systems_without_links(
    make_store: MakeStore,
    without_tmpfile: Path,
    monkeypatch: pytest.MonkeyPatch,
    exclusive_rename: bool,
) -> None:
    # No file system at hand lacks hard links, so that the refusal has to be made up.
    def no_link(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def no_rename(*args: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(writer.os, "link", no_link)
    if not exclusive_rename:
        monkeypatch.setattr(writer.syscalls, "rename_exclusive", no_rename)
    store = make_store(datadir=str(without_tmpfile))
    uri = put(store, "image", b"first")
    assert fetch(store, uri) == b"first"

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            (without_tmpfile / "other").write_bytes(b"there first")
            return super().read(size)

    with pytest.raises(exceptions.Duplicate):
        store.add("other", Source(b"second"), 6, "md5")
    assert (without_tmpfile / "other").read_bytes() == b"there first"
    assert listing(without_tmpfile) == ["image", "other"]


def test_an_image_whose_directory_cannot_be_flushed_is_taken_back(
    store: Store, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that fails in this very moment cannot be had; the call is made to fail instead.
    flush = os.fsync

    def failing(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, "Input/output error")
        flush(fd)

    monkeypatch.setattr(writer.os, "fsync", failing)
    with pytest.raises(exceptions.BackendUnavailable, match="Input/output"):
        put(store, "image", b"data")
    assert listing(images) == []


def test_flushing_can_be_turned_off(
    make_store: MakeStore, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(writer.os, "fsync", calls.append)
    put(make_store(fsync=False), "one", b"data")
    assert calls == []
    put(make_store(fsync=True), "two", b"data")
    assert len(calls) == 2
    assert listing(images) == ["one", "two"]


def test_chunked_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    whole = ChunkedFile(str(path), chunk_size=4)
    assert list(whole) == [b"0123", b"4567", b"89"]
    assert whole.fp is None
    part = ChunkedFile(str(path), offset=2, chunk_size=4, partial_length=5)
    assert (part.partial, part.partial_length, part.chunk_size) == (True, 5, 4)
    assert list(part) == [b"2345", b"6"]
    left = ChunkedFile(str(path))
    left.close()
    left.close()
    assert list(left) == []


def test_location_from_specs(store: Store) -> None:
    location = StoreLocation({"scheme": "file", "path": "/a/b"}, store.conf)
    assert location.get_uri() == "file:///a/b"
