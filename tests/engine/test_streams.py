# SPDX-License-Identifier: Apache-2.0
"""One stream while that is fast, several side by side while they are faster; all bytes right."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glance_store.transfer import streams
from glance_store.transfer.download import Download
from glance_store.transfer.interface import Extent, ImageReader
from glance_store.transfer.pieces import stream_piece
from glance_store.transfer.readahead import ReadAhead

from .memory import PATIENCE, MemoryReader, count_threads, pattern, wait
from .streaming import (
    CHUNK,
    FAST,
    FASTER,
    FIRST,
    LONG,
    RANGE,
    SHORT,
    SIZE,
    SLOW,
    THREADS,
    TRIAL,
    Clock,
    StreamingMemoryReader,
    ticking,
    wait_for_end,
)

MIB = 2**20


def fetched(reader: StreamingMemoryReader, clock: Clock, between: float = 0.0) -> bytes:
    """Return all bytes of an image; what every download has in common is checked."""
    data = b"".join(clock.consume(Download(reader), between))
    reader.check_closed()
    return data


@settings(deadline=None, max_examples=150)
@given(
    size=st.integers(0, 1500),
    offset=st.integers(0, 1600),
    length=st.one_of(st.none(), st.integers(0, 1600)),
    range_size=st.one_of(st.integers(1, 100), st.integers(1, 2000)),
    concurrency=st.integers(1, 4),
    chunk_size=st.one_of(st.integers(1, 10), st.integers(1, 100)),
    most=st.one_of(st.none(), st.integers(1, 50)),
    speeds=st.sampled_from([(FAST, FAST), (SLOW, FASTER), (SLOW, SLOW), (SLOW, 2 * SLOW)]),
)
def test_all_ranges(
    size: int,
    offset: int,
    length: int | None,
    range_size: int,
    concurrency: int,
    chunk_size: int,
    most: int | None,
    speeds: tuple[float, float],
) -> None:
    data = pattern(size)
    consumed = 0
    most_held = 0

    def held(count: int) -> None:
        nonlocal most_held
        clock.spend(count)
        with lock:
            done = sum(stream.position - stream.offset for stream in reader.streams) + count
            most_held = max(most_held, done - consumed)

    lock = threading.Lock()
    reader = StreamingMemoryReader(
        data, concurrency, range_size=range_size, most=most, on_data=held
    )
    with ticking(*speeds) as clock:
        download = Download(reader, offset, length, chunk_size)
        expected = data[offset:] if length is None else data[offset : offset + length]
        assert download.length == len(expected)
        chunks = []
        for chunk in clock.consume(download):
            chunks.append(chunk)
            with lock:
                consumed += len(chunk)
    assert b"".join(chunks) == expected
    bound = min(chunk_size, max(1, range_size // 32))
    assert all(0 < len(chunk) <= bound for chunk in chunks)
    assert all(wanted <= bound for stream in reader.streams for wanted in stream.wanted)
    assert sum(stream.length for stream in reader.streams) == len(expected)
    assert reader.most_open <= concurrency
    # A range is given back with the chunk that the consumer is about to count.
    assert most_held <= concurrency * range_size + bound
    reader.check_closed()
    assert reader.reads == []
    assert list(download) == []
    download.close()
    reader.check_closed()


def test_the_double_is_a_reader() -> None:
    assert isinstance(StreamingMemoryReader(b"", range_size=RANGE), ImageReader)


@pytest.mark.parametrize("concurrency", [1, 5])
def test_a_reader_without_streams_is_read_at_offsets(concurrency: int) -> None:
    reader = MemoryReader(pattern(90), concurrency)
    assert b"".join(Download(reader, chunk_size=16)) == pattern(90)
    assert min(reader.reads) == (0, 16)


def test_an_unknown_size_is_read_at_offsets() -> None:
    reader = StreamingMemoryReader(pattern(90), 5, range_size=RANGE, size=None)
    assert b"".join(Download(reader, chunk_size=64)) == pattern(90)
    assert reader.reads == [(0, 64), (64, 64), (90, 64)]
    assert reader.streams == []
    reader.check_closed()


@pytest.mark.parametrize(("offset", "length"), [(90, None), (91, 5), (10, 0)])
def test_for_nothing_the_backend_is_not_asked(offset: int, length: int | None) -> None:
    reader = StreamingMemoryReader(pattern(90), 5, range_size=RANGE)
    assert list(Download(reader, offset, length)) == []
    assert reader.streams == []
    reader.check_closed()


def test_nothing_is_asked_for_before_the_first_chunk() -> None:
    reader = StreamingMemoryReader(pattern(90), 5, range_size=RANGE)
    download = Download(reader)
    assert reader.streams == []
    next(download)
    assert len(reader.streams) == 1
    download.close()
    reader.check_closed()


def test_a_chunk_has_a_megabyte_at_most() -> None:
    data = pattern(2 * MIB + 1)
    reader = StreamingMemoryReader(data, range_size=64 * MIB)
    assert [len(chunk) for chunk in Download(reader, chunk_size=4 * MIB)] == [MIB, MIB, 1]
    assert reader.ranges(beside=False) == [(0, len(data))]


def test_the_first_request_of_long_ranges() -> None:
    reader = StreamingMemoryReader(bytes(32 * MIB + 1), range_size=32 * MIB)
    download = Download(reader)
    next(download)
    assert reader.ranges(beside=False) == [(0, 4 * MIB)]
    download.close()


# A consumer of 500 MiB in a second is served well enough.
@pytest.mark.parametrize(
    ("alone", "between", "concurrency"),
    [
        (FAST, 0.0, THREADS),
        (FAST, 1000.0, THREADS),
        (0.99 / (500 * MIB), 0.0, THREADS),
        (0.99 / (500 * MIB), 1000.0, THREADS),
        (SLOW, 0.0, 1),
    ],
)
def test_few_long_requests_and_no_thread(alone: float, between: float, concurrency: int) -> None:
    """A fast backend, be the consumer slow or not; or one that takes no second connection."""
    lengths = [FIRST * 4**power for power in range(5)] + [LONG, LONG, 7]
    with ticking(alone) as clock, count_threads() as started:
        data = pattern(sum(lengths))
        reader = StreamingMemoryReader(data, concurrency, range_size=RANGE, on_data=clock.spend)
        assert fetched(reader, clock, between) == data
    assert started == []
    assert [stream.length for stream in reader.streams] == lengths
    assert [sum(stream.wanted) for stream in reader.streams] == lengths
    assert reader.most_open == 1


@pytest.mark.parametrize(("offset", "length"), [(0, RANGE), (5, RANGE), (5, 1)])
def test_a_range_is_one_request(offset: int, length: int) -> None:
    """It is too little for several, so there is nothing to find out."""
    data = pattern(3 * RANGE)
    with ticking(SLOW) as clock, count_threads() as started:
        reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=clock.spend)
        chunks = clock.consume(Download(reader, offset, length))
        assert b"".join(chunks) == data[offset : offset + length]
    reader.check_closed()
    assert started == []
    assert reader.ranges(beside=False) == [(offset, length)]


def test_a_slow_start_is_no_slow_connection() -> None:
    """What it takes until the first bytes come is the same for any number of streams."""
    data = pattern(30 * RANGE)

    def on_data(_size: int) -> None:
        if reader.streams[-1].position == reader.streams[-1].offset:
            clock.now += 1000.0

    reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=on_data)
    with ticking(FAST) as clock, count_threads() as started:
        assert fetched(reader, clock) == data
    assert clock.now >= 3000.0
    assert started == []


@pytest.mark.parametrize("alone", [SLOW, 1.01 / (500 * MIB)])
def test_side_by_side_for_a_slow_connection(alone: float) -> None:
    """Each range is begun when as many are; they are of one size, all threads end together."""
    all_of_them = threading.Barrier(THREADS)

    def on_read(offset: int) -> None:
        begun = offset - FIRST
        if begun in range(0, TRIAL, SHORT) or (begun >= TRIAL and (begun - TRIAL) % 112 == 0):
            all_of_them.wait(PATIENCE)

    data = pattern(FIRST + TRIAL + 1000)
    with ticking(alone, alone / 100) as clock:
        reader = StreamingMemoryReader(
            data, THREADS, range_size=RANGE, on_read=on_read, on_data=clock.spend
        )
        assert fetched(reader, clock) == data
    assert reader.ranges(beside=False) == [(0, FIRST)]
    beside = sorted(reader.ranges(beside=True))
    assert beside[:9] == [(FIRST + at, SHORT) for at in range(0, TRIAL, SHORT)]
    # Three rounds of three; seven ranges of 128 and one of 104 would leave a thread idle.
    rest = FIRST + TRIAL
    assert beside[9:] == [(rest + at, 112) for at in range(0, 896, 112)] + [(rest + 896, 104)]
    assert reader.most_open == THREADS


def test_side_by_side_later() -> None:
    """A connection that gets slow; each request is judged by itself."""
    data = pattern(21 * FIRST + TRIAL + 9 * RANGE)

    def on_data(size: int) -> None:
        if reader.streams[-1].offset >= 5 * FIRST:
            clock.spend(size)

    reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=on_data)
    with ticking(SLOW) as clock:
        assert fetched(reader, clock) == data
    lengths = [length for _offset, length in reader.ranges(beside=False)]
    assert lengths == [FIRST, 4 * FIRST, 16 * FIRST]
    assert len(reader.ranges(beside=True)) == 18


@pytest.mark.parametrize(("rest", "threads"), [(RANGE, 0), (RANGE + 1, THREADS)])
def test_threads_are_for_more_than_a_range(rest: int, threads: int) -> None:
    data = pattern(FIRST + rest)
    with ticking(SLOW) as clock, count_threads() as started:
        reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=clock.spend)
        assert fetched(reader, clock) == data
    assert len(started) == threads


def test_the_window_is_full_and_no_wider() -> None:
    """A consumer that stands still finds so many ranges read ahead, and never more."""
    size = 2 * TRIAL // (THREADS * 2)
    # So little that nothing is tried.
    data = pattern(FIRST + 2 * TRIAL)
    done, limit = 0, THREADS * size
    excess: list[int] = []
    more = threading.Condition()

    def on_data(size: int) -> None:
        nonlocal done
        clock.spend(size)
        if threading.current_thread() is not consumer:
            with more:
                done += size
                if done > limit:
                    excess.append(done)
                more.notify_all()

    consumer = threading.current_thread()
    reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=on_data)
    with ticking(SLOW) as clock:
        chunks = clock.consume(Download(reader))
        assert b"".join(next(chunks) for _number in range(FIRST // CHUNK)) == data[:FIRST]
        for at in range(FIRST, len(data), CHUNK):
            with more:
                limit = (THREADS + (at + CHUNK - FIRST) // size) * size
            assert next(chunks) == data[at : at + CHUNK]
            with more:
                full = min(limit, 2 * TRIAL)
                assert more.wait_for(lambda full=full: done >= full, PATIENCE)
    assert excess == []
    reader.check_closed()


@pytest.mark.parametrize("beside", [1.12 * SLOW, 3 * SLOW])
def test_back_to_one_when_several_are_slower(beside: float) -> None:
    """What has been begun is delivered; then comes a long request, and then another attempt."""
    data = pattern(FIRST + TRIAL + LONG + 9 * RANGE)
    with ticking(SLOW, beside) as clock:
        reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=clock.spend)
        assert fetched(reader, clock) == data
    first, long = reader.ranges(beside=False)[:2]
    assert first == (0, FIRST)
    assert long[1] == LONG
    tried = [offset for offset, _length in reader.ranges(beside=True)]
    # It is decided when each thread has had two; all may have begun another.
    assert 2 * THREADS <= sum(offset < long[0] for offset in tried) <= 3 * THREADS
    assert max(tried) >= long[0] + LONG
    assert reader.most_open <= THREADS


def test_several_are_judged_when_all_have_begun() -> None:
    """Their first bytes are slow ones."""
    data = pattern(SIZE)
    left = SHORT // 2

    def on_data(size: int) -> None:
        nonlocal left
        if threading.current_thread() is consumer:
            clock.spend(size)
            return
        with lock:
            slow, left = left > 0, left - size
        if slow:
            clock.spend(size)

    lock, consumer = threading.Lock(), threading.current_thread()
    reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=on_data)
    with ticking(SLOW, SLOW) as clock:
        assert fetched(reader, clock) == data
    assert len(reader.ranges(beside=False)) == 1
    assert len(reader.ranges(beside=True)) == 18


def test_several_are_judged_once() -> None:
    """They get slow when that has been done."""
    data = pattern(FIRST + TRIAL + 18 * RANGE)

    def on_data(size: int) -> None:
        # The ninth one may have been begun when it is judged, the twelfth one may not.
        if sum(stream.length for stream in reader.streams) > FIRST + TRIAL + 3 * RANGE:
            clock.spend(10 * size)
        elif threading.current_thread() is consumer:
            clock.spend(size)

    consumer = threading.current_thread()
    reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=on_data)
    with ticking(SLOW, SLOW) as clock:
        assert fetched(reader, clock) == data
    assert reader.ranges(beside=False) == [(0, FIRST)]


def measured(*chunks: tuple[int, float]) -> streams._Meter:
    """Return a meter that has seen chunks of so many bytes, each after so many seconds."""
    clock = Clock(FAST, FAST)

    def arriving() -> Iterator[bytes]:
        for size, seconds in chunks:
            clock.now += seconds
            yield bytes(size)

    with mock.patch.object(streams, "time", clock):
        meter = streams._Meter()
        assert [len(chunk) for chunk in clock.consume(meter.over(arriving()), 77.0)] == [
            size for size, _seconds in chunks
        ]
    return meter


def test_what_is_measured() -> None:
    """The wait for all chunks but the first one, and nothing of what the consumer does."""
    meter = measured((100, 50.0), (10, 2.0), (20, 3.0))
    assert (meter.bytes, meter.waited) == (30, 5.0)
    assert (measured((100, 50.0)).bytes, measured().bytes) == (0, 0)


def test_what_is_slow() -> None:
    assert not measured((1, 1.0)).is_slow()
    assert not measured((1, 1.0), (32 * MIB, 0.0625)).is_slow()
    assert measured((1, 1.0), (31 * MIB, 0.0625)).is_slow()
    # Too little to know.
    assert not measured((1, 1.0), (1, 0.03125)).is_slow()


@pytest.mark.parametrize(("seconds", "enough"), [(80.0, True), (111.0, True), (112.0, False)])
def test_what_is_fast_enough(seconds: float, enough: bool) -> None:
    one, several = measured((1, 1.0), (10, 100.0)), measured((1, 1.0), (20, 2 * seconds))
    assert several.keeps_up(one) is enough


def test_short_waits_are_added_up() -> None:
    """Of a few bytes nobody can tell how fast they come, of some times as many they can."""
    data = pattern(5 * FIRST + TRIAL + 9 * RANGE)
    with ticking(SLOW) as clock:
        reader = StreamingMemoryReader(data, THREADS, range_size=RANGE, on_data=clock.spend)
        with mock.patch.object(streams, "_SAMPLE", 2 * FIRST * SLOW):
            assert fetched(reader, clock) == data
    assert reader.ranges(beside=False) == [(0, FIRST), (FIRST, 4 * FIRST)]
    assert len(reader.ranges(beside=True)) == 18


def test_a_chunk_is_handed_out_before_its_piece_is_read() -> None:
    taken = threading.Event()

    def read(piece: Extent) -> Generator[bytes, None, None]:
        yield b"a" * 10
        wait(taken)
        yield b"b" * (piece.length - 10)

    reader = MemoryReader(b"", 2)
    ahead = ReadAhead(reader, iter([Extent(0, 30, True), Extent(30, 40, True)]), read)
    chunks = ahead.chunks()
    try:
        assert next(chunks) == b"a" * 10
    finally:
        taken.set()
    assert list(chunks) == [b"b" * 20, b"a" * 10, b"b" * 30]
    ahead.stop(wait=True)
    reader.check_closed()


@pytest.mark.parametrize("begun", [1, 2, 3])
def test_wind_down(begun: int) -> None:
    """What has been begun is delivered, nothing else; the threads end by themselves."""
    reader = StreamingMemoryReader(pattern(40 * 8), begun, range_size=40)
    go_on, in_flight = threading.Event(), threading.Barrier(begun + 1)

    def on_read(offset: int) -> None:
        if offset % 40 == CHUNK:
            in_flight.wait(PATIENCE)
            wait(go_on)

    reader._on_read = on_read
    parts = iter([Extent(at, 40, True) for at in range(0, 320, 40)])
    ahead = ReadAhead(reader, parts, lambda piece: stream_piece(reader, piece, CHUNK))
    chunks = ahead.chunks()
    with count_threads() as started:
        data = next(chunks)
    in_flight.wait(PATIENCE)
    ahead.wind_down()
    ahead.wind_down()
    go_on.set()
    data += b"".join(chunks)
    wait_for_end(started)
    assert data == pattern(320)[: 40 * begun]
    assert len(reader.streams) == begun
    assert not reader.closes
    ahead.stop(wait=True)
    reader.check_closed()


def test_wind_down_when_all_has_been_begun() -> None:
    reader = StreamingMemoryReader(pattern(80), 2, range_size=40)
    parts = iter([Extent(0, 40, True), Extent(40, 40, True)])
    ahead = ReadAhead(reader, parts, lambda piece: stream_piece(reader, piece, 40))
    chunks = ahead.chunks()
    data = next(chunks) + next(chunks)
    ahead.wind_down()
    assert data + b"".join(chunks) == pattern(80)
    ahead.stop(wait=True)
    reader.check_closed()
