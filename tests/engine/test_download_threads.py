# SPDX-License-Identifier: Apache-2.0
"""Read-ahead: in flight as many reads as wanted, in order, bounded; and nothing stays behind."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.transfer.download import Download
from glance_store.transfer.interface import Extent

from .memory import (
    PATIENCE,
    CallerBlocks,
    MemoryReader,
    count_threads,
    engine_threads,
    eventually,
    pattern,
    wait,
)

CHUNK = 16
CONCURRENCIES = pytest.mark.parametrize("concurrency", [1, 2, 5])


def wait_for_end(threads: list[threading.Thread]) -> None:
    """Wait for threads that nobody else waits for."""
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("concurrency", [2, 3, 8])
def test_all_reads_are_in_flight_and_never_more(concurrency: int) -> None:
    """Each read waits until `concurrency` of them run, round after round."""
    data = pattern(4 * concurrency * CHUNK)
    all_of_them = threading.Barrier(concurrency)
    reader = MemoryReader(data, concurrency, on_read=lambda _offset: all_of_them.wait(PATIENCE))
    assert b"".join(Download(reader, chunk_size=CHUNK)) == data
    assert reader.most_in_flight == concurrency
    assert threading.current_thread() not in reader.threads
    reader.check_closed()


@pytest.mark.parametrize("concurrency", [2, 4])
def test_reads_that_end_in_reverse_are_delivered_in_order(concurrency: int) -> None:
    """Of each round the last read ends first: every other waits for its successor."""
    data = pattern(3 * concurrency * CHUNK)
    ends = [threading.Event() for _number in range(3 * concurrency)]
    order: list[int] = []

    class Reverse(MemoryReader):
        def read_at(self, offset: int, length: int) -> bytes:
            number = offset // CHUNK
            if (number + 1) % concurrency:
                wait(ends[number + 1])
            piece = super().read_at(offset, length)
            order.append(number)
            ends[number].set()
            return piece

    assert b"".join(Download(Reverse(data, concurrency), chunk_size=CHUNK)) == data
    assert order[:concurrency] == list(reversed(range(concurrency)))


@pytest.mark.parametrize("concurrency", [2, 3, 8])
def test_the_window_is_full_and_no_wider(concurrency: int) -> None:
    """A consumer that stands still finds as many pieces read ahead, and never more."""
    data = pattern(40 * CHUNK)
    asked = 0  # how many chunks the consumer has asked for
    excess: list[int] = []
    full = [threading.Event() for _number in range(41)]

    def on_read(_offset: int) -> None:
        started = len(reader.reads)
        full[started].set()
        if started > asked + concurrency:
            excess.append(started)

    reader = MemoryReader(data, concurrency, on_read=on_read)
    download = Download(reader, chunk_size=CHUNK)
    chunks = []
    while True:
        asked += 1
        chunk = next(download, None)
        if chunk is None:
            break
        chunks.append(chunk)
        wait(full[min(asked + concurrency, 40)])
    assert b"".join(chunks) == data
    assert excess == []
    assert reader.most_in_flight <= concurrency


@pytest.mark.parametrize(
    ("concurrency", "size", "offset", "length"),
    [
        (1, 9 * CHUNK, 0, None),
        (5, CHUNK, 0, None),
        (5, 1, 0, None),
        (5, 0, 0, None),
        (5, 9 * CHUNK, 8 * CHUNK, None),
        (5, 9 * CHUNK, 3, CHUNK),
        (5, 9 * CHUNK, 9 * CHUNK, None),
    ],
)
def test_no_thread_where_none_helps(
    concurrency: int, size: int, offset: int, length: int | None
) -> None:
    data = pattern(size)
    stop = size if length is None else offset + length
    reader = MemoryReader(data, concurrency)
    with count_threads() as started:
        assert b"".join(Download(reader, offset, length, CHUNK)) == data[offset:stop]
    assert started == []
    assert reader.threads <= {threading.current_thread()}


def test_no_thread_for_an_unknown_size() -> None:
    with count_threads() as started:
        list(Download(MemoryReader(pattern(90), 5, size=None), chunk_size=CHUNK))
    assert started == []


def test_no_thread_before_the_first_chunk_is_asked_for() -> None:
    reader = MemoryReader(pattern(90), 5)
    with count_threads() as started:
        download = Download(reader, chunk_size=CHUNK)
        assert started == []
        next(download)
        assert 1 < len(started) <= 5
        assert all(thread.name.startswith("glance_store-") and thread.daemon for thread in started)
        download.close()


@CONCURRENCIES
@pytest.mark.parametrize("consumed", [0, 1, 3, 6])
def test_an_early_close(consumed: int, concurrency: int) -> None:
    data = pattern(6 * CHUNK)
    reader = MemoryReader(data, concurrency)
    download = Download(reader, chunk_size=CHUNK)
    assert [next(download) for _number in range(consumed)] == [
        data[at : at + CHUNK] for at in range(0, consumed * CHUNK, CHUNK)
    ]
    # Whoever has the last bytes may remove the image at once.
    assert bool(reader.closes) == (consumed == 6)
    download.close()
    reader.check_closed()
    assert engine_threads() == []
    download.close()
    assert list(download) == []
    reader.check_closed()


def blocked_download(consumed: int = 1) -> tuple[Download, MemoryReader, threading.Event]:
    """Return a download with all later reads in flight, which wait for the event."""
    go_on = threading.Event()
    in_flight = threading.Barrier(3)

    def on_read(offset: int) -> None:
        if offset >= consumed * CHUNK:
            in_flight.wait(PATIENCE)
            wait(go_on)

    reader = MemoryReader(pattern(40 * CHUNK), 2, on_read=on_read)
    download = Download(reader, chunk_size=CHUNK)
    for _number in range(consumed):
        next(download)
    in_flight.wait(PATIENCE)
    return download, reader, go_on


def test_close_waits_for_the_reads_in_flight() -> None:
    download, reader, go_on = blocked_download()
    caller = CallerBlocks()

    def close() -> None:
        with caller.watch():
            download.close()

    closer = threading.Thread(target=close)
    closer.start()
    wait(caller.blocked)
    assert reader.in_flight == 2
    assert not reader.closes
    go_on.set()
    wait_for_end([closer])
    reader.check_closed()
    assert len(reader.reads) == 3
    assert engine_threads() == []


def test_a_download_thrown_away_does_not_wait_for_its_reads() -> None:
    """The collector may run in any thread; the last read closes the reader."""
    download, reader, go_on = blocked_download()
    threads = engine_threads()
    del download
    assert not reader.closes
    go_on.set()
    wait(reader.closed)
    wait_for_end(threads)
    reader.check_closed()
    assert len(reader.reads) == 3


@CONCURRENCIES
@pytest.mark.parametrize("size", [0, CHUNK, 6 * CHUNK])
def test_never_iterated_and_thrown_away(size: int, concurrency: int) -> None:
    reader = MemoryReader(pattern(size), concurrency)
    with count_threads() as started:
        download = Download(reader, chunk_size=CHUNK)
        del download
    assert started == []
    reader.check_closed()
    assert reader.reads == []


@CONCURRENCIES
@pytest.mark.parametrize("consumed", [1, 5, 6])
def test_thrown_away_half_way(consumed: int, concurrency: int) -> None:
    reader = MemoryReader(pattern(6 * CHUNK), concurrency)
    download = Download(reader, chunk_size=CHUNK)
    for _number in range(consumed):
        next(download)
    threads = engine_threads()
    del download
    wait_for_end(threads)
    reader.check_closed()


@CONCURRENCIES
@pytest.mark.parametrize("consumed", [0, 1, 5])
def test_thrown_away_in_a_cycle(consumed: int, concurrency: int) -> None:
    class Response:
        def __init__(self, body: Any) -> None:
            self.body = body
            self.myself = self

    reader = MemoryReader(pattern(6 * CHUNK), concurrency)
    response = Response(Download(reader, chunk_size=CHUNK))
    gc.collect()
    gc.disable()
    try:
        for _number in range(consumed):
            next(response.body)
        threads = engine_threads()
        del response
        assert not reader.closes
        gc.collect()
    finally:
        gc.enable()
    wait(reader.closed)
    wait_for_end(threads)
    reader.check_closed()


def test_collected_by_a_thread_of_its_own() -> None:
    """The collector runs in any thread that allocates, also in one that holds the lock."""
    thrown_away, collected = threading.Event(), threading.Event()

    class Collecting(MemoryReader):
        def extents(self, offset: int, length: int) -> Any:
            yield Extent(offset, 2 * CHUNK, True)
            # The third piece is asked for once the first is delivered, under the engine's lock.
            wait(thrown_away)
            gc.collect()
            collected.set()
            yield Extent(offset + 2 * CHUNK, length - 2 * CHUNK, True)

    reader = Collecting(pattern(20 * CHUNK), 2)
    holder: dict[str, Any] = {"download": Download(reader, chunk_size=CHUNK)}
    holder["myself"] = holder
    gc.disable()
    try:
        next(holder["download"])
        threads = engine_threads()
        del holder
        thrown_away.set()
        wait(collected)
    finally:
        gc.enable()
    wait(reader.closed)
    wait_for_end(threads)
    reader.check_closed()


def test_an_exhausted_download_leaves_no_thread() -> None:
    reader = MemoryReader(pattern(90), 5)
    download = Download(reader, chunk_size=CHUNK)
    with count_threads() as started:
        list(download)
    # They have been told to end, and nobody waits for them.
    assert eventually(lambda: not any(thread.is_alive() for thread in started))
    reader.check_closed()


@pytest.mark.parametrize("number", range(4))
def test_threads_cannot_be_started(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(started) == number:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    reader = MemoryReader(pattern(6 * CHUNK), 4)
    download = Download(reader, chunk_size=CHUNK)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        if number:
            # Those that run read all of it.
            assert b"".join(download) == pattern(6 * CHUNK)
        else:
            with pytest.raises(exceptions.BackendUnavailable, match="can't start"):
                next(download)
    assert eventually(lambda: not any(thread.is_alive() for thread in started))
    reader.check_closed()


def test_an_interrupt_at_the_start_of_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread runs all the same: the reader is closed once, when its read has ended."""
    start, started = threading.Thread.start, []
    reading, go_on = threading.Event(), threading.Event()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        wait(reading)
        started.append(thread)
        raise KeyboardInterrupt

    def on_read(_offset: int) -> None:
        reading.set()
        wait(go_on)

    reader = MemoryReader(pattern(6 * CHUNK), 2, on_read=on_read)
    download = Download(reader, chunk_size=CHUNK)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(download)
    assert not reader.closes
    go_on.set()
    wait_for_end(started)
    reader.check_closed()
