# SPDX-License-Identifier: Apache-2.0
"""Answers that are malformed, not HTTP at all, or preceded by others: read in full or refused."""

from __future__ import annotations

import logging

import pytest

from glance_store import exceptions
from tests.drivers.http.raw_server import RawServer, head
from tests.services.http_server import Answer

IMAGE = bytes(range(256)) * 4
LENGTH = f"Content-Length: {len(IMAGE)}"


@pytest.fixture
def serve(request):
    """Start a server that gives these bytes to everyone; return its URL of an image."""

    def start(answer):
        server = RawServer(answer)
        server.__enter__()
        request.addfinalizer(server.__exit__)
        return f"{server.url}/image"

    return start


INTERIM = {
    "early hints": head("103 Early Hints", "Link: </a>; rel=preload"),
    "without a header": head("103 Early Hints"),
    "continue": head("100 Continue"),
    "processing": head("102 Processing", "X-Progress: 50"),
    "with a length": head("110 Odd", "Content-Length: 5"),
    "without a reason": b"HTTP/1.1 102\r\n\r\n",
    "of the old version": b"HTTP/1.0 102 Processing\r\n\r\n",
    "several": head("100 Continue") + head("103 Early Hints") + head("103 Early Hints"),
}


@pytest.mark.parametrize("before", INTERIM.values(), ids=INTERIM)
def test_interim_answers_are_passed_over(serve, http, before):
    uri = serve(before + head("200 OK", LENGTH) + IMAGE)
    chunks, size = http.get(uri)
    assert (b"".join(chunks), size) == (IMAGE, len(IMAGE))
    assert http.size(serve(before + head("200 OK", LENGTH))) == len(IMAGE)


def test_interim_answers_without_an_end_are_an_error(serve, http):
    uri = serve(head("103 Early Hints") * 1000)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="not valid HTTP"):
        http.get(uri)


def test_an_interim_answer_and_nothing_more_is_an_error(serve, http):
    uri = serve(head("103 Early Hints"))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="without a response"):
        http.get(uri)


MALFORMED = {
    "space before the colon": "X-Cache : hit",
    "tab before the colon": "X-Cache\t: hit",
    "no colon": "this is not a header",
    "no name": ": value",
    "space in the name": "X Cache: hit",
    "begins with a space": " X-Cache: hit",
    "not ASCII": "X-Caché: hit",
    "mailbox": "From me Sat Nov 21 08:00:00 2026",
    "carriage return": "X-Cache: a\rb: c",
    "only a carriage return": "\r",
    "null": "X-Cache: a\0b",
    "folded": "X-Cache: a\r\n b: c",
    "not a header, folded": "what is this\r\n Content-Length: 1",
}


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED)
def test_what_follows_a_malformed_header_counts(serve, http, line):
    uri = serve(head("200 OK", line, LENGTH) + IMAGE)
    chunks, size = http.get(uri)
    assert (b"".join(chunks), size) == (IMAGE, len(IMAGE))
    # The bytes that are missing are noticed.
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="broke off at byte"):
        http.read(serve(head("200 OK", line, LENGTH) + IMAGE[:-1]))
    assert http.size(serve(head("200 OK", line, LENGTH))) == len(IMAGE)


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED)
def test_chunks_behind_a_malformed_header_are_chunks(serve, http, line):
    chunked = head("200 OK", line, "Transfer-Encoding: chunked")
    uri = serve(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(IMAGE), IMAGE))
    assert http.read(uri) == IMAGE


def test_a_header_that_is_not_understood_is_told(serve, http, caplog):
    caplog.set_level(logging.WARNING)
    uri = serve(head("200 OK", "SECRET", LENGTH) + IMAGE)
    assert http.read(f"{uri}?token=SECRET") == IMAGE
    (record,) = caplog.records
    assert f"{uri}?***" in record.getMessage()
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("line", ["Content-Length 2000", "X Content-Length: 2000"])
def test_a_header_that_may_have_been_the_length_is_an_error(serve, http, line):
    uri = serve(head("200 OK", line) + IMAGE)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="not valid HTTP"):
        http.get(uri)
    with pytest.raises(exceptions.BadStoreUri, match="not valid HTTP"):
        http.size(uri)


def test_spaces_around_a_length_do_not_belong_to_it(serve, http):
    chunks, size = http.get(serve(head("200 OK", f"Content-Length : \t{len(IMAGE)} ") + IMAGE))
    assert (b"".join(chunks), size) == (IMAGE, len(IMAGE))


