# SPDX-License-Identifier: Apache-2.0
"""Heads of answers in any state: understood to the end, or refused."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glance_store._drivers._head import read_head

STATUS = b"HTTP/1.1 200 OK\r\n"


def fields(text):
    stream = io.BytesIO(text)
    stream.readline()
    return http.client.parse_headers(stream)


@pytest.mark.parametrize(
    ("lines", "kept", "damaged"),
    [
        (b"A: b\r\nC:d\n", {"A": "b", "C": "d"}, False),
        (b"A :\t b \r\nC: d\r\n", {"A": "b", "C": "d"}, False),
        (b"A: b\r\n c\r\n\td\r\nE: f\r\n", {"A": "b c d", "E": "f"}, False),
        (b"A: b\rC: d\r\nE: f\r\n", {"A": "b C: d", "E": "f"}, False),
        (b"A: b\r\njunk\r\n C: d\r\nE: f\r\n", {"A": "b", "E": "f"}, True),
        (b" first: x\r\nA: b\r\n", {"A": "b"}, True),
        (b"\r\r\nA: b\r\n", {"A": "b"}, True),
        (b"A:\r\n", {"A": ""}, False),
    ],
)
def test_header_lines(lines, kept, damaged):
    stream = io.BytesIO(STATUS + lines + b"\r\nbody")
    head = read_head(stream)
    assert dict(fields(head.text)) == kept
    assert head.damaged is damaged
    assert stream.read() == b"body"


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=20) | st.sampled_from([b"A: b", b" c", b"D : e", b"junk"])),
    interim=st.integers(0, 3),
)
def test_no_line_hides_those_behind_it(lines, interim):
    # A line is what ends with a line feed; an empty one would be the end.
    lines = [line.replace(b"\n", b"") for line in lines]
    lines = [line for line in lines if line not in (b"", b"\r")]
    text = b"".join(line + b"\r\n" for line in lines)
    stream = io.BytesIO(
        b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * interim
        + STATUS + text + b"Last: one\r\n\r\nbody"
    )  # fmt: skip
    head = read_head(stream)
    assert stream.read() == b"body"
    parsed = fields(head.text)
    assert parsed["Last"].endswith("one")
    assert not parsed.defects
    assert not parsed.get_payload()


@settings(max_examples=200, deadline=None)
@given(text=st.binary(max_size=60), start=st.sampled_from([b"", b"HTTP/", STATUS]))
def test_any_bytes_are_a_head_or_an_error(text, start):
    try:
        head = read_head(io.BytesIO(start + text))
    except http.client.HTTPException:
        return
    assert head.text.endswith(b"\r\n")
