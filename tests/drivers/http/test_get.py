# SPDX-License-Identifier: Apache-2.0
"""Reading images from a web server: whole, in parts, and what the server may answer."""

from __future__ import annotations

import dataclasses
import random

import pytest

import glance_store
from glance_store import capabilities, exceptions
from glance_store.location import get_location_from_uri
from tests.services.http_server import Answer, File, Request, in_turn

IMAGE = random.Random(1).randbytes(100_000)


def test_the_whole_image(web, http):
    chunks, size = http.get(web.serve("/image", IMAGE))
    assert (b"".join(chunks), size) == (IMAGE, len(IMAGE))
    assert [request.method for request in web.requests] == ["GET"]
    assert web.seen("Range") == [None]


def test_in_chunks(web, http):
    http.store.READ_CHUNKSIZE = 30_000
    chunks, _size = http.get(web.serve("/image", IMAGE))
    assert [len(chunk) for chunk in chunks] == [30_000, 30_000, 30_000, 10_000]


def test_through_the_facade(web, http):
    uri = web.serve("/image", IMAGE)
    chunks, size = glance_store.get_from_backend(uri)
    assert (b"".join(chunks), size) == (IMAGE, len(IMAGE))
    assert glance_store.get_size_from_backend(uri) == len(IMAGE)


def test_in_a_multi_store_configuration_with_shared_options(web, create_multi, conf):
    glance_store.register_store_opts(conf)
    options = {("web", "https_insecure"): False}
    assert create_multi({"web": "http", "files": "file"}, options=options) == 4
    conf.set_override("http_store_retry_timeout", 0, group="backend_defaults")
    uri = web.serve("/image", IMAGE)
    for backend in ("web", None):
        chunks, size = glance_store.get(uri, backend)
        assert (b"".join(chunks), size) == (IMAGE, len(IMAGE))
    assert glance_store.get_size_from_uri_and_backend(uri, "web") == len(IMAGE)
    assert glance_store.get_store_from_store_identifier("web").url_prefix == "http"


def test_an_empty_image(web, http):
    chunks, size = http.get(web.serve("/image", b""))
    assert (list(chunks), size) == ([], 0)
    assert http.size(web.url("/image")) == 0
    assert http.read(web.url("/image"), 0, 10) == b""


@pytest.mark.parametrize(
    ("offset", "length", "header"),
    [
        (0, 10, "bytes=0-9"),
        (1, None, "bytes=1-"),
        (50_000, 25, "bytes=50000-50024"),
        (99_990, 500, "bytes=99990-100489"),
        (99_999, None, "bytes=99999-"),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_range(web, http, offset, length, header, framing):
    uri = web.serve("/image", File(IMAGE, framing=framing))
    expected = IMAGE[offset:] if length is None else IMAGE[offset : offset + length]
    chunks, size = http.get(uri, offset=offset, chunk_size=length)
    assert (b"".join(chunks), size) == (expected, len(expected))
    assert web.seen("Range") == [header]


def test_a_range_by_position_arguments(web, http):
    assert http.read(web.serve("/image", IMAGE), 5, 7) == IMAGE[5:12]


@pytest.mark.parametrize("offset", [100_000, 100_001, 10**15])
@pytest.mark.parametrize("length", [None, 10])
def test_a_range_past_the_end_is_empty(web, http, offset, length):
    chunks, size = http.get(web.serve("/image", IMAGE), offset, length)
    assert (list(chunks), size) == ([], 0)


def test_a_range_past_the_end_of_a_file_of_unsaid_size(web, http):
    uri = web.serve("/image", Answer(416))
    chunks, size = http.get(uri, 10)
    assert (list(chunks), size) == ([], 0)


def test_a_range_of_a_file_of_unsaid_size(web, http):
    uri = web.serve("/image", File(IMAGE, total=False))
    chunks, size = http.get(uri, 10, 50)
    assert (b"".join(chunks), size) == (IMAGE[10:60], 0)
    assert http.read(uri, 99_990) == IMAGE[99_990:]


def test_a_server_that_sends_ranges_in_small_parts(web, http):
    good = File(IMAGE)

    def at_most_1000(request):
        start = int(request.headers["range"][len("bytes=") :].partition("-")[0])
        part = f"bytes={start}-{start + 999}"
        return good(type(request)("GET", "/image", {**request.headers, "range": part}))

    uri = web.serve("/image", at_most_1000)
    assert http.read(uri, 500, 2500) == IMAGE[500:3000]
    assert len(web.requests) == 3
    # The parts belong together: from the second on they are asked for on that condition.
    assert web.seen("If-Range")[0] is None
    assert None not in web.seen("If-Range")[1:]


def test_a_beginning_is_read_without_the_help_of_the_server(web, http):
    uri = web.serve("/image", File(IMAGE, ranges=False))
    chunks, size = http.get(uri, 0, 10)
    assert (b"".join(chunks), size) == (IMAGE[:10], 10)
    assert web.wait_until_idle() == 0


@pytest.mark.parametrize("arguments", [{"offset": 5}, {"offset": 5, "chunk_size": 7}])
def test_a_server_without_ranges_is_refused_before_anything_is_read(web, http, arguments):
    uri = web.serve("/image", File(IMAGE, ranges=False))
    with pytest.raises(exceptions.StoreRandomGetNotSupported) as caught:
        http.get(uri, **arguments)
    text = str(caught.value)
    assert "cannot send part of a file" in text
    assert "offset 5" in text
    assert f"length {arguments.get('chunk_size')}" in text
    assert web.wait_until_idle() == 0


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1)])
def test_negative_ranges_are_refused(web, http, offset, length):
    with pytest.raises(exceptions.Invalid):
        http.get(web.serve("/image", IMAGE), offset, length)
    assert web.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Range": "bytes 6-15/100"},
        {"Content-Range": "bytes 5-14/12"},
        {"Content-Range": "bytes 5-13/100"},
        {"Content-Range": "bytes 5-15/100"},
        {"Content-Range": "bytes 14-5/100"},
        {"Content-Range": "octets 5-14/100"},
        {"Content-Range": "bytes */100"},
    ],
)
def test_a_wrong_part_is_refused(web, http, headers):
    uri = web.serve("/image", Answer(206, bytes(10), headers))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="does not follow the HTTP"):
        http.get(uri, 5, 10)


