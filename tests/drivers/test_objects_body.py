# SPDX-License-Identifier: Apache-2.0
"""Bodies of uploads: hashed while they are sent, each byte once, and let go of."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import body
from glance_store.testing import image
from glance_store.transfer.retry import Patience

SLICE = 256 * 1024


class _Digest:
    """A real MD5 that notes how many bytes it gets."""

    def __init__(self, noted: list[int], **given: Any) -> None:
        self._digest = hashlib.md5(**given)
        self._noted = noted

    def update(self, data: memoryview) -> None:
        self._noted.append(len(data))
        self._digest.update(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of all that bodies hash."""
    lengths: list[int] = []

    class Module:
        @staticmethod
        def md5(**given: Any) -> _Digest:
            return _Digest(lengths, **given)

    monkeypatch.setattr(body, "hashlib", Module)
    return lengths


def body_of(data: Any, patience: Patience | None = None, hashing: bool = True) -> body.RequestBody:
    return body.RequestBody(data, patience or Patience(0), hashing)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("wanted", [1, 16 * 1024, SLICE, None])
@pytest.mark.parametrize("size", [0, 1, SLICE, SLICE + 1, 3 * SLICE - 1])
def test_slices_are_the_block(size: int, wanted: int | None, noted: list[int]) -> None:
    data = image(size)
    sent = body_of(data)
    assert len(sent) == size
    for _again in range(2):
        whole = b""
        while part := sent.read(wanted):
            whole += part
        assert whole == data
        assert sent.rewound() is sent
    assert sent.md5 == sent.md5 == md5(data)
    assert sum(noted) == size


def test_slices_are_hashed_behind_the_sending(noted: list[int]) -> None:
    sent = body_of(image(2 * SLICE))
    sent.read(1)
    assert sum(noted) == 0
    sent.read(1)
    assert sum(noted) == SLICE
    assert sent.read(1) == b""
    assert sum(noted) == 2 * SLICE


@pytest.mark.parametrize("reached", [[0], [3], [2, 0, 1], [1, 3, 2], [4, 4]])
def test_hashing_goes_on_where_it_stopped(reached: list[int], noted: list[int]) -> None:
    """However far the tries get: what one has hashed is not hashed by another."""
    data = image(4 * SLICE - 3)
    sent = body_of(data)
    for slices_asked_for in reached:
        sent.rewound()
        for _number in range(slices_asked_for):
            sent.read(1)
    # A slice is not known to be sent before the next one is asked for.
    assert sum(noted) == max(0, max(reached) - 1) * SLICE
    assert sent.md5 == md5(data)
    assert sum(noted) == len(data)


def test_nothing_is_hashed_that_nobody_asks_for(noted: list[int]) -> None:
    sent = body_of(image(SLICE + 1), hashing=False)
    while sent.read(1):
        pass
    assert noted == []
    assert sent.md5 == md5(image(SLICE + 1))
    assert sum(noted) == SLICE + 1


def test_nothing_refers_to_the_block_afterwards() -> None:
    block = bytearray(image(2 * SLICE))
    with memoryview(block) as view:
        sent = body_of(view)
        with memoryview(sent.read(1)):
            pass
        sent.release()
    block.append(0)  # impossible as long as there is a view


def test_nothing_more_is_sent_when_the_upload_is_over() -> None:
    patience = Patience(30)
    sent = body_of(image(2 * SLICE), patience)
    assert sent.read(1)
    patience.stop()
    with pytest.raises(exceptions.BackendException, match="interrupted"):
        sent.read(1)


@pytest.mark.parametrize(
    ("offset", "whence", "position"),
    [(3, os.SEEK_SET, 3), (2, os.SEEK_CUR, 12), (-4, os.SEEK_END, 6), (-20, os.SEEK_END, 0)],
)
def test_positions(offset: int, whence: int, position: int) -> None:
    sent = body_of(b"0123456789")
    sent.read(1)
    assert sent.tell() == 10
    assert sent.seek(offset, whence) == sent.tell() == position
    assert bytes(sent.read(1)) == b"0123456789"[position:]


def test_checksums() -> None:
    sent = body_of(b"123456789")
    assert sent.sha256 == hashlib.sha256(b"123456789").hexdigest()
    assert base64.b64decode(sent.content_md5()).hex() == md5(b"123456789")
    # The check values of both in the catalogue of CRC algorithms.
    expected = {"CRC32": "cbf43926", "CRC32C": "e3069283"}
    name, value = sent.crc
    assert name == body.crc_name()
    assert base64.b64decode(value).hex() == expected[name]


def test_it_is_no_line_of_a_log() -> None:
    assert repr(body_of(b"secret")) == "<RequestBody of 6 bytes>"
