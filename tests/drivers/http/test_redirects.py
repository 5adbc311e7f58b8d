# SPDX-License-Identifier: Apache-2.0
"""Redirects: which are followed, how far, and what they do not get to know."""

from __future__ import annotations

import base64

import pytest

from glance_store import exceptions
from tests.services.http_server import Answer, File, cutting, in_turn, redirect

IMAGE = bytes(range(256)) * 40
BASIC = "Basic " + base64.b64encode(b"user:secret").decode()


@pytest.mark.parametrize("status", [301, 302])
def test_an_absolute_redirect(web, other_web, http, status):
    target = other_web.serve("/moved", IMAGE)
    uri = web.serve("/image", redirect(target, status))
    assert http.read(uri) == IMAGE
    assert http.size(uri) == len(IMAGE)
    assert [request.method for request in other_web.requests] == ["GET", "HEAD"]


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/moved", "/moved"),
        ("moved", "/a/b/moved"),
        ("../moved?x=1", "/a/moved?x=1"),
        ("?x=2", "/a/b/image?x=2"),
        ("./moved;v=1?x=1#fragment", "/a/b/moved;v=1?x=1"),
        ("//127.0.0.1:%(port)d/moved", "/moved"),
        ("HTTP://127.0.0.1:%(port)d/moved", "/moved"),
    ],
)
def test_r81_a_relative_redirect(web, http, location, target):
    first = redirect(location % {"port": web.port} if "%" in location else location)
    web.serve(target.partition("?")[0], IMAGE)
    web.serve("/a/b/image", in_turn(first, File(IMAGE)))
    assert http.read(web.url("/a/b/image")) == IMAGE
    assert web.requests[1].target == target


def test_a_redirect_in_utf8(web, http):
    web.serve("/%E2%82%AC", IMAGE)
    uri = web.serve("/image", redirect("/€".encode().decode("latin-1")))
    assert http.read(uri) == IMAGE


def test_r71_the_query_of_a_redirect_is_kept(web, other_web, http):
    other_web.serve("/moved", redirect(web.serve("/again", IMAGE) + "?token=2&x"))
    uri = web.serve("/image", redirect(other_web.url("/moved?token=1&signature=%2F")))
    assert http.read(uri + "?q=0") == IMAGE
    assert web.requests[0].target == "/image?q=0"
    assert other_web.requests[0].target == "/moved?token=1&signature=%2F"
    assert web.requests[1].target == "/again?token=2&x"


def test_a_range_is_asked_of_the_target_too(web, other_web, http):
    uri = web.serve("/image", redirect(other_web.serve("/moved", IMAGE)))
    assert http.read(uri, 5, 10) == IMAGE[5:15]
    assert other_web.seen("Range") == ["bytes=5-14"]


def test_a_resumed_download_is_redirected_anew(web, other_web, http):
    # Addresses that a server redirects to may be valid for a short time only.
    http.store.READ_CHUNKSIZE = 1000
    file = File(IMAGE)
    other_web.serve("/1", cutting(file, 5000))
    other_web.serve("/2", file)
    uri = web.serve("/image", in_turn(redirect(other_web.url("/1")), redirect(other_web.url("/2"))))
    assert http.read(uri) == IMAGE


def test_five_redirects_are_followed(web, http):
    for number in range(5):
        web.serve(f"/{number}", redirect(f"/{number + 1}"))
    web.serve("/5", IMAGE)
    assert http.read(web.url("/0")) == IMAGE
    assert http.size(web.url("/0")) == len(IMAGE)


def test_six_redirects_are_too_many(web, http):
    for number in range(6):
        web.serve(f"/{number}", redirect(f"/{number + 1}"))
    web.serve("/6", IMAGE)
    for action in (http.get, http.size):
        with pytest.raises(exceptions.MaxRedirectsExceeded, match="5"):
            action(web.url("/0"))
    assert web.wait_until_idle() == 0


def test_a_loop_ends(web, http):
    uri = web.serve("/image", redirect("/image"))
    with pytest.raises(exceptions.MaxRedirectsExceeded):
        http.get(uri)
    assert len(web.requests) == 6
    # An image service refuses a location whose size is a BadStoreUri, and fails on other errors.
    with pytest.raises(exceptions.BadStoreUri, match="redirects"):
        http.size(uri)


