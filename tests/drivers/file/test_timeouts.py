# SPDX-License-Identifier: Apache-2.0
"""Calls on a file system that does not answer.

The file system is real: a FUSE server that is stopped, as a network share whose server is gone.
"""

from __future__ import annotations

import concurrent.futures.thread
import io
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers.filesystem import Store
from glance_store._drivers.filesystem.openfile import GuardedFile
from glance_store.transfer import threads
from glance_store.transfer.threads import Calls
from tests.drivers.file.conftest import MakeStore, listing, locate, need, put, unavailable

MIB = 1024 * 1024


class Share:
    """A mounted file system that can be made to hang."""

    def __init__(self, below: Path, path: Path) -> None:
        self.path = path
        self.below = below
        self.server = subprocess.Popen(["bindfs", "-f", str(below), str(path)])

    def hang(self) -> None:
        self.server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.server.send_signal(signal.SIGCONT)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    need("bindfs", "bindfs")
    below, path = tmp_path / "below", tmp_path / "share"
    below.mkdir()
    path.mkdir()
    share = Share(below, path)
    deadline = time.monotonic() + 20
    while not os.path.ismount(path):
        if share.server.poll() is not None or time.monotonic() > deadline:
            share.server.kill()
            unavailable("this user cannot mount FUSE file systems")
        time.sleep(0.02)
    yield share
    share.go_on()
    subprocess.run(["umount", "--lazy", str(path)], check=True)
    share.server.terminate()
    share.server.wait()


@pytest.fixture
def store(make_store: MakeStore, share: Share) -> Store:
    return make_store(datadir=str(share.path), timeout=1, thread_pool_size=4)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


class HangingSource:
    """Stops the file system at a given read."""

    def __init__(self, share: Share, at: int, blocks: int = 6) -> None:
        self.share, self.at, self.blocks, self.reads = share, at, blocks, 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        if self.reads == self.at:
            self.share.hang()
        return os.urandom(size) if self.reads <= self.blocks else b""


def test_r54_r63_every_operation_ends(store: Store, share: Share) -> None:
    uri = put(store, "image", b"data")
    share.hang()
    operations: list[Callable[[], Any]] = [
        lambda: store.get(locate(store, uri)),
        lambda: store.get_size(locate(store, uri)),
        lambda: store.delete(locate(store, uri)),
        store.check_health,
    ]
    for operation in operations:
        with pytest.raises(exceptions.TimeoutError, match="after 1 seconds"):
            operation()
    share.go_on()


def test_r63_an_upload_cannot_begin(store: Store, share: Share) -> None:
    share.hang()
    with pytest.raises(exceptions.TimeoutError):
        put(store, "image", b"data")
    share.go_on()
    # What comes back late cleans up after itself.
    wait_for(lambda: listing(share.below) == [])
    put(store, "image", b"data")


@pytest.mark.parametrize("at", [2, 4, 7])
def test_r63_an_upload_that_hangs_leaves_nothing(store: Store, share: Share, at: int) -> None:
    """At the seventh read the data ends: it is flushing and publishing that hang."""
    with pytest.raises(exceptions.TimeoutError):
        store.add("image", HangingSource(share, at), 0, "md5")
    share.go_on()
    wait_for(lambda: listing(share.below) == [])
    put(store, "image", b"data")
    assert (share.below / "image").read_bytes() == b"data"


def test_a_link_that_comes_back_late_is_undone(store: Store, share: Share) -> None:
    """The image must not appear after its upload was reported as failed."""
    published = threading.Event()
    from glance_store._drivers.filesystem.claim import Claim

    def late(*args: Any) -> None:
        share.hang()
        try:
            original(*args)
        finally:
            published.set()

    original = Claim.publish
    Claim.publish = late
    try:
        with pytest.raises(exceptions.TimeoutError):
            put(store, "image", b"data")
    finally:
        Claim.publish = original
    share.go_on()
    assert published.wait(20)
    wait_for(lambda: listing(share.below) == [])


def test_r63_a_read_that_hangs(store: Store, share: Share) -> None:
    uri = put(store, "image", os.urandom(4 * MIB))
    subprocess.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"], check=False)
    chunks, _size = store.get(locate(store, uri))
    share.hang()
    with pytest.raises(exceptions.TimeoutError):
        # Pages that the kernel still holds come first.
        list(chunks)
    share.go_on()


def test_a_store_does_not_configure_on_a_share_that_hangs(
    make_store: MakeStore, share: Share
) -> None:
    share.hang()
    with pytest.raises(exceptions.BadStoreConfiguration, match="timed out"):
        make_store(datadir=str(share.path / "images"), timeout=1)
    share.go_on()


