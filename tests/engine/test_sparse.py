# SPDX-License-Identifier: Apache-2.0
"""Zeros are found where they are, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glance_store.transfer import sparse
from glance_store.transfer.sparse import GRANULARITY, data_runs, is_zero

# Lengths around the steps in which the module looks at a block.
STEPS = (1, 511, GRANULARITY - 1, GRANULARITY, GRANULARITY + 1, 3 * GRANULARITY)
COARSE = 256 * 1024
LENGTHS = st.one_of(
    st.integers(0, 3 * GRANULARITY),
    st.sampled_from([*STEPS, COARSE - 1, COARSE, COARSE + 1, 2 * COARSE, COARSE + GRANULARITY]),
)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Runs of zeros and of other bytes in turn, and single bytes in the midst of zeros."""
    parts = []
    for length, zeros in draw(st.lists(st.tuples(LENGTHS, st.booleans()), max_size=6)):
        parts.append(bytes(length) if zeros else b"\xff" * length)
    block = bytearray(b"".join(parts))
    if block:
        for position in draw(st.lists(st.integers(0, len(block) - 1), max_size=3)):
            block[position] = 1
    return bytes(block)


def naive_runs(block: bytes) -> list[tuple[int, int]]:
    """The same, one step after the other."""
    runs: list[tuple[int, int]] = []
    for start in range(0, len(block), GRANULARITY):
        end = min(start + GRANULARITY, len(block))
        if not block[start:end].strip(b"\0"):
            continue
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def check_runs(block: bytes) -> None:
    runs = list(data_runs(block))
    position = 0
    for number, (start, end) in enumerate(runs):
        assert start < end <= len(block)
        assert start > position or (start == 0 and number == 0)  # in order, not touching
        assert not block[position:start].strip(b"\0")
        assert start % GRANULARITY == 0
        assert end % GRANULARITY == 0 or end == len(block)
        position = end
    assert not block[position:].strip(b"\0")
    assert runs == naive_runs(block)


def test_the_granularity_is_fine() -> None:
    assert GRANULARITY <= 64 * 1024
    assert sparse._COARSE % GRANULARITY == 0


@settings(deadline=None, max_examples=150)
@given(blocks())
def test_runs(block: bytes) -> None:
    check_runs(block)
    assert list(data_runs(bytearray(block))) == list(data_runs(block))


@pytest.mark.parametrize("size", [0, *STEPS, COARSE, COARSE + 1, 3 * COARSE + GRANULARITY + 1])
def test_all_zeros_and_no_zeros(size: int) -> None:
    assert list(data_runs(bytes(size))) == []
    assert list(data_runs(b"\1" * size)) == ([(0, size)] if size else [])


@pytest.mark.parametrize("size", [1, GRANULARITY + 1, COARSE + 2 * GRANULARITY + 3])
def test_one_byte_among_zeros(size: int) -> None:
    for position in {0, size // 2, size - 1, min(COARSE, size - 1)}:
        block = bytearray(size)
        block[position] = 1
        check_runs(bytes(block))
        assert len(list(data_runs(block))) == 1
        assert not is_zero(block)


def test_a_hole_of_one_step_is_found() -> None:
    block = b"\1" * GRANULARITY + bytes(GRANULARITY) + b"\1"
    assert list(data_runs(block)) == [(0, GRANULARITY), (2 * GRANULARITY, 2 * GRANULARITY + 1)]


@pytest.mark.parametrize("data", [1, GRANULARITY, COARSE - GRANULARITY, COARSE, COARSE + 1])
@pytest.mark.parametrize("zeros", [GRANULARITY, COARSE, 2 * COARSE + GRANULARITY])
def test_a_hole_between_data(data: int, zeros: int) -> None:
    check_runs(b"\1" * data + bytes(zeros) + b"\1" * data)
    check_runs(bytes(zeros) + b"\1" * data + bytes(zeros))


@settings(deadline=None, max_examples=150)
@given(blocks(), st.data())
def test_is_zero(block: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(block)))
    end = data.draw(st.one_of(st.none(), st.integers(start, len(block))))
    expected = not block[start:end].strip(b"\0")
    assert is_zero(block, start, end) is expected
    assert is_zero(bytearray(block), start, end) is expected
