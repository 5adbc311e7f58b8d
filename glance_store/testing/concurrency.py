# SPDX-License-Identifier: Apache-2.0
"""Several threads, several processes, and the end of the main thread."""

from __future__ import annotations

import concurrent.futures.thread
import functools
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable

import pytest

from glance_store import exceptions
from glance_store.capabilities import BitMasks
from glance_store.driver import Store
from glance_store.testing.inputs import Source, check_bytes, image, succeeded, together
from glance_store.testing.kit import RANGES, WRITE, Kit, needs, touches

THREADS = 6
# Seconds a store may take to refuse an upload, and a child process for all its work.
_PATIENCE = 60


def in_a_child(work: Callable[[], object]) -> None:
    """Call a function in a child process; if it fails there, fail with its traceback."""
    end, start = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns about forking with threads, but that is what we test.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        report = ""
        try:
            # End a child that hangs.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_PATIENCE)
            work()
        except BaseException:  # noqa: BLE001 - the parent shows it
            report = traceback.format_exc()
        finally:
            os.write(start, report.encode()[-4000:])
            os._exit(1 if report else 0)
    os.close(start)
    with open(end, "rb") as pipe:
        shown = pipe.read().decode(errors="replace")
    _child, status = os.waitpid(child, 0)
    if status:
        pytest.fail(f"In a child process (status {os.waitstatus_to_exitcode(status)}):\n{shown}")


