# SPDX-License-Identifier: Apache-2.0
"""However a download from streams ends: what was right is delivered, and all is let go of."""

from __future__ import annotations

import gc
import threading
from unittest import mock

import pytest

from glance_store import exceptions
from glance_store.transfer import streams
from glance_store.transfer.download import Download

from .memory import PATIENCE, CallerBlocks, collect, count_threads, engine_threads, pattern, wait
from .streaming import (
    CHUNK,
    FAST,
    FIRST,
    RANGE,
    SIZE,
    SLOW,
    THREADS,
    Clock,
    StreamingMemoryReader,
    ticking,
    wait_for_end,
)

BOTH = pytest.mark.parametrize("alone", [FAST, SLOW], ids=["one", "several"])


# Within a range and at the beginning of one; side by side the ranges begin at FIRST, and every 32.
@BOTH
@pytest.mark.parametrize("at", [0, FIRST, 5 * FIRST, 300, SIZE - 1])
@pytest.mark.parametrize("error", [OSError("cut"), SystemExit(3)], ids=repr)
def test_a_stream_breaks_off(at: int, alone: float, error: BaseException) -> None:
    """What came before is delivered; then the error itself; then nothing more."""
    data, delivered = pattern(SIZE), []
    with ticking(alone) as clock:
        reader = StreamingMemoryReader(
            data, THREADS, range_size=RANGE, breaks={at: [error]}, on_data=clock.spend
        )
        download = Download(reader)
        with pytest.raises(type(error)) as caught:
            collect(clock.consume(download), delivered)
    assert caught.value is error
    assert b"".join(delivered) == data[:at]
    reader.check_closed()
    assert list(download) == []


@BOTH
@pytest.mark.parametrize("at", [0, FIRST, 5 * FIRST])
def test_a_stream_cannot_be_opened(at: int, alone: float) -> None:
    data, error, delivered = pattern(SIZE), OSError("refused"), []
    with ticking(alone) as clock:
        reader = StreamingMemoryReader(
            data, THREADS, range_size=RANGE, refusals={at: [error]}, on_data=clock.spend
        )
        with pytest.raises(OSError, match="refused") as caught:
            collect(clock.consume(Download(reader)), delivered)
    assert caught.value is error
    assert b"".join(delivered) == data[:at]
    reader.check_closed()


@BOTH
@pytest.mark.parametrize("end", [0, 10, FIRST, 300, SIZE - 1])
def test_a_truncated_image(end: int, alone: float) -> None:
    data, delivered = pattern(SIZE)[:end], []
    with ticking(alone) as clock:
        reader = StreamingMemoryReader(
            data, THREADS, range_size=RANGE, size=SIZE, on_data=clock.spend
        )
        with pytest.raises(exceptions.TruncatedImage, match=f"byte {end} of {SIZE}"):
            collect(clock.consume(Download(reader)), delivered)
    assert b"".join(delivered) == data
    reader.check_closed()


@BOTH
@pytest.mark.parametrize("at", [0, FIRST, 300])
def test_a_read_returns_too_much(at: int, alone: float) -> None:
    data, delivered = pattern(SIZE), []
    with ticking(alone) as clock:
        reader = StreamingMemoryReader(
            data, THREADS, range_size=RANGE, surplus_at=at, on_data=clock.spend
        )
        with pytest.raises(exceptions.BackendException, match="5 bytes, but only 4 were requested"):
            collect(clock.consume(Download(reader)), delivered)
    assert b"".join(delivered) == data[:at]
    reader.check_closed()


def opened(alone: float, consumed: int, clock: Clock) -> tuple[Download, StreamingMemoryReader]:
    """Return a download of which a number of chunks has been taken, and its reader."""
    data = pattern(SIZE)
    reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=clock.spend)
    download = Download(reader)
    chunks = clock.consume(download)
    taken = b"".join(next(chunks) for _number in range(consumed))
    assert taken == data[: consumed * CHUNK]
    return download, reader