def test_a_part_that_nobody_asked_for_is_refused(web, http):
    for headers in ({"Content-Range": "bytes 0-2/9"}, {"Content-Range": "bytes 0-2/*"}, {}):
        uri = web.serve("/image", Answer(206, b"abc", headers))
        with pytest.raises(exceptions.BadStoreUri, match="206"):
            http.get(uri)


def test_the_whole_file_as_a_part_of_itself(web, http):
    headers = {"Content-Range": f"bytes 0-{len(IMAGE) - 1}/{len(IMAGE)}"}
    uri = web.serve("/image", Answer(206, IMAGE, headers))
    chunks, size = http.get(uri)
    assert (b"".join(chunks), size, http.size(uri)) == (IMAGE, len(IMAGE), len(IMAGE))


@pytest.mark.parametrize("asked", [(0, None), (0, 7), (500, None), (500, 7)])
def test_a_part_with_the_status_of_a_whole_file(web, http, asked):
    whole = File(IMAGE)

    def answer(request):
        if request.method == "HEAD":
            return Answer(403)
        asked_for = request.headers.get("range", f"bytes=0-{len(IMAGE) // 2}")
        sent = whole(Request("GET", "/image", {**request.headers, "range": asked_for}))
        return dataclasses.replace(sent, status=200)

    uri = web.serve("/image", answer)
    offset, length = asked
    stop = len(IMAGE) if length is None else offset + length
    assert http.read(uri, offset, length) == IMAGE[offset:stop]
    assert http.size(uri) == len(IMAGE)


def test_a_contradiction_about_the_size_is_refused(web, http):
    uri = web.serve("/image", Answer(416, b"", {"Content-Range": "bytes */100"}))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="refused a part"):
        http.get(uri, 5, 10)


@pytest.mark.parametrize("length", ["abc", "-5", "1, 2", "1e3", "9" * 30])
def test_a_wrong_content_length_is_refused(web, http, length):
    uri = web.serve("/image", Answer(200, b"a", {"Content-Length": length}))
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        http.get(uri)
    with pytest.raises(exceptions.BadStoreUri):
        http.size(uri)


def test_a_repeated_content_length_is_understood(web, http):
    uri = web.serve("/image", Answer(200, b"abc", {"Content-Length": "3, 3"}))
    assert http.get(uri)[1] == 3