@pytest.mark.parametrize("status", [301, 302])
def test_r80_a_redirect_without_location(web, http, status):
    uri = web.serve("/image", redirect(None, status))
    for action in (http.get, http.size):
        with pytest.raises(exceptions.BadStoreUri, match="without saying where to"):
            action(uri)


@pytest.mark.parametrize("status", [300, 303, 304, 305, 307, 308])
@pytest.mark.parametrize("location", ["/moved", None])
def test_r82_other_redirects_are_refused(web, http, status, location):
    web.serve("/moved", IMAGE)
    uri = web.serve("/image", redirect(location, status))
    for action in (http.get, http.size):
        with pytest.raises(exceptions.BadStoreUri) as caught:
            action(uri)
        assert str(status) in str(caught.value)
    assert {request.target for request in web.requests} == {"/image"}


def test_r83_the_refusal_is_readable(web, http):
    uri = web.serve("/image", redirect("/moved", 307))
    with pytest.raises(exceptions.BadStoreUri) as caught:
        http.get(uri)
    assert str(caught.value) == (
        f"The web server answered '307 Temporary Redirect' for {uri}: only the redirects 301 and "
        "302 are followed; register the address it redirects to"
    )
    assert isinstance(caught.value.msg, str)


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/image", "file:///etc/passwd", "http://h:x/", "http://[::1/"],
)
def test_a_redirect_to_somewhere_else_is_refused(web, http, location):
    uri = web.serve("/image", redirect(location))
    with pytest.raises(exceptions.BadStoreUri) as caught:
        http.get(uri)
    assert f"redirects {uri} to an unusable address" in str(caught.value)
    assert caught.value.__context__ is None


def test_r75_the_connections_of_redirects_are_closed(web, http):
    web.serve("/moved", redirect("/image"))
    web.serve("/image", redirect("/moved"))
    for _time in range(3):
        with pytest.raises(exceptions.MaxRedirectsExceeded):
            http.get(web.url("/image"))
    assert web.wait_until_idle() == 0


def test_credentials_stay_with_the_server_they_are_for(web, other_web, http):
    other_web.serve("/moved", redirect(web.serve("/again", redirect("/image2"))))
    web.serve("/image", redirect(other_web.url("/moved")))
    web.serve("/image2", IMAGE)
    assert http.read(web.url("/image", "user:secret@")) == IMAGE
    assert web.seen("Authorization") == [BASIC] * 3
    # Another port is another server.
    assert other_web.seen("Authorization") == [None]


def test_credentials_do_not_go_to_another_name_of_the_host(web, http):
    web.serve("/image", redirect(web.url("/moved", host="localhost")))
    web.serve("/moved", IMAGE)
    assert http.read(web.url("/image", "user:secret@")) == IMAGE
    assert web.seen("Authorization") == [BASIC, None]


def test_credentials_of_a_redirect_are_used(web, other_web, http):
    other_web.serve("/moved", IMAGE)
    uri = web.serve("/image", redirect(other_web.url("/moved", "user:secret@")))
    assert http.read(uri) == IMAGE
    assert web.seen("Authorization") == [None]
    assert other_web.seen("Authorization") == [BASIC]


def test_credentials_do_not_leave_encryption(tls_web, web, http_store, authority_file, caplog):
    http = http_store(https_ca_certificates_file=authority_file)
    tls_web.serve("/image", redirect(web.serve("/moved", IMAGE)))
    assert http.read(tls_web.url("/image", "user:secret@")) == IMAGE
    assert tls_web.seen("Authorization") == [BASIC]
    assert web.seen("Authorization") == [None]
    assert "is read without encryption" in caplog.text
    assert "secret" not in caplog.text


def test_cookies_belong_to_one_download(web, http):
    def gate(request):
        return Answer(302, b"", {"Location": "/image", "Set-Cookie": "pass=1; Path=/"})

    web.serve("/image", IMAGE)
    web.serve("/gate", gate)
    assert http.read(web.url("/gate")) == IMAGE
    assert http.read(web.url("/image")) == IMAGE
    assert web.seen("Cookie") == [None, "pass=1", None]