def test_one_of_several_directories_that_hangs_takes_itself_out(
    make_store: MakeStore, share: Share, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directories = [f"{share.path}:2", f"{tmp_path}/alive:1"]
    store = make_store(datadirs=directories, timeout=5, thread_pool_size=4)
    uri = put(store, "kept", b"data")
    assert uri == f"file://{share.path}/kept"
    share.hang()
    # More uploads than there are threads: those after the first do not ask it again.
    for number in range(6):
        assert put(store, f"{number}", b"data") == f"file://{tmp_path}/alive/{number}"
    assert caplog.text.count("takes no images for now") == 1
    share.go_on()
    assert store._datadirs is not None
    [dead] = [each for each in store._datadirs.all if each.path == str(share.path)]
    wait_for(lambda: not dead.is_overdue(5))
    assert put(store, "back", b"data") == f"file://{share.path}/back"


def test_busy_threads_are_reported(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    store = make_store(timeout=30, thread_pool_size=4, threadpool_threshold=75)
    calls = store._guard
    begun, release = threading.Semaphore(0), threading.Event()

    def hang() -> None:
        begun.release()
        release.wait()

    waiting = [threading.Thread(target=calls.call, args=(hang,)) for _number in range(3)]
    with caplog.at_level(logging.WARNING):
        for thread in waiting:
            assert "waiting for the file system" not in caplog.text
            thread.start()
            assert begun.acquire(timeout=20)
    wait_for(lambda: "Store files: 3 calls" in caplog.text)
    release.set()
    for thread in waiting:
        thread.join()
    calls.close()


def test_calls_that_never_start_touch_nothing() -> None:
    """With all threads stuck, a call times out in the queue and is not made later on."""
    calls = Calls(timeout=1, threads=1, name="files")
    begun, release = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait()

    def stick() -> None:
        with pytest.raises(exceptions.TimeoutError):
            calls.call(hang)

    stuck = threading.Thread(target=stick)
    stuck.start()
    assert begun.wait(20)
    read, write = os.pipe()
    file = GuardedFile(calls, write)
    with pytest.raises(exceptions.TimeoutError):
        file.call(os.write, b"late")
    # Its time may end later than that of the call above: its thread began to wait at no known time.
    stuck.join()
    release.set()
    # From here on a slow machine must not look like a slow file system.
    calls.timeout = 30
    file.close()
    assert os.read(read, 10) == b""
    os.close(read)
    with pytest.raises(ValueError, match="closed"):
        file.call(os.write, b"closed")
    calls.close()


def test_r64_the_pool_ends_with_a_new_configuration(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not because its threads have been idle for a while.
    monkeypatch.setattr(threads, "_IDLE", 600.0)
    before = set(threading.enumerate())
    store = make_store(timeout=30)
    put(store, "one", b"data")
    pools = set(threading.enumerate()) - before
    assert {thread.name for thread in pools} <= {"glance_store-file", "glance_store-file-cleanup"}
    assert pools
    store.configure()
    for thread in pools:
        thread.join(20)
        assert not thread.is_alive()
    put(store, "two", b"data")
    store._guard.close()


def test_a_forked_process_has_a_pool_of_its_own(make_store: MakeStore) -> None:
    store = make_store(timeout=30)
    put(store, "parent", b"data")
    child = os.fork()
    if not child:
        status = 1
        try:
            put(store, "child", b"data")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert b"".join(store.get(locate(store, f"{store.url_prefix}/child"))[0]) == b"data"
    store._guard.close()


def test_all_is_the_same_with_a_timeout(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(timeout=30, filesystem_thin_provisioning=True)
    data = os.urandom(MIB) + bytes(2 * MIB) + os.urandom(10)
    uri = store.add("image", io.BytesIO(data), 0, "sha512")[0]
    chunks, size = store.get(locate(store, uri), offset=5)
    assert (b"".join(chunks), size) == (data[5:], len(data) - 5)
    with pytest.raises(exceptions.Duplicate):
        put(store, "image", data)
    store.delete(locate(store, uri))
    assert listing(tmp_path / "images") == []
    store._guard.close()


def test_calls_are_bounded_when_the_main_thread_has_ended(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """glance-scrubber removes images then, and executors take no calls."""
    monkeypatch.setattr(concurrent.futures.thread, "_shutdown", True)
    store = make_store(timeout=30)
    uri = put(store, "image", b"data")
    assert b"".join(store.get(locate(store, uri))[0]) == b"data"
    store.delete(locate(store, uri))
    with pytest.raises(exceptions.NotFound):
        store.get_size(locate(store, uri))
