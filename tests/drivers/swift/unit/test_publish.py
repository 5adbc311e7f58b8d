# SPDX-License-Identifier: Apache-2.0
"""How an image gets its name, on a server that does what no real one can be made to do."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import errors, publish
from glance_store._drivers.swift.objects import ObjectWriter, StreamWriter
from glance_store.testing import image

BLOCK = 1000
SIZE = 3 * BLOCK + 7
DATA = image(SIZE)
MARK = "X-Object-Meta-Glance-Upload"


class Answer:
    """What a server answers."""

    def __init__(self, status: int, **headers: str) -> None:
        self.status = status
        self.reason = "of the test"
        self.headers = {name.lower().replace("_", "-"): value for name, value in headers.items()}


class Server:
    """One object, its rules, and what a test wants to go wrong."""

    def __init__(self) -> None:
        self.account = types.SimpleNamespace(
            url="http://swift/v1/AUTH_x", close=lambda: None, prepare=lambda: None
        )
        self.settings = types.SimpleNamespace(retries=2, threads=1)
        self.stored: dict[str, Any] | None = None
        self.methods: list[str] = []
        # Called before each PUT is answered, with the bytes that were read of its body, which it
        # may go on with; returns an answer or nothing.
        self.puts: list[Any] = []

    def request(self, method: str, container: str, obj: str | None = None, **given: Any) -> Answer:
        self.methods.append(method)
        if method == "HEAD":
            return self._head()
        if method == "DELETE":
            self.stored = None
            return Answer(204)
        body = given["body"]
        blocks = iter(body() if callable(body) else body)
        rule = self.puts.pop(0) if self.puts else None
        if rule is not None:
            found = rule(self, blocks)
            if found is not None:
                if found.status in given["allow"] or found.status < 300:
                    return found
                raise errors.refusal(found.status, "x", "Storing", "image")
        if self.stored is not None:
            return Answer(412)
        data = b"".join(bytes(block) for block in blocks)
        self.store(data, given["headers"][MARK])
        return Answer(201, etag=hashlib.md5(data).hexdigest())

    def store(self, data: bytes, mark: str) -> None:
        self.stored = {"data": data, "mark": mark}

    def _head(self) -> Answer:
        if self.stored is None:
            return Answer(404)
        answer = Answer(
            200,
            etag=f'"{hashlib.md5(self.stored["data"]).hexdigest()}"',
            content_length=str(len(self.stored["data"])),
        )
        answer.headers[MARK] = self.stored["mark"]
        return answer


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(publish, "time", types.SimpleNamespace(sleep=lambda _seconds: None))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def name(server) -> publish.Name:
    return publish.Name(server, "container", "image")


def streamed(name: publish.Name, keep: bool = True, ensure: Any = lambda: False) -> StreamWriter:
    return StreamWriter(name, "uri", False, ensure, size=SIZE, block_size=BLOCK, keep=keep)


def fill(writer: StreamWriter) -> None:
    """Write all blocks; the last one is held back."""
    for offset in range(0, SIZE, BLOCK):
        with memoryview(DATA)[offset : offset + BLOCK] as block:
            writer.write(offset, block)


def read(blocks: Iterator[Any], count: int) -> bytes:
    return b"".join(bytes(next(blocks)) for _number in range(count))


# -- a name that is taken while the last block is on its way


@pytest.mark.parametrize("status", [409, 412])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "not-kept"])
def test_taken_while_the_last_block_is_sent(server, name, keep, status):
    """It is a `Duplicate` like any other, and what is there is not touched."""

    def taken(server: Server, blocks: Iterator[Any]) -> Answer:
        read(blocks, 4)
        server.store(b"of somebody else", "other")
        return Answer(status)

    server.puts = [taken]
    writer = streamed(name, keep)
    fill(writer)
    with pytest.raises(exceptions.Duplicate):
        writer.commit(SIZE)
    writer.abort()
    assert server.stored == {"data": b"of somebody else", "mark": "other"}


def test_taken_for_a_moment(server, name):
    """Whoever had it has failed: the image is sent again."""

    def taken(server: Server, blocks: Iterator[Any]) -> Answer:
        read(blocks, 4)
        return Answer(412)

    server.puts = [taken]
    writer = streamed(name)
    fill(writer)
    writer.commit(SIZE)
    assert server.stored == {"data": DATA, "mark": name.mark}


# -- answers that come early


def test_success_before_all_has_come(server, name):
    """An object that has a part of the data is none, whatever the server says."""

    def too_early(server: Server, blocks: Iterator[Any]) -> Answer:
        server.store(read(blocks, 2), name.mark)
        return Answer(201, etag=hashlib.md5(DATA).hexdigest())

    server.puts = [too_early]
    writer = streamed(name)
    fill(writer)
    writer.commit(SIZE)
    assert server.stored == {"data": DATA, "mark": name.mark}
    assert "DELETE" in server.methods


def test_container_that_vanishes_under_a_stream(server, name):
    """What was not kept cannot be sent again: that is no image that is not found."""
    server.puts = [lambda _server, _blocks: Answer(404)]
    writer = streamed(name, keep=False)

    def upload() -> None:
        fill(writer)
        writer.commit(SIZE)

    with pytest.raises(exceptions.BackendException, match="container container was removed"):
        upload()
    writer.abort()


@pytest.mark.parametrize("blocks_read", [1, 4])
def test_container_is_made_again_for_what_was_kept(server, name, blocks_read):
    made = []

    def gone(_server: Server, blocks: Iterator[Any]) -> Answer:
        read(blocks, blocks_read)
        return Answer(404)

    server.puts = [gone]
    writer = streamed(name, ensure=lambda: made.append(True) or True)
    fill(writer)
    writer.commit(SIZE)
    assert made == [True]
    assert server.stored == {"data": DATA, "mark": name.mark}
    # It is one of this upload, and would go with it.
    assert writer._container_made


def test_container_that_vanishes_again_and_again(server, name):
    server.puts = [lambda _server, _blocks: Answer(404)] * 2
    writer = ObjectWriter(name, "uri", False, lambda: False, size=SIZE)
    writer.write(0, memoryview(DATA))
    with pytest.raises(exceptions.BackendException, match="container container was removed"):
        writer.commit(SIZE)


# -- what the answer says of the data


def wrong_etag(server: Server, blocks: Iterator[Any]) -> Answer:
    """Store the right data, and call it something else."""
    data = b"".join(bytes(block) for block in blocks)
    server.store(data, "of the test")
    return Answer(201, etag="0" * 32)


@pytest.mark.parametrize("times", [1, 3], ids=["once", "always"])
def test_etag_that_does_not_match(server, name, times):
    """It is sent again, and fails at last; the object that is in place is this upload's own."""

    def wrong(server: Server, blocks: Iterator[Any]) -> Answer:
        answer = wrong_etag(server, blocks)
        server.store(server.stored["data"], name.mark)
        return answer

    server.puts = [wrong] * times
    writer = ObjectWriter(name, "uri", False, lambda: False, size=SIZE)
    writer.write(0, memoryview(DATA))
    if times == 1:
        writer.commit(SIZE)
        assert server.stored == {"data": DATA, "mark": name.mark}
        return
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="damaged"):
        writer.commit(SIZE)
    writer.abort()
    assert server.stored is None


