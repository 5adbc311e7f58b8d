# SPDX-License-Identifier: Apache-2.0
"""How images are cut into parts, and how the parts are sent."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import pytest

from glance_store import exceptions
from glance_store.transfer.digest import Digests
from glance_store.transfer.memory import Memory
from glance_store.transfer.multipart import MIB, EqualParts, GrowingParts, MultipartWriter
from glance_store.transfer.upload import default_budget, upload

from .memory import PATIENCE, pattern, wait

GIB = 1024 * MIB
TIB = 1024 * GIB
CHUNK = 10 * MIB
THREADS = 10


class Limits(NamedTuple):
    most: int
    largest: int


S3 = Limits(10_000, 5 * GIB)
GROWING = Limits(10_000, GIB)
STATIC = Limits(1000, 5 * GIB)


@pytest.mark.parametrize(("limits", "goal"), [(GROWING, 5 * TIB), (S3, 5 * TIB), (STATIC, TIB)])
@pytest.mark.parametrize("chunk", [5 * MIB, 10 * MIB, 32 * MIB, 1000 * MIB, 5 * GIB])
def test_r215_growing_parts_reach_terabytes(chunk: int, limits: Limits, goal: int) -> None:
    plan = GrowingParts(chunk, limits)
    offset = count = previous = 0
    while offset < goal and count <= limits.most:
        size = plan.size_at(offset)
        assert previous <= size <= limits.largest
        offset, count, previous = offset + size, count + 1, size
    assert count <= limits.most


def test_growing_parts_stay_small_for_usual_images() -> None:
    plan = GrowingParts(10 * MIB, GROWING)
    assert {plan.size_at(number * 10 * MIB) for number in range(800)} == {10 * MIB}


@pytest.mark.parametrize("part", [1000 * 1024, MIB, 200 * 1000 * 1024])
def test_growing_parts_begin_as_configured(part: int) -> None:
    """A size that is no number of MiB stays what it is, too."""
    plan = GrowingParts(part, S3)
    assert {plan.size_at(number * part) for number in range(900)} == {part}
    assert plan.size_at(901 * part) > part


def test_growing_parts_are_numbered_in_any_order() -> None:
    plan = GrowingParts(5 * MIB, GROWING)
    offsets = [0]
    for _number in range(2000):
        offsets.append(offsets[-1] + plan.size_at(offsets[-1]))
    other = GrowingParts(5 * MIB, GROWING)
    for number in (1500, 0, 1999, 7):
        assert other.number_at(offsets[number]) == number + 1


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_growing_parts_of_a_backend_that_takes_few(most: int) -> None:
    limits = Limits(most, 64 * MIB)
    plan = GrowingParts(MIB, limits)
    offset = 0
    for number in range(most):
        assert plan.number_at(offset) == number + 1
        offset += plan.size_at(offset)
    with pytest.raises(exceptions.StorageFull, match=f"{most} parts of at most {64 * MIB} bytes"):
        plan.number_at(offset)


@pytest.mark.parametrize("size", [1, 10 * MIB, 98 * GIB, 5 * TIB, 5 * TIB - 1])
def test_equal_parts_suffice(size: int) -> None:
    plan = EqualParts(10 * MIB, S3, size)
    part = plan.size_at(0)
    assert part >= 10 * MIB
    assert -(-size // part) <= S3.most
    assert plan.number_at(0) == 1
    if size > 3 * part:
        assert plan.number_at(3 * part) == 4


def test_an_image_that_is_too_large_is_refused_before_it_is_sent() -> None:
    with pytest.raises(exceptions.StorageFull, match="too large"):
        EqualParts(CHUNK, Limits(10, CHUNK), 10 * CHUNK + 1)
    EqualParts(CHUNK, Limits(10, CHUNK), 10 * CHUNK)


def test_equal_parts_of_an_image_of_unknown_size_end_somewhere() -> None:
    plan = EqualParts(CHUNK, Limits(3, GIB))
    assert [plan.number_at(number * CHUNK) for number in range(3)] == [1, 2, 3]
    with pytest.raises(exceptions.StorageFull, match="larger parts may help"):
        plan.number_at(3 * CHUNK)


class Sent:
    """Stands in for a backend, and writes down what it is to do."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.data: dict[int, bytes] = {}
        self.begun = 0
        self.lock = threading.Lock()

    def put_whole(self, block: memoryview | bytes, md5: str | None) -> None:
        self.requests.append(("whole", len(block)))

    def begin(self) -> None:
        self.begun += 1

    def put_part(self, number: int, block: memoryview) -> None:
        with self.lock:
            self.requests.append((f"part {number}", len(block)))
            self.data[number] = bytes(block)

    def complete(self, size: int) -> None:
        self.requests.append(("complete", size))

    def abort(self) -> None:
        self.requests.append(("abort", 0))

    def interrupt(self) -> None:
        self.requests.append(("interrupt", 0))


