# SPDX-License-Identifier: Apache-2.0
"""With a timeout nothing is left, whatever hangs, is interrupted, forks or is collected, and when.

No test waits for a timeout to pass: calls of the pool are counted, and one of them hangs until it
is released; who waits for it then takes its time as over.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers.filesystem import (
    Store,
    claim,
    datadirs,
    draft,
    openfile,
    syscalls,
    writer,
)
from glance_store.testing.concurrency import in_a_child
from glance_store.transfer import threads, upload
from glance_store.transfer.digest import Digests
from glance_store.transfer.threads import Pending
from tests.drivers.file.conftest import MakeStore, fetch, listing, locate, put
from tests.drivers.file.test_timeouts import wait_for
from tests.engine.interrupts import Interrupts, Signals

KIB = 1024
# Of the search for deadlocks. A long one: GLANCE_STORE_ROUNDS=5000 pytest --timeout 0 -k deadlock
ROUNDS = int(os.environ.get("GLANCE_STORE_ROUNDS", "100"))
DATA = os.urandom(600 * KIB)  # more than the chunk of a download
POOL, CLEANERS = "glance_store-file", "glance_store-file-cleanup"
CALLS = [
    *[(os, name) for name in ("access", "open", "fstat", "statvfs", "pwrite", "ftruncate")],
    *[(os, name) for name in ("fchmod", "fsync", "link", "unlink", "close")],
    *[(syscalls, name) for name in ("preallocate", "start_writeback", "rename_exclusive")],
    (syscalls, "finish_writeback"),
]
# How the file gets its name: it had none; another one; it had none, and was copied to one that had.
NAMED = pytest.mark.parametrize("named", ["unnamed", "partial", "copied"])
AFTER = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


class Server:
    """The file system: it counts the calls of the pool, and does something at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.names: list[str] = []  # of the calls, for who reads a failure
        self.at: int | None = None
        self.after = False
        self.do: Callable[[], object] = bool
        self.do_cleaning: Callable[[], object] = bool  # before each call of clean-up
        self.hanging = threading.Event()
        self.released = threading.Event()
        for module, name in CALLS:
            patch.setattr(module, name, self._counted(getattr(module, name)))
        in_time = Pending.wait

        def impatient(pending: Pending[Any], timeout: float) -> bool:
            while not in_time(pending, 0.002):
                if self.hanging.is_set():
                    return False
            return True

        patch.setattr(Pending, "wait", impatient)

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            thread = threading.current_thread().name
            if thread == CLEANERS:
                self.do_cleaning()
            if thread != POOL:
                return function(*args, **kwargs)
            number, self.calls = self.calls, self.calls + 1
            self.names.append(function.__name__)
            if number != self.at:
                return function(*args, **kwargs)
            if not self.after:
                self.do()
            try:
                return function(*args, **kwargs)
            finally:
                if self.after:
                    self.do()

        return call

    def arm(self, at: int, after: bool, do: Callable[[], object]) -> None:
        """Do something at a call from here on."""
        self.calls, self.at, self.after, self.do = 0, at, after, do
        self.names = []
        self.do_cleaning = bool
        self.hanging.clear()
        self.released.clear()

    def hang(self) -> None:
        self.hanging.set()
        assert self.released.wait(60), "the test never released the call"

    def release(self) -> None:
        self.hanging.clear()
        self.released.set()


@pytest.fixture
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        server = Server(patch)
        yield server
        server.release()


