# SPDX-License-Identifier: Apache-2.0
"""How the writer of S3 cuts images into requests, and how much of them it wants in memory."""

from __future__ import annotations

from typing import Any, cast

import pytest

from glance_store._drivers.s3.parts import GIB, MAX_PARTS, MIB
from glance_store._drivers.s3.writer import S3Writer
from glance_store.transfer.upload import default_budget

TIB = 1024 * GIB
CHUNK = 10 * MIB
THREADS = 10
CONFIGURED = (THREADS + 2) * CHUNK


class Sent:
    """Stands in for an upload, and writes down what it is to send."""

    in_parts = False

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []

    def put(self, block: Any) -> None:
        self.requests.append(("put", len(block)))

    def part(self, number: int, block: Any) -> None:
        self.in_parts = True
        self.requests.append((f"part {number}", len(block)))

    def complete(self) -> None:
        self.requests.append(("complete", 0))


def writer_of(
    size: int, large: int = 100 * MIB, chunk: int = CHUNK, threads: int = THREADS
) -> tuple[S3Writer, Sent]:
    sent = Sent()
    return S3Writer(cast("Any", sent), "s3://x/y/z", size, large, chunk, threads), sent


@pytest.mark.parametrize("size", [100 * MIB, 99 * GIB, 100 * GIB, 500 * GIB, TIB, 5 * TIB])
@pytest.mark.parametrize("threads", [1, 3, 10, 100])
def test_memory_is_bounded_by_the_options(size: int, threads: int) -> None:
    """An image that needs larger parts has fewer of them in memory, but one that is sent and one
    that is read.
    """
    writer, _sent = writer_of(size, threads=threads)
    held = default_budget(writer)
    assert held >= 2
    assert held * writer.block_size <= max((threads + 2) * CHUNK, 2 * writer.block_size)
    assert writer.block_size <= max(CHUNK, -(-size // MAX_PARTS))
    assert 1 <= writer.concurrency <= min(threads, held)


def test_figures_of_the_documentation() -> None:
    """100 GiB: as configured; 1 TiB and 5 TiB: two parts, as 10,000 of them have to suffice."""
    held = {}
    for size in (100 * GIB, TIB, 5 * TIB):
        writer, _sent = writer_of(size)
        held[size] = default_budget(writer) * writer.block_size // MIB
    assert held == {100 * GIB: 112, TIB: 209, 5 * TIB: 1048}


@pytest.mark.parametrize("size", [100 * MIB, 50 * GIB, 0])
def test_parts_as_configured_are_as_many_as_configured(size: int) -> None:
    """Those that grow begin so; the engine counts their bytes."""
    writer, _sent = writer_of(size)
    assert default_budget(writer) == THREADS + 2
    assert default_budget(writer) * writer.block_size == CONFIGURED
    assert writer.concurrency == THREADS


@pytest.mark.parametrize("size", [1, 1000, 100 * MIB - 1])
def test_image_in_one_piece_is_one_block(size: int) -> None:
    writer, sent = writer_of(size)
    assert writer.block_size == size
    assert writer.concurrency == 1
    writer.write(0, memoryview(bytes(min(size, 1000))))
    writer.commit(size)
    assert [name for name, _size in sent.requests] == ["put"]


def test_image_that_ends_early_is_one_request() -> None:
    writer, sent = writer_of(0)
    writer.write(0, memoryview(b"data"))
    writer.commit(4)
    assert sent.requests == [("put", 4)]


def test_image_without_a_byte_is_one_request() -> None:
    writer, sent = writer_of(0, large=0)
    writer.commit(0)
    assert sent.requests == [("put", 0)]


def test_parts_are_numbered_by_their_place() -> None:
    writer, sent = writer_of(25, large=10, chunk=10)
    for offset, data in ((20, b"x" * 5), (0, b"x" * 10), (10, b"x" * 10)):
        writer.write(offset, memoryview(data))
    writer.commit(25)
    assert sent.requests == [("part 3", 5), ("part 1", 10), ("part 2", 10), ("complete", 0)]
