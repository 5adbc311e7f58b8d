# SPDX-License-Identifier: Apache-2.0
"""Answers to requests for a part of an object: the right bytes, or an error."""

from __future__ import annotations

from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers._objects.errors import NoResult
from glance_store._drivers._objects.ranges import (
    Part,
    RangeStream,
    ReusableStream,
    bare_etag,
    part_of,
)
from glance_store.testing import image

SIZE = 100
DATA = image(SIZE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"abc"', "abc"),
        ("abc", "abc"),
        ('W/"abc"', "abc"),
        ('w/"abc"', "abc"),
        (' "abc" ', "abc"),
        ("", ""),
        (None, ""),
    ],
)
def test_etags(text: str | None, expected: str) -> None:
    assert bare_etag(text) == expected


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (206, {"content-range": "bytes 10-29/100"}, Part(10, 30)),
        (206, {"content-range": "bytes 10-29/*"}, Part(10, 30)),
        (206, {"content-range": "Bytes 10-29/100 "}, Part(10, 30)),
        # It may end early.
        (206, {"content-range": "bytes 10-10/100"}, Part(10, 11)),
        # A server that knows no ranges.
        (200, {"content-length": "100"}, Part(0, 100)),
        (200, {}, Part(0, 100)),
    ],
)
def test_part(status: int, headers: dict[str, str], expected: Part) -> None:
    assert part_of(status, headers, 10, 20, SIZE, "Reading") == expected


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {}),
        (206, {"content-range": "bytes 0-19/100"}),
        (206, {"content-range": "bytes 11-29/100"}),
        (206, {"content-range": "bytes 10-30/100"}),
        (206, {"content-range": "bytes 10-9/100"}),
        (206, {"content-range": "bytes 10-29/99"}),
        (206, {"content-range": "items 10-29/100"}),
        (206, {"content-range": "bytes */100"}),
        (200, {"content-length": "20"}),
        (204, {}),
        (302, {}),
    ],
)
def test_other_bytes_than_were_asked_for(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(NoResult, match="Reading: the service sent other bytes"):
        part_of(status, headers, 10, 20, SIZE, "Reading")


class Bytes:
    """The body of an answer, in pieces of seven bytes at most."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.closed = False
        self.interrupted = False

    def read(self, length: int) -> bytes:
        taken = min(7, length)
        data, self._data = self._data[:taken], self._data[taken:]
        return data

    def close(self) -> None:
        self.closed = True

    def interrupt(self) -> None:
        self.interrupted = True


def stream_of(start: int, stop: int, offset: int, length: int, keep: Any = None) -> Any:
    body = Bytes(DATA[start:stop])
    stream = RangeStream(body, Part(start, stop), offset, length, lambda at: f"at {at}", keep)
    return stream, body


def drain(stream: RangeStream) -> bytes:
    found = b""
    while data := stream.read(1000):
        found += data
    return found


@pytest.mark.parametrize(("start", "stop"), [(10, 30), (0, 100)], ids=["range", "everything"])
def test_bytes_of_a_range(start: int, stop: int) -> None:
    stream, body = stream_of(start, stop, 10, 20)
    assert drain(stream) == DATA[10:30]
    assert stream.position == 30
    stream.close()
    assert body.closed


def test_answer_that_ends_early() -> None:
    stream, _body = stream_of(10, 30, 10, 20)
    stream._body._data = DATA[10:25]
    with pytest.raises(exceptions.BackendUnavailable, match="at 25: the response ended early"):
        drain(stream)


def test_next_range_goes_on_in_an_answer_with_everything() -> None:
    """Asked anew, the server would send all that precedes once more."""
    rest = ReusableStream()
    stream, body = stream_of(0, 100, 10, 20, rest.keep)
    assert drain(stream) == DATA[10:30]
    stream.close()
    assert not body.closed
    taken = rest.take(40, 10)
    assert taken is stream
    assert rest.take(50, 10) is None
    assert drain(stream) == DATA[40:50]
    stream.close()
    assert not body.closed
    # What has gone by does not come again.
    assert rest.take(45, 10) is None
    assert body.closed


def test_answer_does_not_serve_what_is_behind_its_end() -> None:
    """It may be one of several objects that hold the image."""
    rest = ReusableStream()
    stream, body = stream_of(0, 50, 10, 20, rest.keep)
    drain(stream)
    stream.close()
    assert not body.closed
    assert rest.take(50, 10) is None
    assert body.closed


def test_answer_without_a_rest_is_not_kept() -> None:
    rest = ReusableStream()
    stream, body = stream_of(0, 100, 10, 90, rest.keep)
    drain(stream)
    stream.close()
    assert body.closed
    assert rest.take(100, 1) is None


def test_one_answer_is_kept() -> None:
    rest = ReusableStream()
    first, first_body = stream_of(0, 100, 0, 10, rest.keep)
    second, second_body = stream_of(0, 100, 10, 10, rest.keep)
    first.close()
    second.close()
    assert first_body.closed
    assert not second_body.closed
    rest.close()
    assert second_body.closed
    # Nothing is kept any more.
    third, third_body = stream_of(0, 100, 0, 10, rest.keep)
    third.close()
    assert third_body.closed


def test_interrupted_answer_is_not_kept() -> None:
    rest = ReusableStream()
    stream, body = stream_of(0, 100, 0, 10, rest.keep)
    stream.interrupt()
    stream.close()
    assert body.interrupted
    assert body.closed
