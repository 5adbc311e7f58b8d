# SPDX-License-Identifier: Apache-2.0
"""What a successful upload stores, and which sizes are refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glance_store import exceptions
from glance_store.transfer.digest import Digests
from glance_store.transfer.interface import ImageWriter
from glance_store.transfer.sparse import GRANULARITY
from glance_store.transfer.upload import default_budget, upload

from . import checks
from .memory import BLOCK, MemoryWriter, Source, Verifier, pattern


def store(source: Any, writer: MemoryWriter, size: int = 0, **arguments: Any) -> Any:
    return upload(source, writer, Digests("sha256"), size, **arguments)


def test_the_double_is_a_writer() -> None:
    assert isinstance(MemoryWriter(), ImageWriter)


@pytest.mark.parametrize("concurrency", [1, 2, 4])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("size", checks.SIZES)
def test_content(size: int, declared: bool, concurrency: int) -> None:
    checks.check_content(upload, size, declared, concurrency)
    checks.check_content(upload, size, declared, concurrency, holes=True)


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.binary(max_size=3 * BLOCK), max_size=8),
    concurrency=st.integers(1, 3),
    budget=st.one_of(st.none(), st.integers(1, 5)),
)
def test_any_iterable(parts: list[bytes], concurrency: int, budget: int | None) -> None:
    data = b"".join(parts)
    writer = MemoryWriter(concurrency=concurrency)
    assert store(iter(parts), writer, len(data), budget=budget).size == len(data)
    writer.check_stored(data)
    assert sorted(write.offset for write in writer.writes) == list(range(0, len(data), BLOCK))


def test_a_source_of_single_bytes() -> None:
    data = pattern(5 * BLOCK + 1)
    writer = MemoryWriter(concurrency=2)
    store(Source(data, portions=[1]), writer, len(data))
    writer.check_stored(data)


def test_commit_follows_the_last_write() -> None:
    checks.check_commit_after_writes(upload)


@pytest.mark.parametrize("size", [1, BLOCK, 5 * BLOCK + 1])
def test_a_block_is_dead_once_it_is_written(size: int) -> None:
    """The interface says so; a writer that keeps one is to notice, not to store other bytes."""
    writer = MemoryWriter(concurrency=2)
    store(io.BytesIO(pattern(size)), writer)
    assert writer.kept
    for block in writer.kept:
        with pytest.raises(ValueError, match="released"):
            bytes(block)


def test_an_empty_image_is_committed_without_a_write() -> None:
    writer = MemoryWriter()
    assert store(io.BytesIO(b""), writer).size == 0
    assert writer.calls == ["commit"]
    assert writer.commits == [0]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("declared", checks.WRONG_SIZES)
def test_too_much_data(declared: int, concurrency: int) -> None:
    for actual in (declared + 1, declared + BLOCK, declared + 9 * BLOCK):
        checks.check_size_exceeded(upload, declared, actual, concurrency)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("declared", checks.WRONG_SIZES)
def test_too_little_data(declared: int, concurrency: int) -> None:
    for actual in {0, declared // 2, declared - 1}:
        checks.check_size_missed(upload, declared, actual, concurrency)


def test_too_much_data_in_short_portions() -> None:
    source = Source(pattern(5 * BLOCK), portions=[7, 1, 30])
    writer = MemoryWriter()
    with pytest.raises(exceptions.Invalid, match=r"^Size exceeds: expected 100 "):
        store(source, writer, 100)
    assert source.position == 101
    writer.check_aborted()


@pytest.mark.parametrize("wrong", ["text", None, 7, ["text"]])
def test_no_source_of_bytes(wrong: Any) -> None:
    writer = MemoryWriter()
    with pytest.raises(exceptions.Invalid, match=r"bytes|iterable"):
        store(wrong, writer)
    writer.check_aborted()
    assert not writer.writes


def test_budget_that_a_writer_asks_for() -> None:
    writer = MemoryWriter(concurrency=5)
    writer.blocks_held = 6  # type: ignore[attr-defined]
    assert default_budget(writer) == 6


@pytest.mark.parametrize(("block_size", "concurrency"), [(1, 1), (4 << 20, 4), (1 << 30, 10)])
def test_default_budget(block_size: int, concurrency: int) -> None:
    budget = default_budget(MemoryWriter(block_size, concurrency))
    # Every writing thread is busy while one block is hashed and one is read...
    assert budget >= concurrency + 2
    # ... and small blocks do not add up to more than a modest queue.
    assert budget == concurrency + 2 or budget * block_size <= 16 << 20


HOLES_BLOCK = 4 * GRANULARITY
ZEROS, ONES = bytes(GRANULARITY), b"\1" * GRANULARITY


@pytest.mark.parametrize("concurrency", [1, 3])
def test_holes_are_not_written(concurrency: int) -> None:
    blocks = [ZEROS * 4, ONES + ZEROS + ONES * 2, ZEROS * 4, ZEROS * 3 + ONES, ONES * 4, ZEROS]
    data = b"".join(blocks)
    writer = MemoryWriter(HOLES_BLOCK, concurrency, holes=True)
    verifier = Verifier()
    result = upload(io.BytesIO(data), writer, Digests("md5", verifier), len(data))
    assert result.size == len(data)
    assert verifier.data == data
    writer.check_stored(data)
    runs = sorted((write.offset, len(write.data)) for write in writer.writes)
    second, fourth, fifth = (number * HOLES_BLOCK for number in (1, 3, 4))
    assert runs == [
        (second, GRANULARITY),
        (second + 2 * GRANULARITY, 2 * GRANULARITY),
        (fourth + 3 * GRANULARITY, GRANULARITY),
        (fifth, HOLES_BLOCK),
    ]


@pytest.mark.parametrize("size", [1, HOLES_BLOCK, HOLES_BLOCK + 1, 5 * HOLES_BLOCK])
def test_an_image_of_zeros(size: int) -> None:
    data = bytes(size)
    thin, thick = MemoryWriter(HOLES_BLOCK, holes=True), MemoryWriter(HOLES_BLOCK)
    assert store(io.BytesIO(data), thin) == store(io.BytesIO(data), thick)
    thin.check_stored(data)
    thick.check_stored(data)
    assert thin.writes == []
    assert sum(len(write.data) for write in thick.writes) == size


@settings(deadline=None, max_examples=40)
@given(
    layout=st.lists(st.tuples(st.integers(1, 3 * GRANULARITY), st.booleans()), max_size=8),
    concurrency=st.integers(1, 2),
)
def test_any_layout_of_zeros(layout: list[tuple[int, bool]], concurrency: int) -> None:
    data = b"".join((b"\1" if filled else b"\0") * length for length, filled in layout)
    writer = MemoryWriter(HOLES_BLOCK, concurrency, holes=True)
    store(io.BytesIO(data), writer)
    writer.check_stored(data)
