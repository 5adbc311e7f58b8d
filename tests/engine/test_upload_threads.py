# SPDX-License-Identifier: Apache-2.0
"""Threads of an upload: as many as needed, none that stays, and bounded memory between them."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator

import pytest

from glance_store.transfer.digest import Digests
from glance_store.transfer.upload import upload

from .memory import (
    BLOCK,
    PATIENCE,
    CallerBlocks,
    MemoryWriter,
    Source,
    Verifier,
    count_threads,
    engine_threads,
    eventually,
    pattern,
    wait,
)


@pytest.mark.parametrize("concurrency", [2, 3, 8])
def test_all_writes_are_in_flight_and_never_more(concurrency: int) -> None:
    """Each write waits until `concurrency` of them run, round after round."""
    data = pattern(4 * concurrency * BLOCK)
    all_of_them = threading.Barrier(concurrency)
    writer = MemoryWriter(
        concurrency=concurrency, on_write=lambda _number: all_of_them.wait(PATIENCE)
    )
    upload(io.BytesIO(data), writer, Digests("sha256"))
    writer.check_stored(data)
    assert writer.most_in_flight == concurrency
    assert len({write.thread for write in writer.writes}) == concurrency


def test_all_writes_are_in_flight_with_large_blocks() -> None:
    """Where the budget is as small as it gets."""
    block = 8 * 1024 * 1024
    all_of_them = threading.Barrier(4)
    writer = MemoryWriter(block, 4, on_write=lambda _number: all_of_them.wait(PATIENCE))
    upload([bytes(block) for _number in range(4)], writer, Digests("md5"))
    assert writer.most_in_flight == 4


@pytest.mark.parametrize("holes", [False, True])
def test_one_at_a_time_is_in_order(holes: bool) -> None:
    data = pattern(200 * BLOCK)
    writer = MemoryWriter(concurrency=1, holes=holes)
    upload(Source(data, portions=[1000, 3, BLOCK]), writer, Digests("sha256"))
    writer.check_stored(data)
    assert [write.offset for write in writer.writes] == list(range(0, len(data), BLOCK))
    assert writer.most_in_flight == 1
    assert len({write.thread for write in writer.writes}) == 1


def test_the_digests_do_not_wait_for_each_other() -> None:
    """A verifier that lags behind keeps nobody but the reader of the source waiting."""
    data = pattern(4 * BLOCK)
    written = threading.Event()

    class Slow(Verifier):
        def update(self, data: bytes) -> None:
            if not self.updates:
                wait(written)
            super().update(data)

    verifier = Slow()
    writer = MemoryWriter(on_write=lambda number: written.set() if number == 3 else None)
    upload(io.BytesIO(data), writer, Digests("sha256", verifier), budget=5)
    writer.check_stored(data)
    assert verifier.data == data


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK])
@pytest.mark.parametrize("declared", [False, True])
def test_no_thread_for_one_block(size: int, declared: bool) -> None:
    writer = MemoryWriter(concurrency=8)
    with count_threads() as started:
        upload(
            io.BytesIO(pattern(size)),
            writer,
            Digests("sha256", Verifier()),
            size if declared else 0,
        )
    assert started == []
    assert {write.thread for write in writer.writes} <= {threading.current_thread()}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_threads_of_more_than_a_block(concurrency: int) -> None:
    """One for each digest and the verifier, the others write; all have ended."""
    writer = MemoryWriter(concurrency=concurrency)
    with count_threads() as started:
        upload(io.BytesIO(pattern(BLOCK + 1)), writer, Digests("sha256", Verifier()))
    assert len(started) == 3 + concurrency
    assert all(thread.name.startswith("glance_store-") and thread.daemon for thread in started)
    assert not any(thread.is_alive() for thread in started)
    assert threading.current_thread() not in {write.thread for write in writer.writes}


@pytest.mark.parametrize("blocks", [1, 20])
def test_the_source_is_read_by_the_caller_alone(blocks: int) -> None:
    source = Source(pattern(blocks * BLOCK))
    upload(source, MemoryWriter(concurrency=4), Digests("sha256"))
    assert source.threads == {threading.current_thread()}


def test_commit_and_abort_are_called_by_the_caller() -> None:
    """Many a backend's handle may be closed by the thread that opened it only."""
    threads: list[threading.Thread] = []

    class Recorder(MemoryWriter):
        def commit(self, size: int) -> None:
            threads.append(threading.current_thread())
            raise OSError

        def abort(self) -> None:
            threads.append(threading.current_thread())

    with pytest.raises(OSError, match=r"^$"):
        upload(io.BytesIO(pattern(4 * BLOCK)), Recorder(), Digests("md5"))
    assert threads == [threading.current_thread()] * 2


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("budget", [2, 3, 7])
def test_the_source_is_read_no_further_than_the_budget(budget: int, concurrency: int) -> None:
    """All writers stand still until the caller waits for room: so much has it read by then."""
    ahead: list[int] = []  # blocks asked for and not yet stored, at each read
    source = Source(
        pattern(30 * BLOCK),
        on_read=lambda number: ahead.append(number + 1 - writer.completed),
    )
    caller = CallerBlocks(lambda: len(source.lengths))
    writer = MemoryWriter(concurrency=concurrency, on_write=lambda _number: wait(caller.blocked))
    with caller.watch():
        upload(source, writer, Digests("sha256"), budget=budget)
    assert caller.notes[0] == budget
    assert max(ahead) == budget
    writer.check_stored(pattern(30 * BLOCK))


