# SPDX-License-Identifier: Apache-2.0
"""The memory that transfers share: one may use all of it, many get along with it."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from glance_store.transfer import memory as memory_module
from glance_store.transfer.digest import Digests
from glance_store.transfer.download import Download
from glance_store.transfer.memory import Memory, Share
from glance_store.transfer.retry import Patience, ResumingStreamingReader
from glance_store.transfer.upload import upload

from .memory import BLOCK, PATIENCE, MemoryWriter, eventually, pattern, wait
from .streaming import FASTER, RANGE, SIZE, SLOW, THREADS, StreamingMemoryReader, ticking


class SharingWriter(MemoryWriter):
    def __init__(self, memory: Memory, **options: Any) -> None:
        super().__init__(**options)
        self.memory = memory


def held(memory: Memory) -> int:
    return memory.size - memory._free()


def test_bytes_are_taken_and_given_back() -> None:
    memory = Memory(100)
    one, two = Share(memory), Share(memory)
    assert one.take(60) == 60
    assert not two.try_take(41)
    assert two.try_take(40)
    one.give(60)
    assert held(memory) == 40
    two.close()
    assert held(memory) == 0


def test_what_there_is() -> None:
    memory = Memory(100)
    share = Share(memory)
    share.take(60)
    assert memory.has(40)
    assert not memory.has(41)
    assert not Memory(10).has(11)


def test_more_than_there_is_passes_alone() -> None:
    memory = Memory(100)
    assert Share(memory).take(1000) == 100


def test_without_a_limit_all_is_granted() -> None:
    share = Share(None)
    assert share.take(10**12) == 0
    assert share.try_take(10**12)
    share.give(10**12)
    share.wake()
    share.close()


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_who_came_first_is_served_first() -> None:
    memory, order = Memory(100), list[str]()
    first = Share(memory)
    first.take(90)
    large, small = Share(memory), Share(memory)
    threads = [in_thread(lambda: (large.take(80), order.append("large")))]
    assert eventually(lambda: len(memory._queue) == 1)
    threads.append(in_thread(lambda: (small.take(5), order.append("small"))))
    assert eventually(lambda: len(memory._queue) == 2)
    # It would fit, but not before the one that waits.
    assert not Share(memory).try_take(5)
    assert order == []
    first.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(order) == ["large", "small"]
    assert held(memory) == 85


def test_a_wait_that_has_lost_its_purpose_ends() -> None:
    memory, over = Memory(100), threading.Event()
    first, second = Share(memory), Share(memory)
    first.take(100)
    thread = in_thread(lambda: second.take(10, over.is_set))
    assert eventually(lambda: len(memory._queue) == 1)
    over.set()
    second.wake()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not memory._queue
    assert held(memory) == 100


def test_what_a_lost_transfer_held_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_LOOK", 0.01)
    memory = Memory(100)
    lost: list[Share] = [Share(memory)]
    lost[0].take(100)
    other = Share(memory)
    thread = in_thread(lambda: other.take(100))
    assert eventually(lambda: len(memory._queue) == 1)
    lost.clear()
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_forked_process_begins_with_all_of_it() -> None:
    memory = Memory(100)
    share = Share(memory)
    share.take(100)
    with memory._changed:
        child = os.fork()
        if not child:
            os._exit(0 if Share(memory).try_take(100) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert held(memory) == 100


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("blocks", [0, 1, 2, 7])
@pytest.mark.parametrize("size", [BLOCK // 2, BLOCK, 2 * BLOCK, 100 * BLOCK])
def test_an_upload_gets_along_with_what_there_is(size: int, blocks: int, concurrency: int) -> None:
    memory = Memory(size)
    data = pattern(blocks * BLOCK + 5)
    writer = SharingWriter(memory, concurrency=concurrency)
    result = upload([data], writer, Digests("sha256"), len(data))
    assert result.size == len(data)
    assert b"".join(each.data for each in sorted(writer.writes, key=lambda w: w.offset)) == data
    assert held(memory) == 0


def test_a_failed_upload_gives_all_of_it_back() -> None:
    memory = Memory(100 * BLOCK)
    writer = SharingWriter(memory, concurrency=2, failures={3: OSError("gone")})
    with pytest.raises(OSError, match="gone"):
        upload([pattern(50 * BLOCK)], writer, Digests("sha256"))
    assert held(memory) == 0


class Counting:
    """A source that counts the bytes that it has given to all uploads of a test."""

    def __init__(self, data: bytes, ahead: list[int]) -> None:
        self._data, self._position, self._ahead = data, 0, ahead

    def read(self, length: int) -> bytes:
        portion = self._data[self._position : self._position + length]
        self._position += len(portion)
        self._ahead.append(len(portion))
        return portion


@pytest.mark.parametrize("room", [3, 8])
def test_forty_uploads_fit_the_memory_of_three(room: int) -> None:
    """Each is done in the end, and at no time were more bytes on their way than there may be."""
    memory, ahead, most = Memory(room * BLOCK), list[int](), list[int]()
    data = pattern(9 * BLOCK + 1)
    writers: list[SharingWriter] = []

    def look(_number: int) -> None:
        written = sum(sum(len(w.data) for w in each.writes[: each.completed]) for each in writers)
        most.append(sum(ahead) - written)

    writers += [SharingWriter(memory, concurrency=3, on_write=look) for _number in range(40)]
    threads = [
        in_thread(lambda w=w: upload(Counting(data, ahead), w, Digests("sha256"), len(data)))  # type: ignore[misc]
        for w in writers
    ]
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [w.commits for w in writers] == [[len(data)]] * 40
    # A block that is written is counted here until the next look.
    assert max(most) <= (room + 3 * 40) * BLOCK
    assert held(memory) == 0


def test_a_slow_source_keeps_no_other_upload_waiting() -> None:
    """It holds the block that it fills; the others have what is left."""
    memory, slow, go_on = Memory(4 * BLOCK), threading.Event(), threading.Event()

    class Slow:
        def read(self, length: int) -> bytes:
            slow.set()
            wait(go_on)
            return b""

    waiting = SharingWriter(memory, concurrency=3)
    thread = in_thread(lambda: upload(Slow(), waiting, Digests("sha256")))
    wait(slow)
    data = pattern(20 * BLOCK)
    for _number in range(5):
        writer = SharingWriter(memory, concurrency=3)
        assert upload([data], writer, Digests("sha256")).size == len(data)
    go_on.set()
    thread.join(PATIENCE)
    assert held(memory) == 0


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of the tests are large enough for buffers."""
    monkeypatch.setattr(memory_module, "_LARGE", BLOCK)


