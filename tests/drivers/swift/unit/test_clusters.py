# SPDX-License-Identifier: Apache-2.0
"""Clusters, proxies and rights that differ from the usual ones in some detail."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store.testing import image
from tests.drivers.swift.conftest import locate, read
from tests.drivers.swift.loopback import INFO, Answer, Seen, Stored, context_at, store_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from glance_store._drivers.swift import BaseStore
    from tests.drivers.swift.loopback import Act

MIB = 1024 * 1024
URI = "swift+config://ref1/images/image"
NAME = "images/image"
SEGMENTS = {"large_object_size": 1, "large_object_chunk_size": 1}
SMALL, PARTS, STREAM = 1000, 2_500_000, 9 * MIB
# In one request from memory, in segments, and as it comes in.
WAYS = pytest.mark.parametrize(
    ("size", "options"),
    [(SMALL, {}), (PARTS, SEGMENTS), (STREAM, {})],
    ids=["whole", "segments", "streamed"],
)


def add(store: BaseStore, data: bytes) -> str:
    return str(store.add("image", io.BytesIO(data), len(data), "sha256")[0])


def answering(
    answer: Answer, which: Callable[[Seen], bool], times: int = 10**6
) -> Callable[[Seen, Act], Answer]:
    """Return a rule that gives one answer to the first requests of a kind."""
    left = [times]

    def rule(seen: Seen, act: Act) -> Answer:
        if not which(seen) or not left[0]:
            return act()
        left[0] -= 1
        assert seen.body is not None
        return answer

    return rule


def puts_object(seen: Seen) -> bool:
    return seen.method == "PUT" and "/" in seen.name


def puts_image(seen: Seen) -> bool:
    return seen.method == "PUT" and seen.name == NAME


# -- the container


@WAYS
def test_container_that_is_not_seen_yet(server, pauses, size, options):
    """It was made a moment ago, and another proxy remembers that it was not there."""
    server.containers.clear()
    server.rule = answering(Answer(404), puts_object, times=3)
    store = store_at(server, **options)
    data = image(size)
    assert read(store, add(store, data)) == data


@WAYS
def test_container_that_may_not_be_looked_at(server, size, options):
    """Nor may objects that are not there: the account may write, and read what is there."""

    def unlisted(seen: Seen) -> bool:
        return seen.method == "HEAD" and seen.name not in server.objects

    server.rule = answering(Answer(403), unlisted)
    store = store_at(server, **options)
    data = image(size)
    assert read(store, add(store, data)) == data
    with pytest.raises(exceptions.Duplicate):
        add(store, data)


# -- the condition that there is no such object


@pytest.mark.parametrize("status", [400, 501])
@WAYS
def test_condition_that_is_unknown(server, pauses, status, size, options):
    server.rule = answering(Answer(status), lambda seen: "if-none-match" in seen.headers)
    store = store_at(server, **options)
    data = image(size)
    place = locate(store, add(store, data))
    assert b"".join(store.get(place)[0]) == data
    with pytest.raises(exceptions.Duplicate):
        add(store, data)
    # After two such uploads it is not tried any more.
    store.delete(place)
    add(store, data)
    store.delete(place)
    before = len(server.requests)
    add(store, data)
    assert not any("if-none-match" in seen.headers for seen in server.requests[before:])


@WAYS
def test_name_that_is_taken_without_being_seen(server, pauses, size, options):
    """The server that is asked for it lags behind: what has it is not overwritten."""

    def rule(seen: Seen, act: Act) -> Answer:
        if seen.method == "HEAD" and seen.name == NAME:
            return Answer(404)
        return act()

    server.objects[NAME] = Stored(b"other", {})
    server.rule = rule
    with pytest.raises(exceptions.Duplicate):
        add(store_at(server, retry_timeout=1, **options), image(size))
    assert server.objects[NAME].data == b"other"
    assert all("if-none-match" in seen.headers for seen in server.of("PUT", "/image"))


# -- manifests


def test_segments_that_are_not_seen_yet(server, pauses):
    """As soon as the cluster sees them it takes the manifest."""
    lacking = Answer(400, b"Errors:\n/images/image-1, 404 Not Found\n")
    server.rule = answering(lacking, puts_image, times=2)
    store = store_at(server, **SEGMENTS)
    data = image(PARTS)
    assert read(store, add(store, data)) == data
    assert len(server.of("PUT", "/image")) == 3


def test_segments_that_are_wrong(server):
    """The error says what the cluster has said; nothing is left."""
    wrong = Answer(400, b"Errors:\n/images/image-1, Etag Mismatch\n", {"X-Trans-Id": "tx0123"})
    server.rule = answering(wrong, puts_image)
    with pytest.raises(exceptions.BackendException, match=r"Etag Mismatch.*tx0123"):
        add(store_at(server, **SEGMENTS), image(PARTS))
    assert server.names() == []


def test_segment_that_arrives_after_its_deletion(server):
    """A busy server begins late with a request that was broken off."""
    late = []

    def rule(seen: Seen, act: Act) -> Answer:
        second = seen.path.endswith("-00002")
        if second and seen.method == "PUT":
            return Answer(400)
        answer = act()
        if second and seen.method == "DELETE" and not late:
            late.append(seen.name)
            server.objects[seen.name] = Stored(b"late", {})
        return answer

    server.rule = rule
    with pytest.raises(exceptions.BackendException, match="400"):
        add(store_at(server, **SEGMENTS), image(PARTS))
    assert len(late) == 1
    assert server.names() == []


@pytest.mark.parametrize("status", [405, 501])
def test_static_manifest_that_is_not_taken(server, pauses, status):
    """Whatever the cluster says of itself; a dynamic one does it as well."""
    server.rule = answering(Answer(status), lambda seen: "multipart-manifest" in seen.query)
    store = store_at(server, **SEGMENTS)
    data = image(PARTS)
    assert read(store, add(store, data)) == data
    assert "x-object-manifest" in server.objects[NAME].headers


def test_static_manifest_that_goes_alone(server, pauses):
    """The answer is not that of a cluster that has removed what the manifest names."""
    store = store_at(server, **SEGMENTS)
    place = locate(store, add(store, image(PARTS)))

    def ignorant(seen: Seen, act: Act) -> Answer:
        if seen.method != "DELETE" or "multipart-manifest" not in seen.query:
            return act()
        return Answer(204 if server.objects.pop(seen.name, None) else 404)

    server.objects["images/image-of-others"] = Stored(b"other", {})
    server.rule = ignorant
    store.delete(place)
    assert server.names() == ["images/image-of-others"]


def test_image_that_is_larger_than_an_object_may_be(server):
    """The cluster says so: it is in segments, whatever the options say."""
    server.info = {**INFO, "swift": {**INFO["swift"], "max_file_size": 4 * MIB}}
    store = store_at(server, large_object_size=100, large_object_chunk_size=100)
    data = image(STREAM)
    assert read(store, add(store, data)) == data
    assert max(len(found.data) for found in server.objects.values()) <= 4 * MIB


@pytest.mark.parametrize(
    "answer", [Answer(302, headers={"Location": "http://127.0.0.1:1/"}), Answer(0), Answer(405)]
)
def test_cluster_that_does_not_tell_its_limits(server, pauses, answer):
    """It is asked once for an upload, which does not depend on that."""
    server.rule = answering(answer, lambda seen: seen.path == "/info")
    store = store_at(server, swift_store_retry_timeout=0, **SEGMENTS)
    add(store, image(PARTS))
    assert len([seen for seen in server.requests if seen.path == "/info"]) == 1


@pytest.mark.parametrize("size", [SMALL, STREAM])
def test_hints_before_each_answer(server, size):
    """As by a CDN, also in front of the identity service: they are no answers."""
    server.hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    store = store_at(server)
    data = image(size)
    assert read(store, add(store, data)) == data


# -- words of refusals


def test_refusal_says_what_the_cluster_says(server):
    said = Answer(413, b"Upload exceeds\nquota.", {"X-Trans-Id": "tx01\x0723"})
    server.rule = answering(said, puts_image)
    with pytest.raises(exceptions.StorageFull, match=r"\(Upload exceeds quota\.\).*tx01 23"):
        add(store_at(server), b"data")


@pytest.mark.parametrize("body", [b"<html><h1>Forbidden</h1></html>", b"x" * 20_000])
def test_refusal_does_not_repeat_a_page(server, body):
    server.rule = answering(Answer(403, body), puts_image)
    with pytest.raises(exceptions.Forbidden) as failed:
        add(store_at(server), b"data")
    assert len(str(failed.value)) < 200
    assert "html" not in str(failed.value)


@pytest.mark.parametrize("status", [509, 529, 561, 599])
def test_trouble_under_another_number_passes(server, pauses, status):
    server.rule = answering(Answer(status), puts_image, times=1)
    add(store_at(server), b"data")
    assert len(pauses) == 1


@pytest.mark.parametrize("catalog", [[None], "text", [{"type": "object-store", "endpoints": None}]])
def test_catalogue_that_makes_no_sense(server, catalog):
    store = store_at(server, swift_store_multi_tenant=True)
    context = context_at(server)
    context.service_catalog = catalog
    with pytest.raises(exceptions.NoServiceEndpoint):
        store.add("image", io.BytesIO(b"data"), 4, "sha256", context=context)


def token(**changed: Any) -> Answer:
    text = '{"token": {"methods": [], "expires_at": "tomorrow", "catalog": []}}'
    return Answer(201, text.encode(), changed)


@pytest.mark.parametrize("answer", [token(), token(**{"X-Subject-Token": "a"})])
def test_identity_service_that_makes_no_sense(server, answer):
    server.rule = answering(answer, lambda seen: seen.path == "/v3/auth/tokens")
    with pytest.raises(exceptions.BackendException, match="identity service cannot be used"):
        add(store_at(server), b"data")


@pytest.mark.parametrize("times", [2, 3, 10**6])
def test_new_token_that_is_not_known_yet(server, pauses, monkeypatch, times):
    """As where the keys of the identity service were changed a moment ago."""
    server.rule = answering(Answer(401), puts_image, times)
    store = store_at(server)
    if times < 10:
        add(store, b"data")
        assert len(server.logins) == times
    else:
        monkeypatch.setattr(errors.TokenNotKnownError, "patience", 0.0)
        with pytest.raises(exceptions.BackendException, match="token is refused"):
            add(store, b"data")


# -- reading


@pytest.mark.parametrize("status", [200, 206])
def test_bytes_that_something_has_packed(server, status):
    """They are no image data, also where they come as the range that was asked for."""
    data = image(SMALL)
    server.objects[NAME] = Stored(data, {})
    headers = {"ETag": server.etag(NAME), "Content-Encoding": "gzip"}
    ranged = {"Content-Range": f"bytes 0-{SMALL - 1}/{SMALL}"} if status == 206 else {}
    packed = Answer(status, gzip.compress(data), {**headers, **ranged})
    server.rule = answering(packed, lambda seen: seen.method == "GET")
    store = store_at(server, retry_timeout=0.3)
    received: list[bytes] = []
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="gzip"):
        received.extend(store.get(locate(store, URI))[0])
    assert received == []


def test_object_that_is_stored_packed(server):
    data = image(SMALL)
    server.objects[NAME] = Stored(data, {"Content-Encoding": "gzip"})
    assert read(store_at(server), URI) == data


@pytest.mark.parametrize("data", [image(SMALL), b""], ids=["data", "empty"])
@pytest.mark.parametrize("status", [405, 501])
def test_head_that_is_refused(server, status, data):
    """The answer to another request tells the size."""
    server.objects[NAME] = Stored(data, {})

    def rule(seen: Seen, act: Act) -> Answer:
        if seen.method == "HEAD" and seen.name == NAME:
            return Answer(status)
        nothing = seen.name == NAME and seen.method == "GET" and not data
        return Answer(416, headers={"Content-Range": "bytes */0"}) if nothing else act()

    server.rule = rule
    store = store_at(server)
    assert store.get_size(locate(store, URI)) == len(data)
    assert read(store, URI) == data


def test_range_that_is_refused(server):
    data = image(SMALL)
    server.objects[NAME] = Stored(data, {})
    server.rule = answering(Answer(501), lambda seen: "range" in seen.headers)
    assert read(store_at(server), URI, offset=100, chunk_size=100) == data[100:200]