def writer_of(
    size: int,
    large: int = 100 * MIB,
    chunk: int = CHUNK,
    threads: int = THREADS,
    memory: int = 256 * MIB,
) -> tuple[MultipartWriter, Sent]:
    sent = Sent()
    plan = EqualParts(chunk, S3, size) if size else GrowingParts(chunk, GROWING)
    writer = MultipartWriter(sent, plan, "s3://x/y/z", size, large, threads, Memory(memory))
    return writer, sent


@pytest.mark.parametrize("size", [100 * MIB, 99 * GIB, 100 * GIB, 500 * GIB, TIB, 5 * TIB])
@pytest.mark.parametrize("threads", [1, 3, 10, 100])
@pytest.mark.parametrize("memory", [16 * MIB, 256 * MIB])
def test_parts_on_their_way_fit_the_memory(size: int, threads: int, memory: int) -> None:
    """And one more, which is being read; of large ones there is one."""
    writer, _sent = writer_of(size, threads=threads, memory=memory)
    assert default_budget(writer) == writer.concurrency + 2
    assert 1 <= writer.concurrency <= threads
    assert writer.concurrency == 1 or (writer.concurrency + 1) * writer.block_size <= memory
    assert writer.block_size <= max(CHUNK, -(-size // S3.most))


@pytest.mark.parametrize("size", [100 * MIB, 50 * GIB, 0])
def test_parts_as_configured_are_as_many_as_configured(size: int) -> None:
    writer, _sent = writer_of(size)
    assert writer.concurrency == THREADS
    assert writer.block_size == CHUNK


def test_an_image_of_few_parts_needs_few_threads() -> None:
    writer, _sent = writer_of(25 * MIB, large=0)
    assert writer.concurrency == 3


@pytest.mark.parametrize("size", [1, 1000, 100 * MIB - 1])
def test_image_in_one_piece_is_one_block(size: int) -> None:
    writer, sent = writer_of(size)
    assert writer.block_size == size
    assert writer.concurrency == 1
    writer.write(0, memoryview(bytes(min(size, 1000))))
    writer.commit(size)
    assert [name for name, _size in sent.requests] == ["whole"]


def test_image_that_ends_early_is_one_request() -> None:
    writer, sent = writer_of(0)
    writer.write(0, memoryview(b"data"))
    writer.commit(4)
    assert sent.requests == [("whole", 4)]


def test_image_without_a_byte_is_one_request() -> None:
    writer, sent = writer_of(0, large=0)
    writer.commit(0)
    assert sent.requests == [("whole", 0)]


def test_image_in_parts_whatever_its_size() -> None:
    writer, sent = writer_of(4, large=0)
    writer.write(0, memoryview(b"data"))
    writer.commit(4)
    assert sent.requests == [("part 1", 4), ("complete", 4)]


def test_parts_are_numbered_by_their_place() -> None:
    writer, sent = writer_of(25, large=10, chunk=10)
    for offset, data in ((20, b"x" * 5), (0, b"x" * 10), (10, b"x" * 10)):
        writer.write(offset, memoryview(data))
    writer.commit(25)
    assert sent.requests == [("part 3", 5), ("part 1", 10), ("part 2", 10), ("complete", 25)]
    assert sent.begun == 3


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [1, 9, 10, 11, 30, 99])
def test_all_bytes_arrive(size: int, known: bool) -> None:
    writer, sent = writer_of(size if known else 0, large=5, chunk=10, threads=3)
    data = pattern(size)
    assert upload([data], writer, Digests("sha256"), size if known else 0).size == size
    if sent.requests[0][0] != "whole":
        assert b"".join(sent.data[number] for number in sorted(sent.data)) == data


# All parts are on their way, or many are still to be read.
@pytest.mark.parametrize("size", [20, 100])
def test_a_part_that_fails_breaks_off_the_others(size: int) -> None:
    """Those that wait for their backend would otherwise wait for as long as it has patience."""
    writer, sent = writer_of(size, large=10, chunk=10, threads=2)
    waiting, over = threading.Event(), threading.Event()
    broken_off = []

    def put_part(number: int, block: memoryview) -> None:
        if number == 1:
            waiting.set()
            broken_off.append(over.wait(PATIENCE))
            raise OSError("broken off")
        wait(waiting)
        raise OSError("the first error")

    sent.put_part = put_part  # type: ignore[method-assign]
    sent.interrupt = over.set  # type: ignore[method-assign]
    with pytest.raises(OSError, match="the first error"):
        upload([pattern(size)], writer, Digests("sha256"), size)
    assert broken_off == [True]
    assert sent.requests == [("abort", 0)]


def test_digests_are_complete_when_the_image_is() -> None:
    class Digesting(MultipartWriter):
        digests: Any = None
        seen = ""

        def commit(self, size: int) -> None:
            self.seen = self.digests.checksum

    data = pattern(95)
    writer = Digesting(Sent(), EqualParts(10, S3, 95), "x", 95, 10, 3, Memory(1000))
    result = upload([data], writer, Digests("sha256"), 95)
    assert writer.seen == result.checksum