@pytest.mark.usefixtures("large")
def test_buffers_are_used_again() -> None:
    memory = Memory(10 * BLOCK)
    share = Share(memory)
    share.take(BLOCK)
    first = share.buffer(BLOCK)
    assert first is not None
    share.recycle(memoryview(first)[:5])
    assert share.buffer(BLOCK) is first
    assert share.buffer(BLOCK) is not first
    assert share.buffer(BLOCK - 1) is None
    # What is none of them is left alone.
    share.recycle(b"data")
    share.recycle(memoryview(b"data"))
    assert Share(None).buffer(BLOCK) is None


@pytest.mark.usefixtures("large")
def test_idle_buffers_make_room_for_those_of_another_size() -> None:
    memory = Memory(10 * BLOCK)
    share = Share(memory)
    share.take(BLOCK)
    buffers = [share.buffer(BLOCK) for _number in range(8)]
    while buffers:
        share.recycle(memoryview(buffers.pop()))  # type: ignore[arg-type]
    assert sum(map(len, memory._buffers)) == 8 * BLOCK
    large = share.buffer(5 * BLOCK)
    assert large is not None
    assert sum(map(len, memory._buffers)) <= 10 * BLOCK


@pytest.mark.usefixtures("large")
def test_pages_go_back_when_nothing_is_on_its_way() -> None:
    memory = Memory(10 * BLOCK)
    one, two = Share(memory), Share(memory)
    one.take(BLOCK)
    two.take(BLOCK)
    one.recycle(memoryview(one.buffer(BLOCK)))  # type: ignore[arg-type]
    one.close()
    assert len(memory._buffers) == 1
    two.close()
    assert len(memory._buffers) == 0


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("portion", [1, 7, BLOCK, 10 * BLOCK])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_blocks_in_buffers_have_the_bytes_of_the_source(portion: int, concurrency: int) -> None:
    """Also when a buffer is used again while other blocks are on their way."""
    memory = Memory(5 * BLOCK)
    data = pattern(40 * BLOCK + 3)
    kept: list[bool] = []

    def look(_number: int) -> None:
        kept.append(len(memory._buffers) <= 5)

    writer = SharingWriter(memory, concurrency=concurrency, on_write=look)
    source = (data[at : at + portion] for at in range(0, len(data), portion))
    result = upload(source, writer, Digests("sha256"), len(data))
    assert b"".join(each.data for each in sorted(writer.writes, key=lambda w: w.offset)) == data
    assert result.multihash == hashlib.sha256(data).hexdigest()
    assert all(kept)
    assert not memory._buffers


class SharingReader(StreamingMemoryReader):
    def __init__(self, memory: Memory, data: bytes) -> None:
        super().__init__(data, THREADS, range_size=RANGE)
        self.memory = memory


@pytest.mark.parametrize(
    ("room", "threads"), [(THREADS, THREADS), (THREADS - 1, 1), (1, 1), (THREADS + 5, THREADS)]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_download_reads_side_by_side_what_there_is_memory_for(
    room: int, threads: int, wrapped: bool
) -> None:
    # What is read ahead has half of it.
    memory, data = Memory(2 * room * RANGE), pattern(SIZE)
    reader = SharingReader(memory, data)
    with ticking(SLOW, FASTER) as clock:
        reader._on_data = clock.spend
        # A reader that goes on where it broke off has the memory of the one inside.
        outer = ResumingStreamingReader(reader, Patience(0)) if wrapped else reader
        assert b"".join(clock.consume(Download(outer))) == data
    names = {
        stream.thread for stream in reader.streams if stream.thread.name.startswith("glance_store-")
    }
    assert len(names) <= threads if threads > 1 else not names
    assert held(memory) == 0


def test_slow_downloads_leave_half_of_the_memory_to_uploads() -> None:
    memory = Memory(100)
    readers = [Share(memory, ahead=True) for _number in range(3)]
    assert [reader.try_take(20) for reader in readers] == [True, True, False]
    upload = Share(memory)
    assert upload.take(60) == 60
    readers[0].close()
    assert not readers[2].try_take(40)
    upload.close()
    assert readers[2].try_take(30)
    assert held(memory) == 50


def test_a_download_that_is_closed_gives_its_memory_back() -> None:
    memory = Memory(2 * THREADS * RANGE)
    reader = SharingReader(memory, pattern(SIZE))
    with ticking(SLOW, FASTER) as clock:
        reader._on_data = clock.spend
        download = Download(reader)
        chunks = clock.consume(download)
        while not held(memory):
            next(chunks)
        download.close()
    assert held(memory) == 0