@pytest.fixture
def store(make_store: MakeStore, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    store = make_store(timeout=60, thread_pool_size=4, file_perm=640)
    with pytest.MonkeyPatch.context() as patch:
        named = "named" in request.fixturenames and request.getfixturevalue("named")
        if named == "partial":
            patch.setattr(claim, "_has_proc", bool)
        elif named == "copied":
            patch.setattr(os, "link", no_link_without_a_name(os.link))
            # Each upload finds it out anew.
            finding = property(lambda _self: True, lambda _self, _value: None)
            patch.setattr(datadirs.DataDir, "unnamed_files", finding, raising=False)
        yield store
    nothing_is_left(store, tmp_path / "images")
    store._guard.close()
    wait_for(lambda: not any(t.name.startswith(POOL) for t in threading.enumerate()))


def no_link_without_a_name(link: Callable[..., None]) -> Callable[..., None]:
    def linked(source: str, *args: Any, **kwargs: Any) -> None:
        if source.startswith("/proc/"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(source, *args, **kwargs)

    linked.__name__ = link.__name__
    return linked


def descriptors(folder: Path) -> list[str]:
    """Return what this process has open in a folder."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if path.startswith(f"{folder}")]


def nothing_is_left(store: Store, folder: Path) -> None:
    """No image, no file on its way to be one, no descriptor, and nobody at work: soon."""
    crews = [workers._crew() for workers in (store._guard._workers, store._guard._cleaners)]
    wait_for(lambda: not any(crew.working or crew.tasks for crew in crews))
    wait_for(lambda: not listing(folder))
    wait_for(lambda: not descriptors(folder))


def nothing_is_left_for_the_collector(store: Store, folder: Path) -> None:
    """As `nothing_is_left`, once the collector has run, which takes long in a large process."""
    if descriptors(folder):
        gc.collect()
    nothing_is_left(store, folder)


def calls_of_an_upload(server: Server, store: Store) -> int:
    # The first looks more closely at the directory than those that follow.
    for _upload in range(2):
        server.arm(-1, False, bool)
        uri = put(store, "image", DATA)
        count = server.calls
        store.delete(locate(store, uri))
    assert count > 8
    return count


@NAMED
@AFTER
@pytest.mark.parametrize("cleaning", [False, True], ids=["clean-up-answers", "clean-up-hangs"])
def test_a_timeout_at_every_call(
    server: Server, store: Store, tmp_path: Path, named: str, after: bool, cleaning: bool
) -> None:
    for number in range(calls_of_an_upload(server, store)):
        server.arm(number, after, server.hang)
        if cleaning:
            server.do_cleaning = lambda: server.released.wait(60)
        with pytest.raises(exceptions.TimeoutError):
            put(store, "image", DATA)
        assert server.hanging.is_set()
        if not cleaning and not after and server.names[-1] != "unlink":
            # What does not hang is done at once: all but the link that is just being completed.
            wait_for(lambda: not listing(tmp_path / "images"))
        server.release()
        nothing_is_left(store, tmp_path / "images")
    store.delete(locate(store, put(store, "image", DATA)))


@NAMED
def test_an_answer_that_comes_when_another_has_the_name(
    server: Server, store: Store, tmp_path: Path, named: str
) -> None:
    """What the late call finds under the name is the image of the next try."""
    calls_of_an_upload(server, store)
    links = [number for number, name in enumerate(server.names) if name == "link"]
    server.arm(links[-1], True, server.hang)
    with pytest.raises(exceptions.TimeoutError):
        put(store, "image", DATA)
    wait_for(lambda: not listing(tmp_path / "images"))
    server.hanging.clear()
    server.at = None
    uri = put(store, "image", DATA[::-1])
    server.release()
    wait_for(lambda: not store._guard._workers._crew().working)
    assert fetch(store, uri) == DATA[::-1]
    store.delete(locate(store, uri))


@NAMED
@AFTER
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_an_interrupt_at_every_call(
    server: Server, store: Store, tmp_path: Path, named: str, after: bool, twice: bool
) -> None:
    signals = Signals()
    again: list[None] = []

    def interrupt_again() -> None:
        # Several threads may clean up at once.
        with contextlib.suppress(IndexError):
            again.pop()
            signals.interrupt()

    with signals:
        for number in range(calls_of_an_upload(server, store)):
            server.arm(number, after, signals.interrupt)
            if twice:
                again[:] = [None]
                server.do_cleaning = interrupt_again
            with pytest.raises(KeyboardInterrupt):
                put(store, "image", DATA)
            with contextlib.suppress(KeyboardInterrupt):
                nothing_is_left(store, tmp_path / "images")
            # That of clean-up may have come just then.
            nothing_is_left(store, tmp_path / "images")
        # The second interrupt may have come first, and the other call never.
        server.arm(-1, False, bool)
    store.delete(locate(store, put(store, "image", DATA)))


MODULES = [writer, draft, openfile, threads, upload]


@NAMED
@pytest.mark.parametrize("more", [(), (7,)], ids=str)
def test_an_interrupt_at_every_line(
    store: Store, tmp_path: Path, named: str, more: tuple[int, ...]
) -> None:
    number = 0
    while True:
        stored = None
        with contextlib.suppress(KeyboardInterrupt), Interrupts(MODULES, number, *more) as raised:
            stored = upload.upload([b"data"], store.open_writer("image", 4), Digests("sha256"), 4)
        if stored is not None:
            store.delete(locate(store, f"{store.url_prefix}/image"))
        # A task whose thread was not told of it is taken with the next.
        store._guard.cleanup(bool, wait=60)
        store._guard.call(bool)
        # An interrupt where a traceback is let go of leaves that to the collector.
        nothing_is_left_for_the_collector(store, tmp_path / "images")
        if not raised.raised:
            break
        number += 1
    assert number > 50


class Half:
    """A download that is half read, and that only the collector can let go of."""

    def __init__(self, store: Store, uri: str) -> None:
        self.chunks = store.get(locate(store, uri))[0]
        next(self.chunks)
        self.itself = self


@NAMED
@AFTER
def test_forks_and_garbage_at_every_call(
    server: Server, store: Store, tmp_path: Path, named: str, after: bool
) -> None:
    """On a thread of the pool, too, which the collector may run in."""

    def child() -> None:
        assert fetch(store, other) == DATA
        store.delete(locate(store, put(store, f"image of {os.getpid()}", DATA)))

    def fork_and_collect() -> None:
        gc.collect()
        in_a_child(child)

    for number in range(calls_of_an_upload(server, store)):
        server.arm(-1, after, bool)
        other = put(store, "other", DATA)
        for _half in range(3):
            Half(store, other)
        server.arm(number, after, fork_and_collect)
        uri = put(store, "image", DATA)
        assert fetch(store, uri) == DATA
        store.delete(locate(store, uri))
        store.delete(locate(store, other))
        nothing_is_left(store, tmp_path / "images")


@NAMED
def test_uploads_that_wait_for_a_slow_fsync(
    server: Server, store: Store, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve, and four threads: all fail, then nothing is left, and all can be tried again."""
    fsync, waiting = os.fsync, threading.Semaphore(0)
    outcomes: dict[int, object] = {}

    def slow(descriptor: int) -> None:
        if threading.current_thread().name == POOL and not server.released.is_set():
            waiting.release()
            assert server.released.wait(60)
        fsync(descriptor)

    def add(number: int) -> None:
        try:
            outcomes[number] = put(store, f"image {number}", DATA)
        except BaseException as exc:  # noqa: BLE001 - looked at below
            outcomes[number] = exc

    monkeypatch.setattr(os, "fsync", slow)
    uploads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in uploads:
        thread.start()
    for _thread in range(4):
        assert waiting.acquire(timeout=60), "the pool is not used up"
    server.hanging.set()
    for thread in uploads:
        thread.join(60)
        assert not thread.is_alive(), "an upload does not end in time"
    assert {type(outcome) for outcome in outcomes.values()} == {exceptions.TimeoutError}
    outcomes.clear()
    server.release()
    nothing_is_left(store, tmp_path / "images")
    for number in range(12):
        store.delete(locate(store, put(store, f"image {number}", DATA)))


def test_no_deadlock(store: Store, tmp_path: Path) -> None:
    """Uploads, failed ones, half-read downloads that the collector finds, and forks, side by side.

    The collector runs all the time, in whatever thread, whatever it is at.
    """
    uri = put(store, "other", DATA)
    failures: list[BaseException] = []

    class Failing:
        def read(self, _size: int) -> bytes:
            raise OSError("unplugged")

    def work(worker: int) -> None:
        try:
            for number in range(ROUNDS):
                Half(store, uri)
                name = f"image {worker} {os.getpid()}"
                if number % 3:
                    store.delete(locate(store, put(store, name, b"data")))
                else:
                    with pytest.raises(OSError, match="unplugged"):
                        store.add(name, Failing(), 0, "md5")
        except BaseException as exc:  # noqa: BLE001 - raised below
            failures.append(exc)

    def child() -> None:
        assert fetch(store, uri) == DATA
        name = f"image of {os.getpid()}"
        store.delete(locate(store, put(store, name, b"data")))
        Half(store, uri)
        gc.collect()

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(3)]
    before = gc.get_threshold()
    gc.set_threshold(random.Random(ROUNDS).randrange(20, 60), 2, 2)
    try:
        for thread in workers:
            thread.start()
        limit = time.monotonic() + 300 + ROUNDS
        while any(thread.is_alive() for thread in workers):
            in_a_child(child)
            workers[0].join(0.5)
            assert time.monotonic() < limit, "an upload or a download hangs"
    except BaseException:
        faulthandler.dump_traceback(all_threads=True)
        raise
    finally:
        gc.set_threshold(*before)
    assert failures == []
    gc.collect()
    store.delete(locate(store, uri))
    nothing_is_left(store, tmp_path / "images")