def test_stored_bytes_are_not_decoded(web, http, caplog):
    packed = bytes.fromhex("1f8b08000000000000034bcb0700a16a8d8d03000000")
    uri = web.serve("/image", File(packed, headers={"Content-Encoding": "gzip"}))
    chunks, size = http.get(uri)
    assert (b"".join(chunks), size) == (packed, len(packed))
    assert web.seen("Accept-Encoding") == ["identity"]
    assert "declares the image" in caplog.text


def test_characters_of_a_path_arrive(web, http):
    web.serve("/a%20b;v=1/%E2%82%AC;x", IMAGE)
    assert http.read(web.url("/a%20b;v=1/%E2%82%AC;x?q=%2F&r")) == IMAGE
    assert web.requests[0].target == "/a%20b;v=1/%E2%82%AC;x?q=%2F&r"


def test_r73_a_missing_image_is_not_found(web, http):
    with pytest.raises(exceptions.NotFound) as caught:
        http.size(web.url("/missing"))
    assert web.url("/missing") in str(caught.value)
    with pytest.raises(exceptions.NotFound):
        http.get(web.url("/missing"))
    with pytest.raises(exceptions.NotFound):
        http.get(web.url("/missing"), 5, 10)


@pytest.mark.parametrize("status", [204, 205, 400, 401, 403, 410, 412, 418, 500, 502, 503, 504])
def test_other_answers_are_bad_uris_with_the_status(web, http, status):
    uri = web.serve("/image", Answer(status, reason="Because I say so"))
    for action in (http.get, http.size):
        with pytest.raises(exceptions.BadStoreUri) as caught:
            action(uri)
        assert f"{status} Because I say so" in str(caught.value)
        assert uri in str(caught.value)
    assert web.wait_until_idle() == 0


def test_the_size(web, http):
    assert http.size(web.serve("/image", IMAGE)) == len(IMAGE)
    assert [request.method for request in web.requests] == ["HEAD"]


@pytest.mark.parametrize("status", [403, 405, 501])
@pytest.mark.parametrize("ranges", [True, False])
def test_the_size_without_head(web, http, status, ranges):
    file = File(IMAGE, ranges=ranges)
    uri = web.serve(
        "/image",
        lambda request: Answer(status) if request.method == "HEAD" else file(request),
    )
    assert http.size(uri) == len(IMAGE)
    assert web.wait_until_idle() == 0


def test_the_size_of_an_empty_image_without_head(web, http):
    uri = web.serve("/image", in_turn(Answer(405), File(b"")))
    assert http.size(uri) == 0


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_r86_an_unknown_size_is_0_and_the_image_is_read(web, http, framing):
    uri = web.serve("/image", File(IMAGE, framing=framing, ranges=False))
    chunks, size = http.get(uri)
    assert (b"".join(chunks), size) == (IMAGE, 0)
    assert http.size(uri) == 0
    assert http.read(uri, 0, 10) == IMAGE[:10]


def test_a_content_length_beside_chunks_is_void(web, http):
    uri = web.serve("/image", File(IMAGE, framing="chunked", headers={"Content-Length": "5"}))
    chunks, size = http.get(uri)
    assert (b"".join(chunks), size) == (IMAGE, 0)


def test_the_store_is_read_only(web, http):
    uri = web.serve("/image", IMAGE)
    masks = capabilities.BitMasks
    assert http.store.capabilities == masks.READ_RANDOM | masks.DRIVER_REUSABLE
    with pytest.raises(exceptions.StoreAddDisabled):
        http.store.add("id", iter([b"a"]), 1)
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        http.store.delete(get_location_from_uri(uri))
    with pytest.raises(NotImplementedError):
        http.store.set_acls(get_location_from_uri(uri))
    assert web.requests == []
    assert http.store.get_schemes() == ("http", "https")
    assert http.store.url_prefix == "http"


def test_a_reader_reads_anywhere(web, http):
    reader = http.store.open_reader(get_location_from_uri(web.serve("/image", IMAGE)))
    assert reader.size == len(IMAGE)
    for offset, length in [(0, 10), (10, 10), (500, 20), (0, 5), (99_999, 10), (70_000, 1)]:
        assert reader.read_at(offset, length) == IMAGE[offset : offset + length]
    assert reader.read_at(100_000, 10) == b""
    assert reader.read_at(200_000, 10) == b""
    assert [tuple(extent) for extent in reader.extents(5, 10)] == [(5, 10, True)]
    reader.close()
    assert web.wait_until_idle() <= 1
