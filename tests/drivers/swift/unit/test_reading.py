# SPDX-License-Identifier: Apache-2.0
"""Downloads from servers that send something else, nothing, or more than anybody takes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import threading
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.swift.conftest import locate, read
from tests.drivers.swift.loopback import Answer, LittleSwift, Seen, Stored, store_at
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.swift.loopback import Act

MIB = 1024 * 1024
SIZE = 5 * MIB
DATA = image(SIZE)
NAME = "images/image"
URI = f"swift+config://ref1/{NAME}"
SEGMENTS = {"large_object_size": 1, "large_object_chunk_size": 1}


@pytest.fixture
def stored(server) -> LittleSwift:
    """A cluster with an image in it."""
    server.objects["images/image"] = Stored(DATA, {})
    return server


def gets(server: LittleSwift) -> list[Seen]:
    return [seen for seen in server.of("GET") if seen.name == "images/image"]


def for_gets(rule: Callable[[Seen, Act], Answer]) -> Any:
    def found(seen: Seen, act: Act) -> Answer:
        is_get = (seen.method, seen.name) == ("GET", "images/image")
        return rule(seen, act) if is_get else act()

    return found


def whole(server: LittleSwift) -> Callable[[Seen, Act], Answer]:
    """Answer as a server does that knows no ranges."""
    return lambda _seen, act: Answer(200, DATA, {"ETag": act().headers["ETag"]})


def test_server_that_knows_no_ranges(stored):
    stored.rule = for_gets(whole(stored))
    store = store_at(stored)
    assert read(store, URI) == DATA
    assert read(store, URI, offset=MIB + 3, chunk_size=100) == DATA[MIB + 3 : MIB + 103]
    assert read(store, URI, offset=SIZE - 1) == DATA[-1:]


def test_server_that_knows_no_ranges_is_not_asked_for_everything_again(stored):
    """What is on its way anyhow is read on in."""
    stored.rule = for_gets(whole(stored))
    store = store_at(stored)
    with contextlib.closing(store.open_reader(locate(store, URI))) as reader:
        got = b""
        while len(got) < SIZE:
            got += reader.read_at(len(got), 1_000_000)
    assert got == DATA
    assert len(gets(stored)) == 1


WRONG = [
    {"Content-Range": f"bytes 0-99/{SIZE}"},
    {"Content-Range": f"bytes 1000-1099/{SIZE + 1}"},
    {"Content-Range": "nonsense"},
    {},
]


@pytest.mark.parametrize("headers", WRONG)
@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
def test_part_that_was_not_asked_for(stored, headers, times):
    """It is asked for again, and never taken for the right one."""
    sent: list[int] = []

    def wrong(_seen: Seen, act: Act) -> Answer:
        sent.append(1)
        if times is not None and len(sent) > times:
            return act()
        return Answer(206, bytes(100), dict(headers))

    stored.rule = for_gets(wrong)
    store = store_at(stored, retry_timeout=0.5)
    if times is not None:
        assert read(store, URI, offset=1000, chunk_size=100) == DATA[1000:1100]
        return
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="other bytes"):
        read(store, URI, offset=1000, chunk_size=100)


@pytest.mark.parametrize("status", [200, 206])
def test_image_that_was_replaced(stored, status):
    """Also where all of the new one comes."""
    store = store_at(stored)
    with contextlib.closing(store.open_reader(locate(store, URI))) as reader:
        stored.objects["images/image"] = Stored(image(SIZE, seed=1), {})
        if status == 200:
            stored.rule = for_gets(
                lambda _seen, act: Answer(200, act().body, {"ETag": act().headers["ETag"]})
            )
        with pytest.raises(exceptions.BackendException, match="replaced"):
            reader.read_at(0, 100)


def test_size_that_is_not_said(stored):
    """A proxy that takes the length away is not believed that the image is empty."""
    stored.rule = lambda seen, act: (
        Answer(200, headers=act().headers, length=None) if seen.method == "HEAD" else act()
    )
    store = store_at(stored, retry_timeout=0.3)
    assert store.get_size(locate(store, URI)) == SIZE
    assert read(store, URI) == DATA
    bare = Answer(200, headers={"ETag": "1"}, length=None)
    stored.rule = lambda seen, act: bare if seen.name == "images/image" else act()
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="how large"):
        store.get_size(locate(store, URI))


def saying_zero(seen: Seen, act: Act) -> Answer:
    """Answer as a proxy that counts the bytes after the head, and finds none."""
    answer = act()
    return dataclasses.replace(answer, length="0") if seen.method == "HEAD" else answer


def test_size_of_each_image_is_said_to_be_nothing(stored):
    stored.rule = saying_zero
    store = store_at(stored)
    assert store.get_size(locate(store, URI)) == SIZE
    assert read(store, URI) == DATA


def test_success_without_an_object(stored):
    """Whoever has nothing to say to any request has no image."""
    stored.rule = lambda seen, act: Answer(200) if seen.name == NAME else act()
    store = store_at(stored, retry_timeout=0)
    for call in (store.get, store.get_size):
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="how large"):
            call(locate(store, URI))


@pytest.mark.parametrize("named", [{"Content-Range": "bytes */0"}, {}])
def test_image_without_a_first_byte(stored, named):
    stored.objects["images/image"] = Stored(b"", {})
    answers = {"HEAD": Answer(200, length=None), "GET": Answer(416, headers=named)}
    stored.rule = lambda seen, act: answers[seen.method] if seen.name == NAME else act()
    store = store_at(stored)
    assert store.get_size(locate(store, URI)) == 0
    assert read(store, URI) == b""


@pytest.mark.parametrize(("size", "options"), [(1000, {}), (9 * MIB, {}), (3 * MIB, SEGMENTS)])
def test_upload_through_a_proxy_that_says_nothing_of_sizes(server, size, options):
    server.rule = saying_zero
    store, data = store_at(server, **options), image(size)
    uri = store.add("image", io.BytesIO(data), size, "sha256")[0]
    assert read(store, uri) == data


def in_segments(server: LittleSwift) -> None:
    """Make the image a dynamic one, of which this Swift says that it is empty."""
    del server.objects["images/image"]
    server.objects["images/image-1"] = Stored(DATA[:MIB], {})
    server.objects["images/image-2"] = Stored(DATA[MIB:], {})
    server.objects["images/image"] = Stored(b"", {"x-object-manifest": "images/image-"})


@pytest.mark.parametrize("segments", [False, True], ids=["object", "segments"])
@pytest.mark.parametrize("sent", [0, 2 * MIB], ids=["nothing", "a-part"])
def test_close_while_the_server_is_silent(stored, sent, segments):
    """It comes from another thread; nobody waits for the server, nor for its time-out."""
    go_on = threading.Event()

    def silent(_seen: Seen, act: Act) -> Answer:
        answer = act()
        whole = str(len(answer.body))
        return Answer(206, answer.body[: max(0, sent - begun)], answer.headers, whole, go_on)

    begun = 0
    last = "images/image"
    if segments:
        in_segments(stored)
        # The first one comes, where something comes.
        begun, last = (MIB, "images/image-2") if sent else (0, "images/image-1")

    def rule(seen: Seen, act: Act) -> Answer:
        if (seen.method, seen.name) == ("HEAD", "images/image") and segments:
            return Answer(200, headers=act().headers, length="0")
        return silent(seen, act) if (seen.method, seen.name) == ("GET", last) else act()

    stored.rule = rule
    store = store_at(stored, read_timeout=3600, retry_timeout=3600)
    chunks, _size = store.get(locate(store, URI))
    got: list[bytes] = []
    ended: list[BaseException] = []

    def consume() -> None:
        try:
            got.extend(chunks)
        except (exceptions.BackendException, exceptions.GlanceStoreException) as exc:
            ended.append(exc)

    consumer = threading.Thread(target=consume)
    consumer.start()
    closer = threading.Thread(target=chunks.close)
    try:
        until(
            lambda: (
                (stored.of("GET", last) and sum(map(len, got)) >= sent) or not consumer.is_alive()
            ),
            "the server is silent",
        )
        assert consumer.is_alive()
        closer.start()
        closer.join(60)
        assert not closer.is_alive()
        consumer.join(60)
        assert not consumer.is_alive()
        assert not go_on.is_set()
    finally:
        go_on.set()
    assert b"".join(got) == DATA[:sent]
    assert len(stored.of("GET", last)) == 1


SEGMENT = 4 * MIB


def large(server: LittleSwift, kind: str) -> bytes:
    """Store an image of eight segments, or of one object, and return it."""
    data = image(8 * SEGMENT)
    if kind == "object":
        server.objects["images/image"] = Stored(data, {})
        return data
    entries = []
    for number in range(8):
        name = f"images/image-{number}"
        server.objects[name] = Stored(data[number * SEGMENT :][:SEGMENT], {})
        entries.append({"path": f"/{name}", "hash": server.objects[name].digest})
    if kind == "static":
        server.objects["images/image"] = Stored(b"", {}, entries)
    else:
        server.objects["images/image"] = Stored(b"", {"x-object-manifest": "images/image-"})
    return data


@pytest.mark.parametrize("offset", [0, SEGMENT, 3 * MIB + 7])
@pytest.mark.parametrize("kind", ["static", "dynamic", "object"])
def test_no_segment_is_asked_for_as_a_whole(server, kind, offset):
    """Swift would compute its MD5; an image that is one object comes in few long ranges."""
    data = large(server, kind)
    store = store_at(server, read_concurrency=1)
    store.READ_CHUNKSIZE = SEGMENT // 8
    assert read(store, URI, offset=offset) == data[offset:]
    ranges = [seen.headers["range"].removeprefix("bytes=").split("-") for seen in gets(server)]
    wholes = [
        begin
        for first, last in ranges
        for begin in range(0, len(data), SEGMENT)
        if int(first) <= begin and begin + SEGMENT <= int(last) + 1
    ]
    assert bool(wholes) == (kind == "object")
    assert (len(ranges) <= 5) == (kind == "object")