@pytest.mark.parametrize("coding", ["chunked ", "Chunked", "identity, chunked", "\tchunked"])
def test_a_transfer_encoding_in_another_form(serve, http, coding):
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(IMAGE), IMAGE)
    uri = serve(head("200 OK", f"Transfer-Encoding: {coding}") + body)
    try:
        data = http.read(uri)
    except exceptions.RemoteServiceUnavailable as exc:
        assert "not valid HTTP" in str(exc)  # noqa: PT017 - either is right, chunks as data are not
    else:
        assert data == IMAGE


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "chunked, chunked", "chunked;a=b"])
def test_another_transfer_encoding_is_an_error(serve, http, coding):
    uri = serve(head("200 OK", f"Transfer-Encoding: {coding}", LENGTH) + IMAGE)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="not valid HTTP"):
        http.get(uri)


def test_no_transfer_encoding_by_name(serve, http):
    uri = serve(head("200 OK", "Transfer-Encoding: identity", LENGTH) + IMAGE)
    assert http.get(uri)[1] == len(IMAGE)


@pytest.mark.parametrize("size", [b"-1", b"-5", b"-ffffffff", b"", b"x", b"5 5", b"5" * 70_000])
def test_a_chunk_of_a_wrong_size_is_an_error(serve, http, size):
    body = size + b"\r\nabcde\r\n0\r\n\r\n"
    uri = serve(head("200 OK", "Transfer-Encoding: chunked") + body)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="broke off at byte 0"):
        http.read(uri)


@pytest.mark.parametrize("end", [b"", b"0", b"0;last=1", b"000", b"\n0\r\n\r\n"])
def test_chunks_that_end_before_the_last_one_are_an_error(serve, http, end):
    # Of a size such as 00001000 the first digit alone has come: that is no last chunk.
    uri = serve(head("200 OK", "Transfer-Encoding: chunked") + b"5\r\nabcde\r\n" + end)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="broke off"):
        http.read(uri)


@pytest.mark.parametrize(
    "size", [b"5", b"005", b"5  ", b"5;name=value", b"5 ; a", b"0" * 40 + b"5"]
)
@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\n", b"00\nTrailer: a\r\n\r\n"])
def test_chunks(serve, http, size, end):
    body = size + b"\r\nabcde\r\n" + end
    assert http.read(serve(head("200 OK", "Transfer-Encoding: chunked") + body)) == b"abcde"


NOT_HTTP = {
    "nothing": b"",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "smtp": b"220 mail.example.org ESMTP\r\n",
    "tls alert": bytes.fromhex("15030100020246"),
    "tls alert and more": bytes.fromhex("15030100020246") + b"\nabc\n",
    "html": b"<html><body>hello</body></html>\n",
    "empty lines": b"\r\n\r\n\r\n",
    "zeros": bytes(100_000),
    "radio": b"ICY 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
    "another version": b"HTTP/7 200 OK\r\n\r\n",
    "no version": b"HTTP/ 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status in words": b"HTTP/1.1 fine OK\r\n\r\n",
    "a small status": b"HTTP/1.1 99 OK\r\n\r\n",
    "a negative status": b"HTTP/1.1 -200 OK\r\n\r\n",
    "a long line": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
    "many lines": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000,
    "a status line and no more": b"HTTP/1.1 200 OK\r\n",
}


