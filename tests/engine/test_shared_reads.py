# SPDX-License-Identifier: Apache-2.0
"""What one download has fetched serves the others; what goes wrong with that ends no download."""

from __future__ import annotations

import errno
import logging
import os
import random
import signal
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.transfer import shared_files, shared_folder, shared_reads
from glance_store.transfer.interface import Extent
from glance_store.transfer.shared_files import CHUNK, MIB, PART, ImageFile, SharingError
from glance_store.transfer.shared_folder import Folder
from glance_store.transfer.shared_reads import SharedDownload, SharedReads

from .memory import MemoryReader, collect, engine_threads, eventually, pattern, wait

SIZE = 3 * CHUNK + 5 * MIB + 123
DATA = pattern(SIZE)


class Backend:
    """An image, and the bytes of it that were read."""

    def __init__(self, data: bytes = DATA, version: str | None = "1", **kwargs: Any) -> None:
        self.data = data
        self.version = version
        self.kwargs = kwargs
        self.readers: list[MemoryReader] = []

    def open(self, _offset: int = 0, _length: int | None = None) -> MemoryReader:
        reader = MemoryReader(self.data, **self.kwargs)
        reader.version = self.version  # type: ignore[attr-defined]
        self.readers.append(reader)
        return reader

    @property
    def sent(self) -> int:
        most = self.kwargs.get("most") or SIZE * 100
        return sum(min(length, most) for reader in self.readers for _at, length in reader.reads)

    def check_closed(self) -> None:
        assert eventually(lambda: all(reader.closes == 1 for reader in self.readers))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedReads]:
    yield SharedReads(Folder(str(tmp_path / "shared"), 64 * CHUNK + MIB), MIB)
    assert eventually(lambda: not engine_threads())


def download(
    shared: SharedReads, backend: Backend, offset: int = 0, length: int | None = None
) -> SharedDownload:
    found = shared.download(backend.open(), "place", backend.open, offset, length, 4 * MIB)
    assert found is not None
    return found


def read(
    shared: SharedReads, backend: Backend, offset: int = 0, length: int | None = None
) -> bytes:
    return b"".join(download(shared, backend, offset, length))


def files(shared: SharedReads) -> list[Path]:
    return sorted(Path(shared.folder.path).glob("*.image"))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_second_reads_nothing_from_the_backend(shared: SharedReads, concurrency: int) -> None:
    first, second = Backend(concurrency=concurrency), Backend(concurrency=concurrency)
    assert read(shared, first) == DATA
    assert read(shared, second) == DATA
    assert (first.sent, second.sent) == (SIZE, 0)
    first.check_closed()
    second.check_closed()
    usage = shared.folder.usage()
    assert (usage.downloads, usage.saved) == (1, SIZE)
    assert SIZE <= usage.used < SIZE + MIB


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, CHUNK),
        (CHUNK, None),
        (5 * MIB + 7, 9 * MIB),
        (CHUNK - 1, CHUNK + 2),
        (2 * CHUNK, 20 * MIB),
    ],
)
def test_ranges(shared: SharedReads, offset: int, length: int | None) -> None:
    backend = Backend()
    stop = SIZE if length is None else offset + length
    for _time in range(2):
        assert read(shared, backend, offset, length) == DATA[offset:stop]
    assert backend.sent <= SIZE
    assert read(shared, backend) == DATA
    assert backend.sent == SIZE


