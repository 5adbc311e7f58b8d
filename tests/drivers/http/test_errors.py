# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on the way, as errors of the library, without secrets."""

from __future__ import annotations

import logging
import traceback

import pytest

from glance_store import exceptions
from tests.drivers.http.raw_server import RawServer, head
from tests.services.http_server import Answer, File, cutting, deaf_port, in_turn, redirect

IMAGE = bytes(range(256)) * 40
# What no log line, repr or exception may contain.
CANARIES = ("CANARY-USER", "CANARY-PASSWORD", "CANARY-TOKEN")
CREDENTIALS = "CANARY-USER:CANARY-PASSWORD@"
QUERY = "?signature=CANARY-TOKEN"


def failure(action, uri, expected=exceptions.GlanceStoreException):
    with pytest.raises(expected) as caught:
        action(uri)
    # A chained error of requests would bring the URL into the log.
    assert caught.value.__context__ is None
    return str(caught.value)


def test_r74_a_refused_connection(http):
    with deaf_port() as port:
        uri = f"http://127.0.0.1:{port}/image"
        text = failure(http.get, uri, exceptions.RemoteServiceUnavailable)
        assert uri in text
        assert "refused" in text
        # As ever, get_size takes it for a bad location.
        assert "refused" in failure(http.size, uri, exceptions.BadStoreUri)


def test_r74_an_unknown_host(http):
    # A label of the name is too long for any name server to be asked.
    uri = f"http://{'a' * 64}.invalid/image"
    for action in (http.get, http.size):
        assert "not valid" in failure(action, uri, exceptions.BadStoreUri)


def test_r78_a_silent_server(web, http_store):
    http = http_store(http_store_read_timeout=1)
    uri = web.serve("/image", Answer(0, cut=0, ending="silence"))
    text = failure(http.get, uri, exceptions.RemoteServiceUnavailable)
    assert "http_store_read_timeout" in text
    assert "http_store_read_timeout" in failure(http.size, uri, exceptions.BadStoreUri)


def test_r78_a_server_that_falls_silent(web, http_store):
    http = http_store(http_store_read_timeout=1, http_store_retry_timeout=0)
    uri = web.serve("/image", cutting(File(IMAGE), 5000, "silence"))
    chunks, _size = http.get(uri)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="http_store_read_timeout"):
        list(chunks)


def test_r79_a_connection_that_ends_before_the_answer(web, http):
    uri = web.serve("/image", Answer(0))
    text = failure(http.get, uri, exceptions.RemoteServiceUnavailable)
    assert "closed the connection without a response" in text
    failure(http.size, uri, exceptions.BadStoreUri)


def test_r79_a_reset_before_the_answer(web, http):
    uri = web.serve("/image", Answer(0, ending="reset"))
    text = failure(http.get, uri, exceptions.RemoteServiceUnavailable)
    assert "reset" in text


def test_r79_an_answer_that_is_no_http(web, http):
    uri = web.serve("/image", Answer(1000))
    failure(http.get, uri, exceptions.GlanceStoreException)
    web.answerers["/image"] = in_turn(Answer(200, b"", {"a" * 70_000: "b"}))
    text = failure(http.get, uri, exceptions.RemoteServiceUnavailable)
    assert "not valid HTTP" in text


def test_r79_broken_chunks(web, http_store):
    http = http_store(http_store_retry_timeout=0)
    headers = {"Transfer-Encoding": "chunked"}
    uri = web.serve("/image", Answer(200, b"what is this\r\n", headers, framing="close"))
    chunks, _size = http.get(uri)
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        list(chunks)


@pytest.mark.parametrize("host", ["*", "a..b", ".a", "xn--a", "\u00df" * 70])
def test_r79_a_host_that_cannot_be_asked(http, host):
    for action in (http.get, http.size):
        failure(action, f"http://{host}/image", exceptions.GlanceStoreException)


def test_an_idle_connection_that_the_server_has_closed_is_no_error(web, http):
    uri = web.serve("/image", in_turn(File(IMAGE), Answer(0), File(IMAGE)))
    assert http.read(uri) == IMAGE
    assert http.read(uri) == IMAGE
    assert len(web.requests) == 3


def test_an_idle_connection_that_a_proxy_has_closed_is_no_error(http_store):
    answer = head("200 OK", "Content-Length: 5", "Connection: close") + b"image"
    answers = iter([answer, b"", answer])
    with RawServer(lambda _line: next(answers)) as proxy:
        http = http_store(http_proxy_information={"http": f"127.0.0.1:{proxy.port}"})
        for _time in range(2):
            assert http.read("http://images.invalid/image") == b"image"
        assert len(proxy.lines) == 3