@pytest.mark.parametrize("answer", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_is_an_error_of_the_library(serve, http, answer):
    uri = serve(answer)
    with pytest.raises(exceptions.RemoteServiceUnavailable) as caught:
        http.get(uri)
    assert uri in str(caught.value)
    assert str(caught.value).isprintable()
    with pytest.raises(exceptions.BadStoreUri):
        http.size(uri)


def test_what_is_not_http_is_not_asked_twice(http):
    with RawServer(b"SSH-2.0-OpenSSH_9.6\r\n") as server:
        with pytest.raises(exceptions.RemoteServiceUnavailable):
            http.get(f"{server.url}/image")
        assert len(server.lines) == 1


@pytest.mark.parametrize("status", [*range(400, 405), 406, 410, 429, 451, 501])
@pytest.mark.parametrize("ranges", [True, False])
def test_the_size_where_head_is_refused(http, status, ranges):
    def answer(line):
        if line.startswith("HEAD"):
            return head(f"{status} No", "Content-Length: 7")
        if ranges:
            return head("206 Part", f"Content-Range: bytes 0-0/{len(IMAGE)}") + IMAGE[:1]
        return head("200 OK", LENGTH) + IMAGE

    with RawServer(answer) as server:
        assert http.size(f"{server.url}/image") == len(IMAGE)
        assert server.methods == ["HEAD", "GET"]


@pytest.mark.parametrize("status", [400, 403, 405, 416, 501])
def test_the_size_where_head_and_ranges_are_refused(web, http, status):
    def answer(request):
        plain = request.method == "GET" and "range" not in request.headers
        return Answer(200, IMAGE) if plain else Answer(status)

    assert http.size(web.serve("/image", answer)) == len(IMAGE)
    assert [request.method for request in web.requests] == ["HEAD", "GET", "GET"]


def test_the_size_where_head_is_not_answered(http):
    def answer(line):
        return b"" if line.startswith("HEAD") else head("200 OK", LENGTH) + IMAGE

    with RawServer(answer) as server:
        assert http.size(f"{server.url}/image") == len(IMAGE)
        assert server.methods == ["HEAD", "GET"]


@pytest.mark.parametrize("lines", [[], ["Transfer-Encoding: chunked"], ["Content-Length: 0"]])
def test_the_size_where_head_does_not_say_it(http, lines):
    def answer(line):
        if line.startswith("HEAD"):
            return head("200 OK", *lines)
        return head("206 Part", f"Content-Range: bytes 0-0/{len(IMAGE)}") + IMAGE[:1]

    with RawServer(answer) as server:
        assert http.size(f"{server.url}/image") == len(IMAGE)


@pytest.mark.parametrize(
    "answer",
    [
        head("206 Part", "Content-Range: bytes 0-0/*") + b"a",
        head("200 OK") + IMAGE,
        head("416 No"),
        head("416 No", "Content-Range: bytes */0"),
    ],
)
def test_the_size_that_nobody_says_is_0(http, answer):
    with RawServer(lambda line: head() if line.startswith("HEAD") else answer) as server:
        assert http.size(f"{server.url}/image") == 0


@pytest.mark.parametrize(
    ("status", "expected"), [(404, exceptions.NotFound), (403, exceptions.BadStoreUri)]
)
def test_the_answer_to_get_decides(http, status, expected):
    def answer(line):
        return head("405 No" if line.startswith("HEAD") else f"{status} No", "Content-Length: 0")

    with RawServer(answer) as server, pytest.raises(expected):
        http.size(f"{server.url}/image")


@pytest.mark.parametrize(
    "refusal",
    [
        head("500 No", "Content-Length: 0"),
        head("503 No", "Content-Length: 0"),
        head("204 Nothing"),
        head("206 Part", f"Content-Length: {len(IMAGE)}"),
        head("307 There", "Location: /there", "Content-Length: 0"),
        head("200 OK", "Content-Length: unknown"),
    ],
)
def test_the_size_from_get_whatever_is_wrong_with_head(http_store, refusal):
    http = http_store(http_store_retry_timeout=0)

    def answer(line):
        return refusal if line.startswith("HEAD") else head("200 OK", LENGTH) + IMAGE

    with RawServer(answer) as server:
        assert http.size(f"{server.url}/image") == len(IMAGE)


BUSY = [
    head("408 Late", "Content-Length: 0"),
    head("429 Busy", "Content-Length: 0", "Retry-After: 1"),
    head("503 Busy", "Content-Length: 0"),
    head("520 Odd", "Content-Length: 0"),
]


@pytest.mark.parametrize("busy", BUSY)
def test_a_server_in_trouble_is_asked_again(http_store, busy):
    http = http_store(http_store_retry_timeout=5)
    answers = iter([busy, head("200 OK", LENGTH) + IMAGE])
    with RawServer(lambda line: next(answers)) as server:
        assert http.read(f"{server.url}/image") == IMAGE
        assert server.methods == ["GET", "GET"]
    answers = iter([busy, busy, head("200 OK", LENGTH)])
    with RawServer(lambda line: next(answers)) as server:
        assert http.size(f"{server.url}/image") == len(IMAGE)
        assert server.methods == ["HEAD", "GET", "HEAD"]


@pytest.mark.parametrize("busy", BUSY)
def test_a_server_that_stays_in_trouble(http_store, busy):
    """The image service looks for one kind of error at a download, and for another at a size."""
    http = http_store(http_store_retry_timeout=0.5)
    with RawServer(busy) as server:
        for action in (http.get, http.size):
            for kind in (exceptions.RemoteServiceUnavailable, exceptions.BadStoreUri):
                with pytest.raises(kind, match=r"answered '\d+ "):
                    action(f"{server.url}/image")