@pytest.mark.parametrize("budget", [0, 1])
def test_two_blocks_are_the_least(budget: int) -> None:
    """Whether an image fits one block shows with the second."""
    writer = MemoryWriter()
    ahead: list[int] = []
    source = Source(
        pattern(9 * BLOCK), on_read=lambda number: ahead.append(number + 1 - writer.completed)
    )
    upload(source, writer, Digests("sha256"), budget=budget)
    writer.check_stored(pattern(9 * BLOCK))
    assert max(ahead) <= 2


def shared(blocks: list[bytes]) -> list[int]:
    """Return the numbers of the blocks that somebody else than the list holds."""
    sample = [pattern(BLOCK)]
    alone = sys.getrefcount(sample[0])
    return [number for number in range(len(blocks)) if sys.getrefcount(blocks[number]) > alone]


def test_a_block_is_let_go_when_it_is_stored() -> None:
    """At the last write all but the last blocks are in nobody's hands any more."""
    count, budget = 12, 3
    blocks = [pattern(BLOCK + number)[:BLOCK] for number in range(count)]
    held: list[list[int]] = []

    def on_write(number: int) -> None:
        if number == count - 1:
            held.append(shared(blocks))

    assert shared(blocks) == []
    upload(iter(blocks), MemoryWriter(on_write=on_write), Digests("md5"), budget=budget)
    # `budget` may be on their way, and a thread may just be putting one more down.
    assert set(held[0]) <= set(range(count - budget - 1, count))
    assert count - 1 in held[0]


def test_a_thread_that_waits_for_work_holds_no_block() -> None:
    """As when the source is slow: many threads would hold as many blocks, outside the budget."""
    blocks = [pattern(BLOCK + number)[:BLOCK] for number in range(12)]
    let_go: list[bool] = []

    def source() -> Iterator[bytes]:
        for number in range(12):
            if number == 6:
                let_go.append(eventually(lambda: not shared(blocks)))
            yield blocks[number]

    upload(source(), MemoryWriter(concurrency=3), Digests("sha256", Verifier()))
    assert let_go == [True]


def test_blocks_are_let_go_when_an_upload_has_failed() -> None:
    """An exception may live long, in a log or a test; the data may not live as long."""
    blocks = [pattern(BLOCK + number)[:BLOCK] for number in range(12)]
    caller = CallerBlocks()
    writer = MemoryWriter(
        failures={0: OSError("broken")}, on_write=lambda _number: wait(caller.blocked)
    )
    with caller.watch(), pytest.raises(OSError, match="broken") as caught:
        upload(iter(blocks), writer, Digests("md5"), budget=8)
    # The thread that failed is in the traceback, with the block that it had in hand.
    assert len(shared(blocks)) <= 1
    del caught


def test_threads_are_gone_after_a_failure() -> None:
    writer = MemoryWriter(concurrency=4, failures={3: OSError("broken")})
    with count_threads() as started, pytest.raises(OSError, match="broken"):
        upload(io.BytesIO(pattern(20 * BLOCK)), writer, Digests("sha256", Verifier()))
    assert len(started) == 7
    assert engine_threads() == []
