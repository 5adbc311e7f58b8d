# SPDX-License-Identifier: Apache-2.0
"""Ranges of images that are read from one object after the other."""

from __future__ import annotations

import pytest

from glance_store._drivers.swift.reader import Piece, Pieces


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("sizes", [[5], [1, 2, 3], [0, 4, 0, 0, 3, 0], [0, 0], [2] * 7, [0, 1]])
def test_all_ranges(sizes, most):
    """Each range of each image consists of its bytes, in order, in parts that are not too long."""
    names = [chr(ord("a") + number) for number in range(len(sizes))]
    objects = [Piece("c", name, size, "") for name, size in zip(names, sizes, strict=True)]
    pieces = Pieces(objects, in_segments=True)
    whole = [(name, at) for name, size in zip(names, sizes, strict=True) for at in range(size)]
    assert pieces.size == len(whole)
    for offset in range(len(whole)):
        for length in range(len(whole) - offset + 1):
            parts, missing = [], length
            while missing:
                parts.append(pieces.part(offset + length - missing, missing, most))
                missing -= parts[-1][2]
            assert all(0 < taken <= most for _piece, _begin, taken in parts)
            found = [
                (piece.name, begin + at) for piece, begin, taken in parts for at in range(taken)
            ]
            assert found == whole[offset : offset + length]


def test_one_object():
    pieces = Pieces([Piece("c", "image", 10, "etag")])
    assert len(pieces) == 1
    # It is asked for in one go, however long that is.
    assert pieces.part(3, 4, 2) == (Piece("c", "image", 10, "etag"), 3, 4)
