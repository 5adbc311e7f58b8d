# SPDX-License-Identifier: Apache-2.0
"""Downloads that break off: resumed where that is safe, never short, never two versions mixed."""

from __future__ import annotations

import dataclasses
import random

import pytest

from glance_store import exceptions
from tests.services.http_server import Answer, File, cutting, in_turn

IMAGE = random.Random(2).randbytes(100_000)
CHANGED = random.Random(3).randbytes(100_000)
YESTERDAY = "Fri, 20 Nov 2026 08:00:00 GMT"
TODAY = "Sat, 21 Nov 2026 08:00:00 GMT"


@pytest.fixture(params=["close", "reset"])
def ending(request):
    return request.param


def broken(uri, http, *arguments):
    """Read until it fails; return what came before, and the error."""
    chunks, _size = http.get(uri, *arguments)
    received = []
    with pytest.raises(exceptions.RemoteServiceUnavailable) as caught:
        received.extend(chunks)
    # It stays at an end: nobody takes the rest for the image.
    assert list(chunks) == []
    return b"".join(received), str(caught.value)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(
    ("etag", "modified", "condition"),
    [
        ('"v1"', None, '"v1"'),
        ('"v1"', YESTERDAY, '"v1"'),
        (None, YESTERDAY, YESTERDAY),
        # A weak tag says nothing about bytes.
        ('W/"v1"', YESTERDAY, YESTERDAY),
    ],
)
def test_the_rest_is_asked_for(web, http, ending, framing, etag, modified, condition):
    http.store.READ_CHUNKSIZE = 10_000
    file = File(IMAGE, etag=etag, modified=modified, framing=framing)
    uri = web.serve("/image", in_turn(cutting(file, 45_000, ending), file))
    assert http.read(uri) == IMAGE
    first, second = web.requests
    assert "range" not in first.headers
    assert second.headers["if-range"] == condition
    start = int(second.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 10_000 <= start <= 45_000


def test_the_rest_comes_with_the_status_of_a_whole_file(web, http, ending):
    file = File(IMAGE)

    def rest(request):
        return dataclasses.replace(file(request), status=200)

    uri = web.serve("/image", in_turn(cutting(file, 45_000, ending), rest))
    assert http.read(uri) == IMAGE


def test_a_range_is_resumed_and_ends_where_it_should(web, http, ending):
    http.store.READ_CHUNKSIZE = 10_000
    file = File(IMAGE)
    uri = web.serve("/image", in_turn(cutting(file, 25_000, ending), file))
    chunks, size = http.get(uri, 1_000, 60_000)
    assert (b"".join(chunks), size) == (IMAGE[1_000:61_000], 60_000)
    second = web.requests[1].headers["range"]
    assert second.endswith("-60999")
    assert int(second.removeprefix("bytes=").partition("-")[0]) > 1_000


def test_a_silent_server_is_resumed_after_the_timeout(web, http_store):
    http = http_store(http_store_read_timeout=1)
    http.store.READ_CHUNKSIZE = 10_000
    file = File(IMAGE)
    uri = web.serve("/image", in_turn(cutting(file, 20_000, "silence"), file))
    assert http.read(uri) == IMAGE
    assert web.seen("Range") == [None, "bytes=20000-"]


def test_it_breaks_off_again_and_again(web, http):
    http.store.READ_CHUNKSIZE = 20_000
    file = File(IMAGE)
    uri = web.serve("/image", in_turn(*[cutting(file, 25_000)] * 6, file))
    # One retry is allowed for each interruption, not for the whole download.
    assert http.read(uri) == IMAGE
    assert len(web.requests) > 3


def test_the_retries_end(web, http_store):
    http = http_store(http_store_retry_timeout=2)
    http.store.READ_CHUNKSIZE = 10_000
    file = File(IMAGE)
    uri = web.serve("/image", in_turn(cutting(file, 30_000), Answer(0)))
    received, text = broken(uri, http)
    assert received == IMAGE[:30_000]
    assert "at byte 30000" in text
    # Each try takes a second connection, for the case that the first was idle.
    ranges = web.seen("Range")[1:]
    assert set(ranges) == {"bytes=30000-"}
    assert len(ranges) >= 4
    assert len(ranges) % 2 == 0


def test_no_retry_is_allowed(web, http_store):
    http = http_store(http_store_retry_timeout=0)
    http.store.READ_CHUNKSIZE = 10_000
    uri = web.serve("/image", cutting(File(IMAGE), 30_000))
    received, text = broken(uri, http)
    assert received == IMAGE[:30_000]
    assert "at byte 30000" in text
    assert len(web.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_server_is_asked_again(web, http_store, status):
    http = http_store(http_store_retry_timeout=2)
    file = File(IMAGE)
    uri = web.serve("/image", in_turn(cutting(file, 30_000), Answer(status), file))
    assert http.read(uri) == IMAGE


@pytest.mark.parametrize(("seconds", "requests"), [("1", 3), ("3600", 2)])
def test_an_overloaded_server_says_when(web, http_store, seconds, requests):
    http = http_store(http_store_retry_timeout=10)
    http.store.READ_CHUNKSIZE = 10_000
    file = File(IMAGE)
    busy = Answer(503, b"", {"Retry-After": seconds})
    uri = web.serve("/image", in_turn(cutting(file, 30_000), busy, file))
    if requests == 3:
        assert http.read(uri) == IMAGE
    else:
        # That is more than the time that is left.
        broken(uri, http)
    assert len(web.requests) == requests


def test_an_image_that_is_removed_meanwhile_is_not_found(web, http):
    http.store.READ_CHUNKSIZE = 10_000
    uri = web.serve("/image", in_turn(cutting(File(IMAGE), 30_000), Answer(404)))
    chunks, _size = http.get(uri)
    with pytest.raises(exceptions.NotFound):
        list(chunks)


@pytest.mark.parametrize(
    "after",
    [
        File(CHANGED),
        File(CHANGED, etag='W/"v1"', modified=TODAY),
        File(CHANGED + b"more"),
        File(IMAGE[:20_000]),
        File(CHANGED, ranges=False),
        # A server that ignores the condition: the tag, the date or the length betrays it.
        lambda request: Answer(
            206,
            CHANGED[30_000:],
            {"ETag": '"other"', "Content-Range": "bytes 30000-99999/100000"},
        ),
        lambda request: Answer(
            206, CHANGED[30_000:], {"Content-Range": "bytes 30000-99999/100001"}
        ),
        lambda request: Answer(416, b"", {"Content-Range": "bytes */30000"}),
        lambda request: Answer(416),
    ],
)
def test_an_image_that_changes_is_an_error(web, http, after):
    http.store.READ_CHUNKSIZE = 10_000
    before = File(IMAGE, modified=YESTERDAY)
    uri = web.serve("/image", in_turn(cutting(before, 30_000), after))
    received, text = broken(uri, http)
    assert received == IMAGE[:30_000]
    assert "changed" in text or "does not follow" in text
    assert len(web.requests) == 2


def test_a_changed_date_is_an_error(web, http):
    http.store.READ_CHUNKSIZE = 10_000
    before = File(IMAGE, etag=None, modified=YESTERDAY)
    after = Answer(
        206,
        CHANGED[30_000:],
        {"Last-Modified": TODAY, "Content-Range": "bytes 30000-99999/100000"},
    )
    _received, text = broken(web.serve("/image", in_turn(cutting(before, 30_000), after)), http)
    assert "changed on the web server while it was being read, at byte 30000" in text


def test_a_change_before_the_first_byte_is_an_error_too(web, http):
    shorter = File(IMAGE[:-1])
    uri = web.serve("/image", in_turn(cutting(File(IMAGE), 0), shorter))
    _received, text = broken(uri, http)
    assert "changed" in text


def test_a_break_before_the_first_byte_begins_anew(web, http, ending):
    file = File(IMAGE, ranges=False, etag=None)
    uri = web.serve("/image", in_turn(cutting(file, 0, ending), file))
    assert http.read(uri) == IMAGE
    assert web.seen("Range") == [None, None]


def test_without_ranges_the_error_says_where_it_broke_off(web, http, ending):
    http.store.READ_CHUNKSIZE = 10_000
    uri = web.serve("/image", cutting(File(IMAGE, ranges=False), 40_000, ending))
    received, text = broken(uri, http)
    assert IMAGE.startswith(received)
    assert f"broke off at byte {len(received)}" in text
    assert "does not send parts of a file" in text
    assert len(web.requests) == 1


@pytest.mark.parametrize("etag", [None, 'W/"v1"', "unquoted"])
def test_without_a_version_nothing_is_mixed(web, http, etag):
    http.store.READ_CHUNKSIZE = 10_000
    uri = web.serve("/image", cutting(File(IMAGE, etag=etag), 40_000))
    received, text = broken(uri, http)
    assert received == IMAGE[:40_000]
    assert "broke off at byte 40000" in text
    assert "neither an ETag nor Last-Modified" in text
    assert len(web.requests) == 1


def test_a_server_that_only_seems_to_know_ranges(web, http):
    http.store.READ_CHUNKSIZE = 10_000
    file = File(IMAGE, ranges=False, headers={"Accept-Ranges": "bytes"})
    uri = web.serve("/image", in_turn(cutting(file, 40_000), file))
    received, text = broken(uri, http)
    assert received == IMAGE[:40_000]
    assert "the server only sends whole files" in text


def test_r87_short_body_raises(web, http_store):
    http = http_store(http_store_retry_timeout=0)
    file = File(IMAGE, ranges=False, headers={"Content-Length": str(len(IMAGE) + 1)})
    uri = web.serve("/image", cutting(file, len(IMAGE)))
    received, text = broken(uri, http)
    assert IMAGE.startswith(received)
    assert "at byte" in text
    assert web.wait_until_idle() == 0


def test_r87_a_body_cut_between_chunks_raises(web, http_store):
    http = http_store(http_store_retry_timeout=0)
    uri = web.serve("/image", cutting(File(IMAGE, framing="chunked"), 50_000))
    _received, text = broken(uri, http)
    assert "the connection was closed before the end" in text


def test_r87_a_part_shorter_than_announced_raises(web, http_store):
    http = http_store(http_store_retry_timeout=0)
    part = Answer(206, IMAGE[5:10], {"Content-Range": "bytes 5-14/100000"}, framing="chunked")
    received, text = broken(web.serve("/image", part), http, 5, 10)
    assert "not at byte 15" in text
    assert IMAGE[5:].startswith(received)


def test_a_body_longer_than_announced_raises(web, http):
    part = Answer(206, IMAGE[5:25], {"Content-Range": "bytes 5-14/100000"}, framing="chunked")
    _received, text = broken(web.serve("/image", part), http, 5, 10)
    assert "more than the 15 bytes" in text


def test_bytes_behind_the_announced_length_are_not_taken_for_the_next_answer(web, http):
    web.serve("/image", Answer(200, IMAGE, {"Content-Length": "50"}))
    for _time in range(3):
        assert http.read(web.url("/image")) == IMAGE[:50]