@touches("locking")
class Concurrency(Kit):
    """Concurrent readers and writers, and processes that fork."""

    def _shared(self) -> Callable[[], Store]:
        """Return a function that gives each thread its store: a shared one if that is allowed."""
        if self.store.is_capable(BitMasks.DRIVER_REUSABLE):
            return lambda: self.store
        return self.new_store

    def test_readers_of_one_image(self) -> None:
        """Many threads read the same image, and each gets all of it."""
        data = image(3 * self.block_size + 7)
        uri = self.place(data)
        store = self._shared()
        for found in succeeded(together(*[lambda: self.read(uri, store())] * THREADS)):
            check_bytes(found, data)

    @needs(RANGES)
    def test_readers_of_ranges(self) -> None:
        """Many threads read different parts of the same image."""
        data = image(THREADS * self.block_size)
        uri = self.place(data)
        store = self._shared()
        readers = [
            functools.partial(
                lambda start: self.read(uri, store(), offset=start, chunk_size=self.block_size),
                number * self.block_size,
            )
            for number in range(THREADS)
        ]
        check_bytes(b"".join(succeeded(together(*readers))), data)

    def test_interleaved_downloads(self) -> None:
        """Downloads read in turn on one thread do not affect each other."""
        size = max(3 * self.block_size, 2 * self.store.read_size) + 7
        images = [image(size, seed=number) for number in range(2)]
        downloads = [self.get(self.place(data))[0] for data in images]
        found = [bytearray(), bytearray()]
        open_ones = {0, 1}
        while open_ones:
            for number in sorted(open_ones):
                chunk = self.call(next, downloads[number], None)
                if chunk is None:
                    open_ones.remove(number)
                else:
                    found[number] += chunk
        for number in (0, 1):
            check_bytes(bytes(found[number]), images[number])

    @needs(WRITE)
    def test_writers(self) -> None:
        """Many threads store images at the same time."""
        images = [image(2 * self.block_size + 7, seed=number) for number in range(THREADS)]
        store = self._shared()
        writers = [
            functools.partial(lambda data: self.add(self.new_id(), data, store=store()), data)
            for data in images
        ]
        for uri, data in zip(succeeded(together(*writers)), images, strict=True):
            check_bytes(self.read(uri), data)

    @touches("account", "locking")
    @needs(WRITE)
    def test_readers_and_writers(self) -> None:
        """Some threads read while others store."""
        old = image(3 * self.block_size + 7)
        uri = self.place(old)
        store = self._shared()
        images = [image(2 * self.block_size + 7, seed=number) for number in range(3)]

        def write(data: bytes) -> bool:
            check_bytes(self.read(self.add(self.new_id(), data, store=store())), data)
            return True

        def read() -> bool:
            check_bytes(self.read(uri, store()), old)
            return True

        writers = [functools.partial(write, data) for data in images]
        assert all(succeeded(together(*writers, read, read, read)))

    @touches("layout", "wire", "locking")
    @needs(WRITE)
    @pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
    def test_race_for_one_id(self, known: bool) -> None:
        """Of several uploads with one id, exactly one succeeds; the others get `Duplicate`."""
        image_id = self.new_id()
        images = [image(2 * self.block_size + 7, seed=number) for number in range(4)]
        store = self._shared()
        before = sorted(self.listing())

        def write(data: bytes) -> tuple[str, bytes]:
            return self.add(image_id, data, len(data) if known else 0, store()), data

        results = together(*[functools.partial(write, data) for data in images])
        winners = [result for result in results if not isinstance(result, BaseException)]
        losers = [type(result) for result in results if isinstance(result, BaseException)]
        assert losers == [exceptions.Duplicate] * 3
        uri, data = winners[0]
        check_bytes(self.read(uri), data)
        self.delete(uri)
        assert sorted(self.listing()) == before

    @touches("layout", "wire", "locking")
    @needs(WRITE)
    def test_upload_that_overtakes_another(self) -> None:
        """Of an upload and a faster one with the same id during it, exactly one succeeds."""
        image_id = self.new_id()
        size = 3 * self.block_size + 7
        slow, quick = image(size, seed=1), image(size, seed=2)
        overtaking: list[str | BaseException] = []
        store = self._shared()

        def add_quick() -> None:
            try:
                overtaking.append(self.add(image_id, quick, store=store()))
            except BaseException as exc:  # noqa: BLE001 - looked at below
                overtaking.append(exc)

        thread = threading.Thread(target=add_quick, daemon=True)

        def overtake(position: int) -> None:
            if position >= self.block_size and thread.ident is None:
                thread.start()
                # A store may make the second upload wait for the first.
                thread.join(_PATIENCE)

        before = sorted(self.listing())
        try:
            uri, winner = self.add(image_id, Source(slow, before_read=overtake), size), slow
        except exceptions.Duplicate:
            thread.join()
            assert isinstance(overtaking[0], str), "no upload was stored"
            uri, winner = overtaking[0], quick
        else:
            thread.join()
            assert isinstance(overtaking[0], exceptions.Duplicate)
        check_bytes(self.read(uri), winner)
        self.delete(uri)
        assert sorted(self.listing()) == before

    @touches("account", "locking")
    def test_read_after_fork(self) -> None:
        """After a fork, a store in use can read in the child and still in the parent."""
        data = image(2 * self.block_size + 7)
        uri = self.place(data)
        check_bytes(self.read(uri), data)
        in_a_child(lambda: check_bytes(self.read(uri), data))
        check_bytes(self.read(uri), data)

    @touches("account", "locking")
    @needs(WRITE)
    def test_write_after_fork(self) -> None:
        """After a fork, a store in use can write in the child and still in the parent."""
        data = image(2 * self.block_size + 7)
        uri = self.add(self.new_id(), data)

        def work() -> None:
            new = image(2 * self.block_size + 7, seed=1)
            new_uri = self.add(self.new_id(), new)
            check_bytes(self.read(new_uri), new)
            self.delete(new_uri)

        with self.leaving_nothing():
            in_a_child(work)
        check_bytes(self.read(uri), data)
        check_bytes(self.read(self.add(self.new_id(), data)), data)

    @touches("layout")
    @needs(WRITE)
    def test_when_the_main_thread_has_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A store works after the main thread has ended: glance-scrubber deletes images then.

        The executors of the standard library no longer accept calls at that point.
        """
        monkeypatch.setattr(concurrent.futures.thread, "_shutdown", True)
        with pytest.raises(RuntimeError), concurrent.futures.ThreadPoolExecutor() as executor:
            executor.submit(int)
        data = image(5 * self.block_size + 7)
        with self.leaving_nothing():
            uri = self.add(self.new_id(), data)
            check_bytes(self.read(uri), data)
            self.delete(uri)
            with pytest.raises(exceptions.NotFound):
                self.size(uri)