def test_damaged_object_of_somebody_else_is_not_removed(server, name):
    server.puts = [wrong_etag]
    writer = ObjectWriter(name, "uri", False, lambda: False, size=SIZE)
    writer.write(0, memoryview(DATA))
    with pytest.raises(exceptions.Duplicate):
        writer.commit(SIZE)
    writer.abort()
    assert server.stored == {"data": DATA, "mark": "of the test"}


def test_server_that_says_nothing_of_the_data(server, name, monkeypatch):
    """Without an ETag there is nothing to compare."""
    head = server._head

    def without_etag() -> Answer:
        answer = head()
        answer.headers.pop("etag", None)
        return answer

    monkeypatch.setattr(server, "_head", without_etag)
    writer = ObjectWriter(name, "uri", False, lambda: False, size=SIZE)
    writer.write(0, memoryview(DATA))
    writer.commit(SIZE)
    assert server.methods == ["HEAD", "PUT", "HEAD"]


def test_data_is_announced_with_its_md5(server, name):
    sent = []
    request = server.request

    def noting(method: str, *place: Any, **given: Any) -> Answer:
        sent.append((method, given.get("headers")))
        return request(method, *place, **given)

    server.request = noting
    writer = ObjectWriter(name, "uri", False, lambda: False, size=SIZE)
    writer.write(0, memoryview(DATA))
    writer.commit(SIZE)
    (headers,) = [headers for method, headers in sent if method == "PUT"]
    assert headers["ETag"] == hashlib.md5(DATA).hexdigest()


def test_image_that_is_removed_while_its_size_is_waited_for(server, name):
    def put() -> int:
        server.store(b"short", name.mark)
        return 201

    def remove(_seconds: float) -> None:
        server.stored = None

    publish.time.sleep = remove
    with pytest.raises(exceptions.BackendException, match="was removed"):
        name.publish(put, lambda: publish.Expected(SIZE, None))
