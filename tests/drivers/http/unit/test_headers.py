# SPDX-License-Identifier: Apache-2.0
"""What the http store understands of the headers of an answer."""

from __future__ import annotations

import pytest

from glance_store._drivers.http import headers
from glance_store._drivers.http.headers import Part, Version

DATE = "Fri, 20 Nov 2026 08:00:00 GMT"


@pytest.mark.parametrize(
    ("given", "length"),
    [
        ({}, None),
        ({"Content-Length": "0"}, 0),
        ({"Content-Length": "12"}, 12),
        ({"Content-Length": "12, 12"}, 12),
        ({"Content-Length": "12", "Transfer-Encoding": "Chunked"}, None),
    ],
)
def test_content_length(given, length):
    assert headers.content_length(given) == length


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "0x1", "a", "1, 2", "1,", "\u0661", "1" * 20]
)
def test_no_content_length(text):
    with pytest.raises(ValueError, match=r"^Content-Length$"):
        headers.content_length({"Content-Length": text})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bytes 0-0/1", Part(0, 1, 1)),
        ("bytes 5-9/100", Part(5, 10, 100)),
        ("Bytes 5-9/*", Part(5, 10, None)),
    ],
)
def test_content_range(text, part):
    assert headers.content_range({"Content-Range": text}) == part


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Content-Range": "5-9/100"},
        {"Content-Range": "bytes 5-9"},
        {"Content-Range": "bytes 9-5/100"},
        {"Content-Range": "bytes 5-100/100"},
        {"Content-Range": "bytes -5-9/100"},
        {"Content-Range": "bytes */100"},
        {"Content-Range": f"bytes 0-{'9' * 30}/*"},
        {"Content-Range": "bytes 5-9/100", "Content-Length": "6"},
    ],
)
def test_no_content_range(given):
    with pytest.raises(ValueError, match=r"^Content-Range$"):
        headers.content_range(given)


@pytest.mark.parametrize(
    ("text", "total"), [("bytes */7", 7), ("bytes */*", None), ("bytes 1-2/7", None), ("", None)]
)
def test_total_of_a_refusal(text, total):
    assert headers.unsatisfied_total({"Content-Range": text}) == total


@pytest.mark.parametrize(
    ("given", "validator"),
    [
        ({}, None),
        ({"ETag": '"a"'}, '"a"'),
        ({"ETag": '"a"', "Last-Modified": DATE}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": DATE}, DATE),
        ({"ETag": 'W/"a"'}, None),
        ({"ETag": "a"}, None),
        # Nothing that could end the header it is sent back in.
        ({"ETag": '"a"\r\nX: "b"', "Last-Modified": f"{DATE}\r\n X: y"}, None),
    ],
)
def test_validator(given, validator):
    assert Version.of(given).validator == validator


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (Version(None, None), Version(None, None), False),
        (Version('"a"', None), Version('"a"', None), False),
        (Version('"a"', None), Version('"b"', None), True),
        (Version('"a"', None), Version('W/"a"', None), False),
        (Version('"a"', DATE), Version(None, DATE), False),
        (Version(None, DATE), Version(None, "Sat, 21 Nov 2026 08:00:00 GMT"), True),
        (Version('"a"', None), Version(None, DATE), False),
    ],
)
def test_versions(one, other, differs):
    assert one.differs(other) is differs
    assert other.differs(one) is differs