@pytest.mark.parametrize("offset", [0, 5 * MIB + 7])
def test_small_chunks(shared: SharedReads, monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    """What has one checksum is read and verified once, however little the consumer takes."""
    assert read(shared, Backend()) == DATA
    asked: list[int] = []
    original = ImageFile.read

    def counted(file: ImageFile, position: int, length: int) -> bytes | None:
        asked.append(position // PART)
        return original(file, position, length)

    monkeypatch.setattr(ImageFile, "read", counted)
    backend = Backend()
    found = shared.download(backend.open(), "place", backend.open, offset, None, 64 * 1024)
    assert found is not None
    chunks = list(found)
    assert b"".join(chunks) == DATA[offset:]
    assert max(map(len, chunks)) == 64 * 1024
    assert asked == list(range(offset // PART, -(-SIZE // PART)))


@pytest.mark.parametrize("here", [None, "fast"])
def test_chunks_whose_checksum_only_others_can_compute(
    shared: SharedReads, monkeypatch: pytest.MonkeyPatch, here: str | None
) -> None:
    """One process of the host has the library for the fast checksum, the other has not."""

    def fast(data: Any) -> int:
        return zlib.crc32(data) ^ 1

    has, lacks = (lambda: fast), (lambda: None)
    first, second = Backend(), Backend()
    monkeypatch.setattr(shared_files, "crc32c", lacks if here else has)
    assert read(shared, first) == DATA
    monkeypatch.setattr(shared_files, "crc32c", has if here else lacks)
    assert read(shared, second) == DATA
    # The slow one is known to all.
    assert second.sent == (0 if here else SIZE)
    third = Backend()
    monkeypatch.setattr(shared_files, "crc32c", has)
    assert read(shared, third) == DATA
    assert third.sent == 0
    assert len(files(shared)) == 1


def test_many_at_the_same_moment(shared: SharedReads) -> None:
    together = threading.Barrier(8)
    backend = Backend(most=MIB)
    results: list[list[bytes]] = [[] for _number in range(8)]

    def run(result: list[bytes]) -> None:
        found = download(shared, backend)
        together.wait(30)
        collect(found, result)

    threads = [threading.Thread(target=run, args=(result,)) for result in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(b"".join(result) == DATA for result in results)
    assert backend.sent == SIZE
    backend.check_closed()


def test_nobody_waits_for_a_slow_consumer(shared: SharedReads) -> None:
    slow, quick = Backend(), Backend()
    begun = download(shared, slow)
    next(begun)
    assert read(shared, quick) == DATA
    assert slow.sent + quick.sent <= SIZE + 2 * CHUNK
    begun.close()


def test_zeros_take_no_room(shared: SharedReads) -> None:
    data = bytes(CHUNK) + pattern(MIB) + bytes(CHUNK)
    layout = [
        Extent(0, CHUNK, False),
        Extent(CHUNK, MIB, True),
        Extent(CHUNK + MIB, CHUNK, False),
    ]
    backend = Backend(data, layout=layout)
    for _time in range(2):
        assert read(shared, backend) == data
    assert backend.sent == MIB
    assert shared.folder.usage().used < CHUNK + 2 * MIB


@pytest.mark.parametrize(
    ("data", "version", "offset", "length"),
    [
        (DATA, None, 0, None),
        (DATA, "", 0, None),
        (DATA, "1", 0, MIB),
        (pattern(MIB - 1), "1", 0, None),
        (b"", "1", 0, None),
        (DATA, "1", SIZE, None),
    ],
)
def test_what_is_not_shared(
    shared: SharedReads, data: bytes, version: str | None, offset: int, length: int | None
) -> None:
    backend = Backend(data, version)
    assert shared.download(backend.open(), "place", backend.open, offset, length, MIB) is None
    assert not files(shared)


def test_another_version_is_another_image(shared: SharedReads) -> None:
    other = bytes(reversed(DATA))
    assert read(shared, Backend(DATA, "1")) == DATA
    assert read(shared, Backend(other, "2")) == other
    assert read(shared, Backend(DATA, "1")) == DATA
    shared.folder.forget("place")
    assert not files(shared)


def test_a_location_that_is_not_utf8(shared: SharedReads) -> None:
    uri = "file:///" + os.fsdecode(b"image-\xff")
    backend = Backend()
    for _round in range(2):
        found = shared.download(backend.open(), uri, backend.open, 0, None, 4 * MIB)
        assert found is not None
        assert b"".join(found) == DATA
    assert backend.sent == SIZE
    assert len(files(shared)) == 1
    shared.folder.forget(uri)
    assert files(shared) == []


def test_an_image_that_is_replaced_meanwhile(shared: SharedReads) -> None:
    backend = Backend()
    read(shared, backend, 0, CHUNK)
    found = download(shared, backend)
    next(found)  # out of the directory: the backend has been let go of
    backend.version = "2"
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="was replaced"):
        collect(found, [])
    backend.check_closed()


def test_errors_of_the_backend_are_those_of_the_download(shared: SharedReads) -> None:
    error = exceptions.BackendException("gone")
    backend = Backend(failures={2 * CHUNK: error})
    got: list[bytes] = []
    with pytest.raises(exceptions.BackendException, match="gone"):
        collect(download(shared, backend), got)
    assert b"".join(got) == DATA[: 2 * CHUNK]
    backend.check_closed()
    assert read(shared, Backend()) == DATA


def test_an_image_that_ends_too_early(shared: SharedReads) -> None:
    with pytest.raises(exceptions.TruncatedImage):
        collect(download(shared, Backend(DATA[:-5], size=SIZE)), [])
    assert read(shared, Backend()) == DATA


# -- what may be wrong with the directory


def damage(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("place", [0, 40, 66, 100, -1, -SIZE, -SIZE // 2])
def test_a_byte_is_another(
    shared: SharedReads, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(shared, Backend()) == DATA
    [path] = files(shared)
    damage(path, place % path.stat().st_size)
    assert read(shared, Backend()) == DATA
    again = Backend()
    assert read(shared, again) == DATA
    assert read(shared, again) == DATA
    assert again.sent <= SIZE


def test_a_file_that_was_cut_short(shared: SharedReads) -> None:
    assert read(shared, Backend()) == DATA
    [path] = files(shared)
    found = download(shared, Backend())
    next(found)
    os.truncate(path, 100)
    found.close()
    assert read(shared, Backend()) == DATA


@pytest.mark.parametrize(("full", "calls_before"), [("posix_fallocate", 2), ("pwrite", 20)])
def test_a_full_disk(
    shared: SharedReads,
    full: str,
    calls_before: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real, calls = getattr(os, full), []

    def fail(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > calls_before:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(shared_files.os, full, fail)
    backend = Backend(b"data" * (CHUNK + MIB))
    with caplog.at_level(logging.WARNING):
        assert read(shared, backend) == backend.data
        assert read(shared, backend) == backend.data
    [record] = caplog.records
    assert "No space left on device; the image is read from its store" in record.getMessage()
    backend.check_closed()


def test_no_thread_to_share_with(
    shared: SharedReads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As at the process limit: the image is read from the backend."""
    start, refused = threading.Thread.start, ["can't start new thread"]

    def limited(thread: threading.Thread) -> None:
        if refused:
            raise RuntimeError(refused.pop())
        start(thread)

    backend = Backend()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        assert read(shared, backend) == DATA
    assert not refused
    assert "can't start new thread" in caplog.text
    backend.check_closed()


def test_a_directory_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    shared = SharedReads(Folder(str(tmp_path / "file" / "shared"), 64 * CHUNK + MIB), MIB)
    backend = Backend()
    for _time in range(2):
        assert shared.download(backend.open(), "place", backend.open, 0, None, MIB) is None
    assert caplog.text.count("Not a directory") == 1


def test_locks_that_the_file_system_does_not_have(
    shared: SharedReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> Any:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(shared_files.fcntl, "fcntl", refuse)
    assert read(shared, Backend()) == DATA


# -- room


def test_what_was_not_read_for_long_goes_first(tmp_path: Path) -> None:
    shared = SharedReads(Folder(str(tmp_path), 3 * CHUNK + MIB), MIB)
    backends = [Backend(pattern(CHUNK)) for _number in range(4)]

    def fetch(number: int) -> None:
        backend = backends[number]
        found = shared.download(backend.open(), f"place {number}", backend.open, 0, None, MIB)
        assert found is not None
        assert b"".join(found) == backend.data

    for number in (0, 1, 2, 0, 3):
        fetch(number)
        assert shared.folder.usage().used <= 3 * CHUNK + MIB
    fetch(0)
    fetch(3)
    assert [backend.sent for backend in backends] == [CHUNK] * 4
    fetch(1)
    assert backends[1].sent == 2 * CHUNK


def test_an_image_that_is_being_read_stays(tmp_path: Path) -> None:
    shared = SharedReads(Folder(str(tmp_path), 4 * CHUNK + MIB), MIB)
    kept, other = Backend(), Backend(pattern(2 * CHUNK))
    found = download(shared, kept)
    got = [next(found)]
    assert eventually(lambda: kept.sent == SIZE)
    reading = shared.download(other.open(), "other", other.open, 0, None, MIB)
    assert reading is not None
    assert b"".join(reading) == other.data
    collect(found, got)
    assert b"".join(got) == DATA
    assert kept.sent == SIZE
    assert shared.folder.usage().used <= 4 * CHUNK + MIB


def test_an_index_that_cannot_be_read(shared: SharedReads) -> None:
    read(shared, Backend())
    (Path(shared.folder.path) / "index").write_bytes(bytes(20))
    shared.folder.limit = 5 * CHUNK
    other = Backend(pattern(2 * CHUNK))
    found = shared.download(other.open(), "other", other.open, 0, None, MIB)
    assert found is not None
    assert b"".join(found) == other.data
    assert shared.folder.usage().used <= 5 * CHUNK


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_file_that_another_user_has_made(
    shared: SharedReads, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may write to the directory must not choose what others read."""
    read(shared, Backend())
    os.chown(files(shared)[0], 12345, -1)
    backend = Backend()
    assert shared.download(backend.open(), "place", backend.open, 0, None, MIB) is None
    assert "another user has made the file of the image" in caplog.text


def test_files_of_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that is not for this alone: nothing of others is removed or overwritten."""
    blank, index = tmp_path / "blank.image", tmp_path / "index"
    named = tmp_path / f"{'0' * 32}-{'f' * 32}.image"
    for path in (blank, named):
        path.write_bytes(bytes(4 * MIB) if path == blank else pattern(4 * MIB))
        os.utime(path, (1, 1))
    shared = SharedReads(Folder(str(tmp_path), 4 * CHUNK), MIB)
    first, second = Backend(pattern(2 * CHUNK)), Backend(pattern(2 * CHUNK))
    for number, backend in enumerate((first, second)):
        found = shared.download(backend.open(), f"place {number}", backend.open, 0, None, MIB)
        assert found is not None
        assert b"".join(found) == backend.data
    assert blank.stat().st_size == named.stat().st_size == 4 * MIB
    index.write_bytes(b"<html>an index of something else, and longer than that of images</html>")
    before = index.read_bytes()
    assert read(shared, Backend()) == DATA
    assert index.read_bytes() == before
    assert "its file index belongs to somebody else" in caplog.text


# -- ends


def test_close_ends_what_waits_for_the_backend(shared: SharedReads) -> None:
    go_on, reading = threading.Event(), threading.Event()

    def stop(offset: int) -> None:
        if offset >= CHUNK:
            reading.set()
            wait(go_on)

    backend = Backend(on_read=stop)
    found = download(shared, backend)
    got = [next(found), next(found)]
    wait(reading)
    helper = threading.Thread(target=collect, args=(found, got))
    helper.start()
    found.close()
    go_on.set()
    helper.join()
    assert DATA.startswith(b"".join(got))
    backend.check_closed()
    assert read(shared, Backend()) == DATA


def test_thrown_away_half_read(shared: SharedReads) -> None:
    backend = Backend()
    found = download(shared, backend)
    next(found)
    del found
    backend.check_closed()
    assert eventually(lambda: not engine_threads())


def in_a_child(run: Callable[[], None], ready: Callable[[], bool]) -> int:
    """Run something in a forked process; return its pid when it is ready."""
    pid = os.fork()
    if not pid:
        try:
            run()
        finally:
            os._exit(0)
    assert eventually(ready)
    return pid


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_fetches_is_killed_or_stopped(
    shared: SharedReads, end: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared_reads, "_PATIENCE", 0.2)
    monkeypatch.setattr(shared_reads, "_LESS_PATIENCE", 0.05)
    fetching = tmp_path / "fetching"

    def stand_still(offset: int) -> None:
        if offset >= CHUNK:
            fetching.touch()
            threading.Event().wait()

    pid = in_a_child(
        lambda: collect(download(shared, Backend(on_read=stand_still)), []), fetching.exists
    )
    try:
        os.kill(pid, end)
        backend = Backend()
        assert read(shared, backend) == DATA
        # The first chunk came from the other one.
        assert backend.sent == SIZE - CHUNK
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_notes_are_held_by_one_that_was_stopped(
    shared: SharedReads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared_folder, "_PATIENCE", 0.1)
    held = tmp_path / "held"
    read(shared, Backend(pattern(2 * MIB)))

    def hold() -> None:
        with shared.folder._index():
            held.touch()
            threading.Event().wait()

    pid = in_a_child(hold, held.exists)
    try:
        os.kill(pid, signal.SIGSTOP)
        assert read(shared, Backend(DATA, "other")) == DATA
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_child_has_no_part_in_the_downloads_of_its_parent(shared: SharedReads) -> None:
    found = download(shared, Backend())
    got = [next(found)]
    pid = os.fork()
    if not pid:
        try:
            found.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    collect(found, got)
    assert b"".join(got) == DATA


def test_image_data_are_for_the_service_alone(shared: SharedReads) -> None:
    read(shared, Backend())
    assert Path(shared.folder.path).stat().st_mode & 0o777 == 0o700
    for path in Path(shared.folder.path).iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"place" not in path.read_bytes()[:4096]
    link = files(shared)[0]
    link.unlink()
    link.symlink_to("/etc/passwd")
    with pytest.raises(SharingError):
        shared.folder.open("place", "1", SIZE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_service(tmp_path: Path) -> None:
    """An operator's command that runs as root takes the shared reads from nobody."""
    os.chown(tmp_path, 12345, 23456)
    shared = SharedReads(Folder(str(tmp_path / "images" / "shared"), 100 * MIB), MIB)
    for _time in range(2):
        assert read(shared, Backend()) == DATA
    made = list(tmp_path.rglob("*"))
    assert len(made) == 4
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 23456)}


def reading_process(shared: SharedReads, folder: Path, number: int) -> int:
    """Start a process that reads the image again and again, and says when it was right."""
    pid = os.fork()
    if pid:
        return pid
    try:
        rounds = 0
        while True:
            assert read(shared, Backend(on_read=lambda _offset: time.sleep(0.002))) == DATA
            rounds += 1
            (folder / str(number)).write_text(str(rounds))
            if rounds % 3 == number % 3:
                shared.folder.forget("place")
    except BaseException:
        (folder / f"failed {number}").write_text(traceback.format_exc())
        raise
    finally:
        os._exit(1)


ROUNDS = int(os.environ.get("GLANCE_STORE_SHARED_READS_ROUNDS", "3"))


def test_processes_are_killed_at_random(shared: SharedReads, tmp_path: Path) -> None:
    """The others get the right bytes, and go on; the image goes away now and then as well."""
    folder = tmp_path / "said"
    folder.mkdir()
    chance = random.Random(ROUNDS)
    pids = {number: reading_process(shared, folder, number) for number in range(4)}
    try:
        for _round in range(ROUNDS):
            victim = chance.randrange(len(pids))
            time.sleep(chance.random() / 5)
            os.kill(pids[victim], signal.SIGKILL)
            os.waitpid(pids[victim], 0)
            pids[victim] = reading_process(shared, folder, victim)
            # Each of them, the new one too, reads it once more from here on.
            for path in folder.glob("[0-9]"):
                path.unlink()
            assert eventually(lambda: len(list(folder.glob("[0-9]"))) == 4), "one stands still"
            assert not list(folder.glob("failed*"))
    finally:
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
