# SPDX-License-Identifier: Apache-2.0
"""Blocks come out exact, whatever portions go in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glance_store import exceptions
from glance_store.transfer.source import BlockSource

from .memory import BLOCK, Source, pattern


def blocks_of(source: Any, length: int = BLOCK) -> list[bytes]:
    """Return all blocks of a source, having checked that the end stays the end."""
    cut = BlockSource(source)
    blocks = []
    while block := cut.block(length):
        blocks.append(bytes(block))
    assert cut.block(length) == b""
    return blocks


def check_blocks(blocks: list[bytes], data: bytes, length: int = BLOCK) -> None:
    assert b"".join(blocks) == data
    assert all(len(block) == length for block in blocks[:-1])
    assert all(0 < len(block) <= length for block in blocks[-1:])


class ReusingSource:
    """Hands out one and the same buffer, filled anew each time."""

    def __init__(self, data: bytes, kind: type = bytearray) -> None:
        self._stream = io.BytesIO(data)
        self._buffer = bytearray(BLOCK)
        self._kind = kind

    def read(self, length: int) -> Any:
        count = self._stream.readinto(memoryview(self._buffer)[:length])
        if self._kind is bytearray and count == len(self._buffer):
            return self._buffer
        return memoryview(self._buffer)[:count]

    def __iter__(self) -> Iterator[Any]:
        while count := self._stream.readinto(self._buffer):
            yield memoryview(self._buffer)[:count]


class BytesSubclass(bytes):
    """As some HTTP libraries deliver."""


@settings(deadline=None, max_examples=150)
@given(
    data=st.binary(max_size=300),
    portions=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    length=st.integers(1, 40),
)
def test_short_reads(data: bytes, portions: list[int], length: int) -> None:
    check_blocks(blocks_of(Source(data, portions=portions), length), data, length)


@settings(deadline=None, max_examples=150)
@given(parts=st.lists(st.binary(max_size=90), max_size=12), length=st.integers(1, 40))
def test_iterables(parts: list[bytes], length: int) -> None:
    data = b"".join(parts)
    for source in (parts, tuple(parts), iter(parts), (part for part in parts)):
        check_blocks(blocks_of(source, length), data, length)


@settings(deadline=None, max_examples=100)
@given(
    parts=st.lists(st.binary(min_size=1, max_size=90), max_size=12),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_lengths_may_change(parts: list[bytes], lengths: list[int]) -> None:
    source, rest, number = BlockSource(parts), b"".join(parts), 0
    while rest:
        length = lengths[number % len(lengths)]
        assert source.block(length) == rest[:length]
        rest, number = rest[length:], number + 1
    assert source.block(lengths[0]) == b""


@settings(deadline=None, max_examples=100)
@given(
    data=st.binary(max_size=300),
    excess=st.lists(st.integers(0, 90), min_size=1, max_size=6),
    length=st.integers(1, 40),
)
def test_reads_that_return_more_than_asked(data: bytes, excess: list[int], length: int) -> None:
    class Generous(Source):
        def read(self, length: int) -> bytes:
            return super().read(length + excess[len(self.lengths) % len(excess)])

    check_blocks(blocks_of(Generous(data), length), data, length)


def test_one_byte_at_a_time() -> None:
    data = pattern(5 * BLOCK + 3)
    check_blocks(blocks_of(Source(data, portions=[1])), data)
    check_blocks(blocks_of(data[at : at + 1] for at in range(len(data))), data)


def test_no_more_than_the_block_is_asked_for() -> None:
    source = Source(pattern(3 * BLOCK), portions=[BLOCK - 10])
    BlockSource(source).block(BLOCK)
    assert source.lengths == [BLOCK, 10]


def test_a_whole_block_is_not_copied() -> None:
    block = pattern(BLOCK)
    source = BlockSource([block])
    assert source.block(BLOCK) is block


def test_nothing_is_read_after_the_end() -> None:
    source = Source(pattern(BLOCK + 1))
    cut = BlockSource(source)
    while cut.block(BLOCK):
        pass
    reads = len(source.lengths)
    assert cut.block(BLOCK) == b""
    assert len(source.lengths) == reads


def test_empty_parts_of_an_iterable_are_no_end() -> None:
    data = pattern(BLOCK)
    assert blocks_of([b"", data, b"", bytearray(), data, b""]) == [data, data]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, BytesSubclass])
def test_plain_bytes(kind: Any) -> None:
    data = pattern(3 * BLOCK + 1)
    check_blocks(blocks_of(kind(data)), data)
    assert blocks_of(kind(b"")) == []


@pytest.mark.parametrize("kind", [bytearray, memoryview, BytesSubclass])
def test_parts_of_other_types(kind: Any) -> None:
    data = pattern(BLOCK)
    assert blocks_of([kind(data), kind(data)]) == [data, data]


def test_a_view_of_wider_items_counts_its_bytes() -> None:
    data = pattern(BLOCK)
    assert blocks_of([memoryview(data).cast("Q")]) == [data]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_buffer_that_the_source_uses_again_is_copied(kind: type) -> None:
    data = pattern(4 * BLOCK)
    source = BlockSource(ReusingSource(data, kind))
    blocks = [source.block(BLOCK) for _number in range(4)]
    assert blocks == [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]


def test_a_buffer_that_an_iterable_uses_again_is_copied() -> None:
    data = pattern(4 * BLOCK)
    source = BlockSource(iter(ReusingSource(data)))
    blocks = [source.block(BLOCK // 2) for _number in range(8)]
    assert b"".join(blocks) == data


def test_a_huge_part_is_cut_without_copying_its_rest() -> None:
    """Every byte is copied once, into its block; the part itself stays as it came."""
    part = pattern(500 * BLOCK)
    source = BlockSource([part, b"end"])
    for number in range(499):
        assert source.block(BLOCK) == part[number * BLOCK : (number + 1) * BLOCK]
        assert source._rest is part
    assert source.block(BLOCK) == part[-BLOCK:]
    assert source.block(BLOCK) == b"end"


def test_a_huge_part_is_let_go_with_its_last_byte() -> None:
    part = pattern(10 * BLOCK)
    source = BlockSource([part, b"end"])
    for _number in range(10):
        source.block(BLOCK)
    assert source._rest is not part


@pytest.mark.parametrize("wrong", ["text", "", None, 7, 0, [1], object()])
def test_a_read_that_returns_no_bytes(wrong: Any) -> None:
    class Wrong:
        def read(self, length: int) -> Any:
            return wrong

    with pytest.raises(exceptions.Invalid, match=f"returned {type(wrong).__name__} instead"):
        BlockSource(Wrong()).block(BLOCK)


@pytest.mark.parametrize("wrong", ["text", None, 7])
def test_a_later_read_that_returns_no_bytes(wrong: Any) -> None:
    parts = iter([b"first", wrong])

    class Wrong:
        def read(self, length: int) -> Any:
            return next(parts)

    with pytest.raises(exceptions.Invalid, match=type(wrong).__name__):
        BlockSource(Wrong()).block(BLOCK)


@pytest.mark.parametrize("wrong", ["text", ["text"], [None], [7], range(3), {"key": b""}])
def test_an_iterable_of_something_else(wrong: Any) -> None:
    with pytest.raises(exceptions.Invalid, match="instead of bytes"):
        BlockSource(wrong).block(BLOCK)


@pytest.mark.parametrize("wrong", [None, 7, object(), 1.5, len])
def test_what_is_no_source_at_all(wrong: Any) -> None:
    with pytest.raises(exceptions.Invalid, match=f"iterable, not {type(wrong).__name__}"):
        BlockSource(wrong)


def test_an_iterable_whose_read_is_no_method() -> None:
    class Odd:
        read = None

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"data"])

    assert blocks_of(Odd()) == [b"data"]


def test_what_the_source_raises_comes_through() -> None:
    error = OSError("unplugged")

    def broken() -> Iterator[bytes]:
        yield b"some"
        raise error

    with pytest.raises(OSError, match="unplugged") as caught:
        BlockSource(broken()).block(BLOCK)
    assert caught.value is error