# Of the first request, its last chunk, of what comes then, all but the last chunk, all.
CONSUMED = pytest.mark.parametrize("consumed", [0, 1, 8, 9, 60, SIZE // CHUNK - 1, SIZE // CHUNK])


@BOTH
@CONSUMED
def test_an_early_close(consumed: int, alone: float) -> None:
    with ticking(alone) as clock:
        download, reader = opened(alone, consumed, clock)
        # Whoever has the last bytes may remove the image at once.
        assert bool(reader.closes) == (consumed == SIZE // CHUNK)
        download.close()
    reader.check_closed()
    assert bool(reader.ranges(beside=True)) == (alone == SLOW and consumed > 8)
    assert engine_threads() == []
    assert list(download) == []
    download.close()
    reader.check_closed()


@BOTH
@CONSUMED
def test_thrown_away(consumed: int, alone: float) -> None:
    with ticking(alone) as clock:
        download, reader = opened(alone, consumed, clock)
        threads = engine_threads()
        del download
        wait(reader.closed)
        wait_for_end(threads)
    reader.check_closed()


def test_thrown_away_in_a_cycle() -> None:
    gc.collect()
    gc.disable()
    try:
        with ticking(SLOW) as clock:
            download, reader = opened(SLOW, 9, clock)
            threads = engine_threads()
            cycle: list[object] = [download]
            cycle.append(cycle)
            del download, cycle
            assert not reader.closes
            gc.collect()
    finally:
        gc.enable()
    wait(reader.closed)
    wait_for_end(threads)
    reader.check_closed()


def test_close_waits_for_the_reads_of_the_threads() -> None:
    in_flight, go_on = threading.Barrier(THREADS + 1), threading.Event()

    def on_read(offset: int) -> None:
        # All but the first read of the engine's threads.
        if offset > FIRST:
            in_flight.wait(PATIENCE)
            wait(go_on)

    with ticking(SLOW) as clock:
        reader = StreamingMemoryReader(
            pattern(SIZE), THREADS, range_size=RANGE, on_read=on_read, on_data=clock.spend
        )
        download = Download(reader)
        chunks = clock.consume(download)
        for _number in range(FIRST // CHUNK + 1):
            next(chunks)
        in_flight.wait(PATIENCE)
        caller = CallerBlocks()

        def close() -> None:
            with caller.watch():
                download.close()

        closer = threading.Thread(target=close)
        closer.start()
        wait(caller.blocked)
        assert reader.in_flight == THREADS
        assert not reader.closes
        go_on.set()
        wait_for_end([closer])
    reader.check_closed()
    assert len(reader.ranges(beside=True)) == THREADS


def test_close_while_another_thread_reads_the_only_stream() -> None:
    """It does not wait; the stream is let go of when the other thread has what it waits for."""
    reading, go_on = threading.Event(), threading.Event()
    data, delivered = pattern(SIZE), []

    def on_read(offset: int) -> None:
        if offset == 2 * CHUNK:
            reading.set()
            wait(go_on)

    reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_read=on_read)
    download = Download(reader)
    consumer = threading.Thread(target=collect, args=(download, delivered))
    consumer.start()
    wait(reading)
    try:
        download.close()
        assert reader.closes == 1
    finally:
        go_on.set()
        wait_for_end([consumer])
    assert b"".join(delivered) in (data[: 2 * CHUNK], data[: 3 * CHUNK])
    assert len(reader.streams) == 1
    assert reader.streams[0].closed
    assert reader.closes == 1


def test_close_while_another_thread_waits_for_several() -> None:
    reading, go_on = threading.Barrier(THREADS + 1), threading.Event()
    delivered: list[bytes] = []
    errors: list[BaseException] = []

    def on_read(offset: int) -> None:
        if offset >= FIRST:
            reading.wait(PATIENCE)
            wait(go_on)

    def consume() -> None:
        try:
            with caller.watch():
                collect(clock.consume(download), delivered)
        except BaseException as exc:  # noqa: BLE001 - it is looked at below
            errors.append(exc)

    caller = CallerBlocks()
    with ticking(SLOW) as clock:
        reader = StreamingMemoryReader(
            pattern(SIZE), THREADS, range_size=RANGE, on_read=on_read, on_data=clock.spend
        )
        download = Download(reader)
        consumer = threading.Thread(target=consume)
        consumer.start()
        reading.wait(PATIENCE)
        wait(caller.blocked)
        closer = threading.Thread(target=download.close)
        closer.start()
        # It ends at once; whoever closes waits for the reads.
        wait_for_end([consumer])
        go_on.set()
        wait_for_end([closer])
    assert errors == []
    assert b"".join(delivered) == pattern(SIZE)[:FIRST]
    assert len(reader.streams) == 1 + THREADS
    reader.check_closed()


@BOTH
def test_close_between_two_requests(alone: float) -> None:
    """While another thread is about to begin the next ones."""
    ending, go_on = threading.Event(), threading.Event()
    data, delivered, errors = pattern(SIZE), [], []

    def on_release(_offset: int) -> None:
        ending.set()
        wait(go_on)

    def consume() -> None:
        try:
            collect(clock.consume(download), delivered)
        except BaseException as exc:  # noqa: BLE001 - it is looked at below
            errors.append(exc)

    with ticking(alone) as clock:
        reader = StreamingMemoryReader(
            data, THREADS, range_size=RANGE, on_data=clock.spend, on_release=on_release
        )
        download = Download(reader)
        consumer = threading.Thread(target=consume)
        with count_threads() as started:
            consumer.start()
            wait(ending)
            download.close()
            go_on.set()
            wait_for_end([consumer])
        try:
            assert started[1:] == []
            assert errors == []
            assert b"".join(delivered) == data[:FIRST]
            assert len(reader.streams) == 1
            assert reader.closes == 1
        finally:
            # Threads that run all the same are not left to other tests.
            if started[1:]:
                download._ahead.stop(wait=True)


@pytest.mark.parametrize("number", range(THREADS))
def test_close_while_threads_are_started(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler may: those that run end, the reader is closed once."""
    start, started = threading.Thread.start, []

    def interrupted(thread: threading.Thread) -> None:
        if len(started) == number:
            download.close()
        started.append(thread)
        start(thread)

    with ticking(SLOW) as clock, monkeypatch.context() as patch:
        download, reader = opened(SLOW, FIRST // CHUNK, clock)
        patch.setattr(threading.Thread, "start", interrupted)
        assert b"".join(download) in (b"", pattern(SIZE)[FIRST : FIRST + CHUNK])
    wait_for_end(started)
    reader.check_closed()


@pytest.mark.parametrize("call", range(5))
def test_close_between_two_reads(call: int) -> None:
    """As a signal handler may: nothing is delivered that does not follow, nothing is asked for."""
    data, calls = pattern(SIZE), 0

    class Interrupting(Clock):
        def perf_counter(self) -> float:
            nonlocal calls
            calls += 1
            if calls == call + 1:
                download.close()
            return super().perf_counter()

    reader = StreamingMemoryReader(data, THREADS, range_size=RANGE)
    download = Download(reader)
    with mock.patch.object(streams, "time", Interrupting(FAST, FAST)):
        delivered = b"".join(download)
    assert len(delivered) <= 3 * CHUNK
    assert data.startswith(delivered)
    assert len(reader.streams) <= 1
    reader.check_closed()