def test_basic_authentication(web, http):
    def guard(request):
        if request.headers.get("authorization") == "Basic dTphOmIvw6k=":
            return File(IMAGE)(request)
        return Answer(401, b"", {"WWW-Authenticate": "Basic"})

    uri = web.serve("/image", guard)
    assert http.read(web.url("/image", "u:a%3Ab%2F%C3%A9@")) == IMAGE
    assert http.size(web.url("/image", "u:a%3Ab%2F%C3%A9@")) == len(IMAGE)
    assert "401" in failure(http.get, uri, exceptions.BadStoreUri)
    assert "401" in failure(http.get, web.url("/image", "u:wrong@"), exceptions.BadStoreUri)


def test_passwords_of_the_home_directory_are_not_sent(web, http, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert http.read(web.serve("/image", IMAGE)) == IMAGE
    assert web.seen("Authorization") == [None]


def answers_of_all_kinds(other):
    file = File(IMAGE)
    return {
        "good": file,
        "missing": Answer(404),
        "forbidden": Answer(403),
        "broken": Answer(0),
        "reset": Answer(0, ending="reset"),
        "resumed": in_turn(cutting(file, 2000), file),
        "resumed without success": in_turn(cutting(file, 2000), Answer(0)),
        "changed": in_turn(cutting(file, 2000), File(b"b" * 10_000)),
        "odd": Answer(200, b"", {"Content-Length": "CANARY"}),
        "no ranges": File(IMAGE, ranges=False),
        "wrong range": Answer(206, b"a", {"Content-Range": "bytes 5-5/9"}),
        "encoded": File(IMAGE, headers={"Content-Encoding": "gzip"}),
        # urllib3 warns about headers that it cannot parse, and quotes the URL.
        "strange header": File(
            IMAGE, headers={"X-Strange": "a\r\nno colon here\r\nX-B: c"}, framing="close"
        ),
        "to another server": redirect(other.url("/good", CREDENTIALS) + QUERY),
        "to nowhere": redirect("http://" + CREDENTIALS + "h:x/" + QUERY),
        "to another scheme": redirect("ftp://" + CREDENTIALS + "h/" + QUERY),
        "round and round": redirect("round and round" + QUERY),
        "without Location": redirect(None),
        "permanent": redirect("/good" + QUERY, 308),
    }


@pytest.mark.parametrize("range_", [(), (5, 100)], ids=["whole", "range"])
def test_secrets_stay_secret(web, other_web, http, caplog, range_):
    caplog.set_level(logging.DEBUG)
    http.store.READ_CHUNKSIZE = 1000
    other_web.serve("/good", File(IMAGE))
    for name, answerer in answers_of_all_kinds(other_web).items():
        path = "/" + name.replace(" ", "%20")
        web.serve(path, answerer)
        uri = web.url(path, CREDENTIALS) + QUERY
        for action in (lambda uri: http.read(uri, *range_), http.size):
            try:
                action(uri)
            except exceptions.GlanceStoreException as exc:
                report = "".join(traceback.format_exception(exc))
                seen = [repr(exc), str(exc), *map(repr, exc.args), report]
                assert not [canary for canary in CANARIES for text in seen if canary in text]
    with deaf_port() as port:
        uri = f"http://{CREDENTIALS}127.0.0.1:{port}/{QUERY}"
        report = "".join(traceback.format_exception(exceptions.BadStoreUri(failure(http.get, uri))))
        assert not [canary for canary in CANARIES if canary in report]
    # They were sent, and the log is about the requests.
    assert "CANARY-TOKEN" in web.requests[0].target
    assert "GET /good?***" in caplog.text
    lines = [record.getMessage() + repr(record.args) for record in caplog.records]
    assert not [line for line in lines for canary in CANARIES if canary in line]


def test_repr_shows_no_secret(web, http):
    from glance_store.location import get_location_from_uri

    web.serve("/image", IMAGE)
    location = get_location_from_uri(web.url("/image", CREDENTIALS) + QUERY)
    reader = http.store.open_reader(location)
    chunks, _size = http.store.get(location)
    shown = [repr(item) for item in (location, location.store_location, http.store, chunks, reader)]
    reader.close()
    chunks.close()
    assert not [text for text in shown for canary in CANARIES if canary in text]
