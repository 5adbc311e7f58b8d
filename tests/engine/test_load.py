# SPDX-License-Identifier: Apache-2.0
"""Threads are for idle cores: uploads that keep all of them busy take none."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from glance_store.transfer import lanes, load
from glance_store.transfer import upload as upload_module
from glance_store.transfer.digest import Digests
from glance_store.transfer.upload import upload

from .interrupts import Interrupts
from .memory import BLOCK, MemoryWriter, Source, engine_threads, eventually, pattern


class Other:
    """A transfer of somebody else."""


OTHER = Other()


@pytest.fixture
def one_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cores: one more besides that of an upload."""
    monkeypatch.setattr(load, "cores", lambda: 2)


class Blocked:
    """A hash that lets go of its first block only when it is told to."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def update(self, _data: object) -> None:
        self.reached.set()
        assert self.go_on.wait(30)


class Watching(MemoryWriter):
    """Remembers how many threads of the engine there were at each write."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def write(self, offset: int, block: memoryview) -> None:
        self.threads.append(len(engine_threads()))
        super().write(offset, block)


def test_an_upload_beside_another_takes_no_threads(one_spare: None) -> None:
    data, verifier, other = pattern(6 * BLOCK), Blocked(), MemoryWriter()
    first = threading.Thread(target=upload, args=(Source(data), other, Digests("sha512", verifier)))
    first.start()
    try:
        assert verifier.reached.wait(30)
        # All but the verifier's have done what there is for them.
        assert eventually(lambda: len(engine_threads()) == 1)
        writer = Watching()
        result = upload(Source(data), writer, Digests("sha512"))
    finally:
        # Whatever has failed: other tests want no thread to be there.
        verifier.go_on.set()
        first.join()
    assert result.size == len(data)
    assert writer.content() == data
    assert writer.threads == [1] * 6
    assert other.content() == data
    assert load.LOAD.has_spare_core()


def test_an_upload_takes_threads_once_the_other_is_done(one_spare: None) -> None:
    data = pattern(6 * BLOCK)
    load.LOAD.enter(OTHER)

    class UntilTheThirdRead(Source):
        reads = 0

        def read(self, size: int) -> bytes:
            self.reads += 1
            if self.reads == 4:
                load.LOAD.leave(OTHER)
            return super().read(size)

    writer = Watching()
    upload(UntilTheThirdRead(data), writer, Digests("sha512"))
    assert writer.content() == data
    assert writer.threads[0] == 0
    assert writer.threads[-1] > 0


def test_writers_with_many_requests_in_flight_keep_their_threads(one_spare: None) -> None:
    load.LOAD.enter(OTHER)
    try:
        writer = Watching()
        writer.concurrency = 3
        upload(Source(pattern(6 * BLOCK)), writer, Digests("sha512"))
    finally:
        load.LOAD.leave(OTHER)
    assert min(writer.threads) > 0


@pytest.mark.parametrize("failing_write", [1, 3])
def test_a_failing_upload_beside_another_is_aborted(one_spare: None, failing_write: int) -> None:
    class Failing(MemoryWriter):
        writes_seen = 0

        def write(self, offset: int, block: memoryview) -> None:
            self.writes_seen += 1
            if self.writes_seen == failing_write:
                raise OSError("the disk is gone")
            super().write(offset, block)

    writer = Failing()
    load.LOAD.enter(OTHER)
    try:
        with pytest.raises(OSError, match="gone"):
            upload(Source(pattern(6 * BLOCK)), writer, Digests("sha512"))
    finally:
        load.LOAD.leave(OTHER)
    assert writer.aborts == 1


@pytest.mark.parametrize("blocks", [1, 4])
def test_an_upload_interrupted_at_any_line_is_not_at_work_for_ever(blocks: int) -> None:
    number = 0
    while True:
        with Interrupts([upload_module, lanes], number) as interrupts:
            try:
                upload(Source(pattern(blocks * BLOCK)), MemoryWriter(), Digests("sha512"))
            except KeyboardInterrupt:
                interrupts.stop()
        if load.LOAD._at_work:
            gc.collect()
        assert not load.LOAD._at_work, f"line {number}"
        if not interrupts.raised:
            break
        number += 1
    assert number > 20


def test_a_forked_process_begins_idle() -> None:
    load.LOAD.enter(OTHER)
    child = os.fork()
    if not child:
        os._exit(len(load.LOAD._at_work))
    load.LOAD.leave(OTHER)
    assert os.waitpid(child, 0)[1] == 0


def test_cores() -> None:
    assert load.cores() == len(os.sched_getaffinity(0))
