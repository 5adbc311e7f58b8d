# SPDX-License-Identifier: Apache-2.0
"""A server that redirects to mirrors: a download that breaks off may be resumed at another one."""

from __future__ import annotations

import random

import pytest

from glance_store import exceptions
from tests.services.http_server import Answer, File, cutting, in_turn, redirect

IMAGE = random.Random(5).randbytes(100_000)
CHANGED = random.Random(6).randbytes(100_000)
YESTERDAY = "Fri, 20 Nov 2026 08:00:00 GMT"
TODAY = "Sat, 21 Nov 2026 08:00:00 GMT"


@pytest.fixture
def read(web, other_web, http_store):
    """Read from one mirror until it breaks off, then from where the redirects lead."""
    http = http_store(http_store_retry_timeout=2)
    http.store.READ_CHUNKSIZE = 10_000

    def start(first, second, then=None):
        one = web.serve("/one", in_turn(cutting(first, 30_000), then or first))
        two = other_web.serve("/two", second)
        return http.read(web.serve("/image", in_turn(redirect(one), redirect(two))))

    return start


def paths(server):
    return [request.target for request in server.requests if request.target != "/image"]


@pytest.mark.parametrize("etag", ['"v2"', 'W/"v2"'])
def test_the_same_date_at_another_mirror_is_the_same_file(web, other_web, read, etag):
    first = File(IMAGE, etag='"v1"', modified=YESTERDAY)
    assert read(first, File(IMAGE, etag=etag, modified=YESTERDAY)) == IMAGE
    # Its own answer to the condition of the first mirror is the whole file.
    assert other_web.seen("If-Range") == ['"v1"', YESTERDAY]
    assert other_web.seen("Range") == ["bytes=30000-"] * 2
    assert paths(web) == ["/one"]


def test_a_mirror_that_ignores_the_condition(other_web, read):
    first = File(IMAGE, etag='"v1"', modified=YESTERDAY)
    part = Answer(
        206,
        IMAGE[30_000:],
        {"ETag": '"v2"', "Last-Modified": YESTERDAY, "Content-Range": "bytes 30000-99999/100000"},
    )
    assert read(first, part) == IMAGE
    assert len(other_web.requests) == 1


@pytest.mark.parametrize("modified", [None, TODAY])
def test_the_first_mirror_goes_on_where_the_other_may_have_another_file(
    web, other_web, read, modified
):
    first = File(IMAGE, etag='"v1"', modified=modified and YESTERDAY)
    assert read(first, File(CHANGED, etag='"v2"', modified=modified)) == IMAGE
    assert paths(web) == ["/one", "/one"]
    assert paths(other_web) == ["/two"]


def test_the_same_tag_at_another_mirror_is_the_same_file(other_web, read):
    first = File(IMAGE, etag='"v1"', modified=YESTERDAY)
    assert read(first, File(IMAGE, etag='"v1"', modified=TODAY)) == IMAGE
    assert len(other_web.requests) == 1


@pytest.mark.parametrize(
    "second",
    [
        File(CHANGED, etag='"v2"'),
        File(CHANGED, etag='"v2"', modified=TODAY),
        # The length betrays it.
        File(CHANGED + b"a", etag='"v2"', modified=YESTERDAY),
        Answer(
            206, CHANGED[30_000:], {"ETag": '"v2"', "Content-Range": "bytes 30000-99999/100000"}
        ),
    ],
)
@pytest.mark.parametrize("then", [Answer(404), Answer(403), File(CHANGED)])
def test_two_versions_are_never_mixed(read, second, then):
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="changed on the web server"):
        read(File(IMAGE, etag='"v1"', modified=YESTERDAY), second, then)


def test_a_first_mirror_that_restarts_is_asked_again(web, read):
    first = File(IMAGE, etag='"v1"')
    assert read(first, File(CHANGED, etag='"v2"'), in_turn(Answer(503), first)) == IMAGE
    assert paths(web) == ["/one"] * 3


def test_an_address_with_another_signature_is_the_same_server(web, other_web, http):
    http.store.READ_CHUNKSIZE = 10_000
    file, changed = File(IMAGE, modified=YESTERDAY), File(CHANGED, modified=YESTERDAY)
    mirror = other_web.serve("/one", in_turn(cutting(file, 30_000), changed))
    uri = web.serve("/image", in_turn(redirect(f"{mirror}?sig=1"), redirect(f"{mirror}?sig=2")))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="changed on the web server"):
        http.read(uri)


def test_credentials_of_the_location_are_for_its_server_when_it_is_asked_directly(
    web, other_web, http
):
    http.store.READ_CHUNKSIZE = 10_000
    file = File(IMAGE, etag='"v1"')
    web.serve("/one", in_turn(cutting(file, 30_000), file))
    two = other_web.serve("/two", File(CHANGED, etag='"v2"'))
    web.serve("/image", in_turn(redirect("/one"), redirect(two)))
    assert http.read(web.url("/image", "user:secret@")) == IMAGE
    assert None not in web.seen("Authorization")
    assert other_web.seen("Authorization") == [None]
