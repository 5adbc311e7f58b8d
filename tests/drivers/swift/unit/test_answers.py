# SPDX-License-Identifier: Apache-2.0
"""Answers that are not those of Swift, or that somebody has changed on the way."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.swift.conftest import locate, read
from tests.drivers.swift.loopback import (
    ACCOUNT,
    INFO,
    Answer,
    LittleSwift,
    Seen,
    Stored,
    context_at,
    store_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from glance_store._drivers.swift import BaseStore
    from tests.drivers.swift.loopback import Act, Rule

MIB = 1024 * 1024
URI = "swift+config://ref1/images/image"
NAME = "images/image"
SEGMENTS = {"large_object_size": 1, "large_object_chunk_size": 1}
# Seconds, where asking again does not help.
SHORT = {"retry_timeout": 0.3}
SMALL, PARTS, STREAM = 1000, 2_500_000, 9 * MIB
PAGE = b"<html>Please log in</html>"
KINDS = pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])


def add(store: BaseStore, data: bytes) -> str:
    return str(store.add("image", io.BytesIO(data), len(data), "sha256")[0])


def with_page(which: Callable[[Seen], bool], **more: Any) -> Rule:
    """Return a rule that gives the page of a proxy to some requests."""

    def rule(seen: Seen, act: Act) -> Answer:
        if not which(seen):
            return act()
        assert seen.body is not None
        return Answer(200, PAGE, {"Content-Type": "text/html"}, **more)

    return rule


# -- an answer without what it must contain


@pytest.mark.parametrize(
    ("size", "options", "static"),
    [(SMALL, {}, True), (STREAM, {}, True), (PARTS, SEGMENTS, True), (PARTS, SEGMENTS, False)],
    ids=["whole", "streamed", "static", "dynamic"],
)
def test_page_instead_of_a_stored_image(server, pauses, size, options, static):
    """Nothing was stored, although the status says so."""
    server.info = INFO if static else {}
    server.rule = with_page(lambda seen: seen.method == "PUT" and seen.name == NAME)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="proxy"):
        add(store_at(server, **SHORT, **options), image(size))
    assert server.names() == []
    server.rule = None
    data = image(size)
    store = store_at(server, **options)
    assert read(store, add(store, data)) == data


def test_page_instead_of_a_stored_segment(server, pauses):
    server.rule = with_page(lambda seen: seen.method == "PUT" and seen.path.endswith("-00002"))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="proxy"):
        add(store_at(server, **SHORT, **SEGMENTS), image(PARTS))
    assert server.names() == []


def test_page_instead_of_a_deletion(server, pauses):
    server.objects[NAME] = Stored(b"data", {})
    store = store_at(server, **SHORT)
    server.rule = with_page(lambda seen: seen.method == "DELETE")
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="proxy"):
        store.delete(locate(store, URI))
    server.rule = None
    store.delete(locate(store, URI))
    assert server.names() == []


def test_success_that_says_nothing(server, pauses):
    """Of a server that has nothing to say to any request: nothing is deleted."""
    server.rule = lambda seen, act: Answer(200) if seen.name == NAME else act()
    store = store_at(server, **SHORT)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="proxy"):
        store.delete(locate(store, URI))
    assert server.of("DELETE") == []


def test_redirect_to_an_address_that_is_none(server):
    server.rule = lambda seen, act: (
        Answer(302, headers={"Location": "\xff\xfe"}) if seen.name == NAME else act()
    )
    store = store_at(server)
    with pytest.raises(exceptions.BackendException, match="redirects"):
        store.delete(locate(store, URI))


@pytest.mark.parametrize(
    ("media", "page"),
    [
        ("text/html", b"<html><body>404 Not Found</body></html>"),
        ("text/plain; charset=utf-8", b"default backend - 404"),
        ("application/json", b'{"message": "no Route matched with those values"}'),
    ],
)
def test_proxy_that_does_not_find_swift(server, pauses, media, page):
    """As an ingress whose service is restarting: the image is not lost, and not deleted."""
    server.objects[NAME] = Stored(b"data", {})
    store = store_at(server, **SHORT)
    place = locate(store, URI)

    def hide(*methods: str) -> None:
        named = {"Content-Type": media}
        server.rule = lambda seen, act: (
            Answer(404, page, named) if seen.name and seen.method in methods else act()
        )

    hide("HEAD", "GET", "DELETE")
    for call in (store.get, store.get_size, store.delete):
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="proxy"):
            call(place)
    hide("DELETE")
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="proxy"):
        store.delete(place)
    server.rule = None
    assert read(store, URI) == b"data"


@pytest.mark.parametrize("media", ["text/html; charset=UTF-8", "application/json"])
def test_image_that_swift_does_not_find(server, media):
    named = {"Content-Type": media, "X-Trans-Id": "tx1"}
    server.rule = lambda seen, act: (
        Answer(404, b"<html>Not Found</html>", named) if seen.method == "HEAD" else act()
    )
    store = store_at(server)
    with pytest.raises(exceptions.NotFound):
        store.delete(locate(store, URI))


@pytest.mark.parametrize("offset", [0, 1000])
def test_page_instead_of_an_image(server, pauses, offset):
    """Nor does it say how long it is: it may not pass for the beginning of the image."""
    data = image(PARTS)
    server.objects[NAME] = Stored(data, {})
    left = [1]

    def first(seen: Seen) -> bool:
        found = seen.method == "GET" and seen.name == NAME and left[0] > 0
        left[0] -= found
        return found

    server.rule = with_page(first, length=None)
    # Without a length, the end of the connection is that of the page.
    assert read(closing(store_at(server), server), URI, offset=offset) == data[offset:]


def closing(store: BaseStore, server: LittleSwift) -> BaseStore:
    """Have the server say that it closes the connection after an answer without a length."""
    rule = server.rule
    assert rule is not None

    def ending(seen: Seen, act: Act) -> Answer:
        answer = rule(seen, act)
        if answer.length is None:
            answer.headers["Connection"] = "close"
        return answer

    server.rule = ending
    return store


@pytest.mark.parametrize("length", ["", None], ids=["with its length", "without"])
def test_page_instead_of_everything(server, pauses, length):
    """It has nothing of an image, whatever is asked for."""
    context = context_at(server)
    data = image(SMALL)
    server.objects[NAME] = Stored(data, {})
    store, tenants = store_at(server, **SHORT), store_at(server, **SHORT, multi_tenant=True)
    place = locate(store, URI)
    theirs = locate(tenants, f"swift+http://{server.address}{ACCOUNT}/images/image")
    server.rule = with_page(lambda seen: seen.path.startswith("/v1"), length=length)
    closing(store, server)
    for call in (
        lambda: read(store, URI),
        lambda: store.get_size(place),
        lambda: store.delete(place),
        lambda: add(store, data),
        lambda: list(store.images()),
        lambda: tenants.set_acls(theirs, public=False, context=context),
    ):
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="proxy"):
            call()


def test_empty_success_instead_of_a_stored_image(server, pauses):
    server.rule = lambda seen, act: Answer(200) if seen.method == "PUT" and seen.body else act()
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="proxy"):
        add(store_at(server, **SHORT), image(SMALL))


# -- header lines that are not valid HTTP


def spoil(seen: Seen, act: Act) -> Answer:
    """Put what a proxy adds before all other header lines."""
    answer = act()
    answer.headers = {"X-Cache ": "hit", **answer.headers}
    return answer


@KINDS
def test_malformed_header_line_before_the_others(server, static):
    """The lines after it count: they say that there are segments."""
    server.info = INFO if static else {}
    server.rule = spoil
    store = store_at(server, **SEGMENTS)
    data = image(PARTS)
    uri = add(store, data)
    assert len(server.names()) == 4
    assert store.get_size(locate(store, uri)) == len(data)
    assert read(store, uri) == data
    store.delete(locate(store, uri))
    assert server.names() == []


# -- listings


def same_page(seen: Seen, act: Act) -> Answer:
    seen.query.pop("marker", None)
    return act()


@pytest.mark.parametrize("call", ["images", "leftovers"])
def test_listing_that_is_always_the_same_page(server, call):
    """A cache that leaves the query out of its key gives it again and again."""
    server.objects[NAME] = Stored(b"data", {})
    server.rule = same_page
    store = store_at(server)
    with pytest.raises(exceptions.BackendException, match="again and again"):
        list(store.images() if call == "images" else store.leftovers(0.0))


@pytest.mark.parametrize("times", [1, 10**6], ids=["for a moment", "for long"])
def test_listing_that_lacks_a_segment_of_an_image(server, pauses, times):
    """Swift then serves the others as if they were all."""
    server.info = {}
    store = store_at(server, **(SHORT if times > 1 else {}), **SEGMENTS)
    data = image(PARTS)
    uri = add(store, data)
    (late,) = (name for name in server.names() if name.endswith("-00002"))
    left = [times]

    def rule(seen: Seen, act: Act) -> Answer:
        server.hidden = {late} if left[0] else set()
        left[0] -= 1 if left[0] else 0
        return act()

    server.rule = rule
    if times == 1:
        assert read(store, uri) == data
        left[0] = times
        assert store.get_size(locate(store, uri)) == len(data)
        left[0] = times
        store.delete(locate(store, uri))
        assert server.names() == []
        return
    for call in (lambda: read(store, uri), lambda: store.get_size(locate(store, uri))):
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="listing lags behind"):
            call()


def test_listing_without_hashes(server):
    """Then there is nothing to compare segments with."""
    server.info = {}
    store = store_at(server, **SEGMENTS)
    data = image(PARTS)
    uri = add(store, data)

    def bare(seen: Seen, act: Act) -> Answer:
        answer = act()
        if seen.method == "GET" and seen.name == "images":
            entries = json.loads(answer.body)
            answer.body = json.dumps([{**each, "hash": None} for each in entries]).encode()
        elif seen.method == "HEAD" and seen.name == NAME:
            # As of more segments than fit a page.
            answer.length = "0"
        return answer

    server.rule = bare
    assert read(store, uri) == data


# -- metadata


@pytest.mark.parametrize(
    ("size", "options"),
    [(SMALL, {}), (PARTS, SEGMENTS), (STREAM, {})],
    ids=["whole", "segments", "streamed"],
)
def test_server_that_keeps_no_metadata(server, size, options):
    """The mark of an upload is metadata, but the ETag shows as well whose object it is."""

    def bare(seen: Seen, act: Act) -> Answer:
        answer = act()
        answer.headers = {k: v for k, v in answer.headers.items() if "object-meta" not in k.lower()}
        return answer

    server.rule = bare
    store = store_at(server, **options)
    data = image(size)
    assert read(store, add(store, data)) == data
    with pytest.raises(exceptions.Duplicate):
        add(store, data)


# -- the account


@pytest.mark.parametrize("size", [SMALL, STREAM], ids=["whole", "streamed"])
def test_account_that_is_not_there(server, size):
    """It is not the image that is missing."""

    def rule(seen: Seen, act: Act) -> Answer:
        if not seen.path.startswith("/v1"):
            return act()
        assert seen.body is not None
        return Answer(404)

    server.rule = rule
    with pytest.raises(exceptions.BackendException, match="does not know the account") as failed:
        add(store_at(server), image(size))
    assert not isinstance(failed.value, exceptions.NotFound)
