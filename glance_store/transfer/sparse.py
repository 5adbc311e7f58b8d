# SPDX-License-Identifier: Apache-2.0
"""Finds the zeros in a block at memory speed."""

from __future__ import annotations

from collections.abc import Iterator

# Holes are found at multiples of this many bytes from the start of the block.
GRANULARITY = 16 * 1024

_COARSE = 256 * 1024
# startswith() uses memcmp and copies nothing; comparing memoryviews goes item by item.
_ZEROS = bytes(_COARSE)
_FINE_ZEROS = bytes(GRANULARITY)


def is_zero(block: bytes | bytearray, start: int = 0, end: int | None = None) -> bool:
    """Tell whether ``block[start:end]`` is all zeros."""
    stop = len(block) if end is None else end
    for position in range(start, stop, _COARSE):
        length = min(_COARSE, stop - position)
        zeros = _ZEROS if length == _COARSE else _ZEROS[:length]
        if not block.startswith(zeros, position):
            return False
    return True


def data_runs(block: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each run of data in a block, in order and never adjacent.

    Runs of zeros shorter than `GRANULARITY` count as data.
    """
    size = len(block)
    run: int | None = None
    for coarse in range(0, size, _COARSE):
        coarse_end = min(coarse + _COARSE, size)
        if coarse_end - coarse == _COARSE and block.startswith(_ZEROS, coarse):
            if run is not None:
                yield run, coarse
                run = None
            continue
        for position in range(coarse, coarse_end, GRANULARITY):
            length = min(GRANULARITY, size - position)
            zeros = _FINE_ZEROS if length == GRANULARITY else _FINE_ZEROS[:length]
            if not block.startswith(zeros, position):
                if run is None:
                    run = position
            elif run is not None:
                yield run, position
                run = None
    if run is not None:
        yield run, size
