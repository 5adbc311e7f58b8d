# SPDX-License-Identifier: Apache-2.0
"""Requests whose body is fed to them block by block, and that may end before it does."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from glance_store.testing import image
from glance_store.transfer.pipe import BrokenOff, Feed, Pipe

SLICE = 256 * 1024
SIZE = 3 * SLICE + 7
DATA = image(SIZE)


def drain(feed: Any) -> bytes:
    return b"".join(bytes(part) for part in feed)


def pipe_to(send: Any, length: int | None = None) -> Pipe[Any]:
    return Pipe(send, length, "test")


@pytest.mark.parametrize("size", [1, SLICE - 1, SLICE, SLICE + 1, SIZE])
def test_all_bytes_arrive(size):
    pipe = pipe_to(drain)
    for offset in range(0, SIZE, size):
        with memoryview(DATA)[offset : offset + size] as block:
            if size == 1 and offset > 1000:
                break
            assert pipe.feed(block)
    found = pipe.finish()
    assert found == (DATA[:1001] if size == 1 else DATA)
    assert pipe.over


@pytest.mark.parametrize("length", [None, SIZE])
def test_what_clients_see_of_it(length):
    """Those of HTTP send chunks where they find no length."""

    def send(feed: Any) -> tuple[int | None, bytes]:
        return len(feed) if hasattr(feed, "__len__") else None, drain(feed)

    pipe = pipe_to(send, length)
    pipe.feed(memoryview(DATA))
    assert pipe.finish() == (length, DATA)


def test_parts_are_small_however_large_the_block_is():
    """A time limit counts for the sending of one of them."""
    lengths: list[int] = []

    def send(feed: Feed) -> None:
        while part := feed.read(10**9):
            lengths.append(len(part))

    pipe = pipe_to(send)
    pipe.feed(memoryview(DATA))
    pipe.finish()
    assert lengths == [SLICE] * 3 + [7]


def test_block_is_not_needed_any_more():
    """Whoever fed it may use its memory for something else."""

    def send(feed: Feed) -> bytes:
        found = b""
        while True:
            part = feed.read()
            if not part:
                return found
            found += part
            del part

    pipe = pipe_to(send)
    buffer = bytearray(DATA)
    with memoryview(buffer) as block:
        pipe.feed(block)
    buffer.append(0)  # impossible as long as there is a view
    assert pipe.finish() == DATA


@pytest.mark.parametrize("parts_read", [0, 1, 3])
def test_request_that_ends_early(parts_read):
    """The next block is not taken, and the answer is there."""

    def send(feed: Feed) -> str:
        for _number in range(parts_read):
            feed.read()
        return "refused"

    pipe = pipe_to(send)
    buffer = bytearray(DATA)
    with memoryview(buffer) as block:
        while pipe.feed(block):
            pass
        assert pipe.over
        assert not pipe.feed(block)
    buffer.append(0)
    assert pipe.finish() == "refused"


def test_request_that_fails():
    def send(feed: Feed) -> None:
        feed.read()
        raise ConnectionResetError("of the test")

    pipe = pipe_to(send)
    while pipe.feed(memoryview(DATA)):
        pass
    for _time in range(2):
        with pytest.raises(ConnectionResetError, match="of the test"):
            pipe.finish()


@pytest.mark.parametrize("fed", [False, True], ids=["waiting", "between-blocks"])
def test_cancel_ends_the_request(fed):
    """It sees that the rest will not come, and not an end of the data."""
    seen: list[BaseException] = []

    def send(feed: Feed) -> None:
        try:
            drain(feed)
        except BaseException as exc:
            seen.append(exc)
            raise

    pipe = pipe_to(send)
    if fed:
        pipe.feed(memoryview(DATA))
    pipe.cancel()
    assert pipe.over
    assert [type(exc) for exc in seen] == [BrokenOff]


def test_thread_ends_with_the_request():
    before = threading.active_count()
    pipe = pipe_to(drain)
    assert threading.active_count() == before + 1
    pipe.feed(memoryview(DATA))
    pipe.finish()
    assert threading.active_count() == before
