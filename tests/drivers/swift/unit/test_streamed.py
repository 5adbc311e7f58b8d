# SPDX-License-Identifier: Apache-2.0
"""Images on their way, whole or as a stream, to a server that does what no real one does."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import streamed, upload
from glance_store._drivers.swift.large import Limits
from glance_store.testing import image
from glance_store.transfer.memory import Memory
from glance_store.transfer.multipart import EqualParts
from tests.drivers.swift.conftest import locate
from tests.drivers.swift.loopback import (
    Account,
    Answer,
    LittleSwift,
    Seen,
    Stored,
    client_of,
    store_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.swift.loopback import Act

BLOCK = 1000
SIZE = 3 * BLOCK + 7
DATA = image(SIZE)
MARK = "x-object-meta-glance-upload"
NAME = "images/image"
LIMITS = Limits(1000, 10**9)
OTHER = Stored(b"of somebody else", {MARK: "other"})


def upload_to(server: LittleSwift, ensure: Callable[[], bool] = lambda: False) -> upload.Upload:
    return upload.Upload(client_of(server.url), "images", "image", ensure, verify=True)


def streamed_by(made: upload.Upload, keep: bool = True, plan: Any = None) -> Any:
    return streamed.StreamedWriter(made, SIZE, BLOCK, plan, Memory(SIZE if keep else 1))


def fill(writer: Any) -> None:
    """Write all blocks; the last one is held back."""
    for offset in range(0, SIZE, BLOCK):
        with memoryview(DATA)[offset : offset + BLOCK] as block:
            writer.write(offset, block)


def first_put(rule: Callable[[Seen, Act], Answer], times: int = 1) -> Any:
    """Return a rule for the first requests to store an object."""
    left = [times]

    def found(seen: Seen, act: Act) -> Answer:
        if seen.method == "PUT" and left[0] and "/" in seen.name:
            left[0] -= 1
            return rule(seen, act)
        return act()

    return found


def stored(server: LittleSwift, made: upload.Upload) -> bool:
    """Tell whether the image is in place, as one of this upload."""
    found = server.objects.get(NAME)
    return found is not None and (found.data, found.headers[MARK]) == (DATA, made.mark)


# -- a name that is taken while the last block is on its way


@pytest.mark.parametrize("status", [409, 412])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "not-kept"])
def test_taken_while_the_last_block_is_sent(server, keep, status):
    """It is a `Duplicate` like any other, and what is there is not touched."""

    def taken(seen: Seen, _act: Act) -> Answer:
        assert seen.body == DATA
        server.objects[NAME] = OTHER
        return Answer(status)

    server.rule = first_put(taken)
    writer = streamed_by(upload_to(server), keep)
    fill(writer)
    with pytest.raises(exceptions.Duplicate):
        writer.commit(SIZE)
    writer.abort()
    assert server.objects[NAME] is OTHER


def test_taken_for_a_moment(server):
    """Whoever had it has failed: the image is sent again."""

    def taken(seen: Seen, _act: Act) -> Answer:
        assert seen.body == DATA
        return Answer(412)

    server.rule = first_put(taken)
    made = upload_to(server)
    writer = streamed_by(made)
    fill(writer)
    writer.commit(SIZE)
    assert stored(server, made)


# -- answers that come early


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "not-kept"])
def test_success_before_all_has_come(server, keep):
    """An object that has a part of the data is none, whatever the server says."""

    def too_early(seen: Seen, _act: Act) -> Answer:
        server.objects[NAME] = Stored(seen.read(1500), {MARK: seen.headers[MARK]})
        return Answer(201, headers={"ETag": hashlib.md5(DATA).hexdigest()})

    server.rule = first_put(too_early)
    made = upload_to(server)
    writer = streamed_by(made, keep)

    def run() -> None:
        fill(writer)
        writer.commit(SIZE)

    if keep:
        run()
        assert stored(server, made)
        return
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        run()
    writer.abort()
    assert server.names() == []


def test_container_that_vanishes_under_a_stream(server):
    """What was not kept cannot be sent again: that is no image that is not found."""
    server.rule = first_put(lambda seen, _act: Answer(404 if seen.body else 500))
    writer = streamed_by(upload_to(server), keep=False)

    def run() -> None:
        fill(writer)
        writer.commit(SIZE)

    with pytest.raises(exceptions.BackendException, match="container images was removed"):
        run()
    writer.abort()
    assert server.names() == []


@pytest.mark.parametrize("bytes_read", [BLOCK, SIZE])
def test_container_is_made_again_for_what_was_kept(server, bytes_read):
    made_again = []

    def gone(seen: Seen, _act: Act) -> Answer:
        server.containers.clear()
        seen.read(bytes_read)
        return Answer(404)

    def ensure() -> bool:
        made_again.append(True)
        server.containers.add("images")
        return True

    server.rule = first_put(gone)
    made = upload_to(server, ensure)
    writer = streamed_by(made)
    fill(writer)
    writer.commit(SIZE)
    assert stored(server, made)
    assert made_again == [True]
    # It is one of this upload, and would go with it.
    assert made._container_made


def test_container_that_vanishes_again_and_again(server):
    server.rule = first_put(lambda seen, _act: Answer(404 if seen.body else 500), times=2)
    made = upload_to(server)
    made.patience.seconds = 0
    with pytest.raises(exceptions.BackendException, match="container images was removed"):
        made.put_whole(DATA, None)


def test_refused_token_that_cannot_be_renewed(server):
    """Another try has the same token."""
    server.rule = lambda seen, act: Answer(401 if seen.method == "PUT" and seen.body else 500)
    client = client_of(server.url, Account(server.url, renewable=False))
    made = upload.Upload(client, "images", "image", lambda: False, verify=True)
    writer = streamed_by(made, plan=EqualParts(SIZE, LIMITS, SIZE))
    with pytest.raises(exceptions.BackendException, match="token"):
        fill(writer)
    assert len(server.of("PUT")) <= 2


# -- what the answer says of the data


def wrong_etag(seen: Seen, act: Act) -> Answer:
    """Store the right data, and call it something else."""
    answer = act()
    answer.headers["ETag"] = "0" * 32
    return answer


@pytest.mark.parametrize("way", ["whole", "streamed"])
@pytest.mark.parametrize("times", [1, 100], ids=["once", "always"])
def test_etag_that_does_not_match(server, times, way):
    """It is sent again, and fails at last; the object that is in place is this upload's own."""
    server.rule = first_put(wrong_etag, times)
    made = upload_to(server)
    made.patience.seconds = 1.0
    writer = streamed_by(made)

    def run() -> None:
        if way == "whole":
            made.put_whole(DATA, None)
            return
        fill(writer)
        writer.commit(SIZE)

    if times == 1:
        run()
        assert stored(server, made)
        assert server.of("DELETE")
        return
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="damaged"):
        run()
    writer.abort()
    assert server.names() == []


def test_damaged_object_of_somebody_else_is_not_removed(server):
    def wrong(seen: Seen, act: Act) -> Answer:
        answer = wrong_etag(seen, act)
        server.objects[NAME] = OTHER
        return answer

    server.rule = first_put(wrong)
    made = upload_to(server)
    with pytest.raises(exceptions.Duplicate):
        made.put_whole(DATA, None)
    made.abort()
    assert server.objects[NAME] is OTHER


def without_etag(seen: Seen, act: Act) -> Answer:
    answer = act()
    answer.headers.pop("ETag", None)
    return answer


def weak_etag(seen: Seen, act: Act) -> Answer:
    """Answer as a proxy does that changes the data of others on its way."""
    answer = act()
    if "ETag" in answer.headers:
        bare = answer.headers["ETag"].strip('"')
        answer.headers["ETag"] = f'W/"{bare}"'
    return answer


@pytest.mark.parametrize("rule", [without_etag, weak_etag])
@pytest.mark.parametrize("way", ["whole", "streamed", "segments"])
def test_server_that_says_little_of_the_data(server, rule, way):
    """Without an ETag there is nothing to compare; a weak one is one."""
    server.rule = rule
    made = upload_to(server)
    if way == "whole":
        made.put_whole(DATA, None)
    else:
        writer = streamed_by(
            made, plan=EqualParts(2 * BLOCK, LIMITS, SIZE) if way == "segments" else None
        )
        fill(writer)
        writer.commit(SIZE)
    assert server.data(NAME) == DATA
    segments = 2 if way == "segments" else 0
    assert len(server.of("PUT")) == 1 + segments
    assert server.of("DELETE") == []


@pytest.mark.parametrize("size", [100, 40_000_000], ids=["object", "stream"])
def test_weak_etag_of_an_image_that_is_read(server, size):
    server.rule = weak_etag
    store = store_at(server)
    data = image(size)
    uri = store.add("image", io.BytesIO(data), size, "sha256")[0]
    place = locate(store, uri)
    assert b"".join(store.get(place)[0]) == data
    assert store.get_size(place) == size
    store.delete(place)
    assert server.names() == []


def test_data_is_announced_with_its_md5(server):
    """Swift itself refuses what has changed on its way."""
    upload_to(server).put_whole(DATA, None)
    (put,) = server.of("PUT")
    assert put.headers["etag"] == hashlib.md5(DATA).hexdigest()


def test_data_that_swift_refuses_is_sent_again(server):
    server.rule = first_put(lambda seen, _act: Answer(422 if seen.body else 500))
    made = upload_to(server)
    made.put_whole(DATA, None)
    assert stored(server, made)
    # It was never in place.
    assert server.of("DELETE") == []


# -- answers that are late, or lost


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_success_that_is_not_found_for_a_while(server, way):
    """Of several servers one may lag behind: the answer counts."""

    def rule(seen: Seen, act: Act) -> Answer:
        late = seen.method == "HEAD" and seen.name == NAME and server.of("PUT")
        return Answer(404) if late else act()

    server.rule = rule
    made = upload_to(server)
    if way == "whole":
        made.put_whole(DATA, None)
    else:
        writer = streamed_by(made)
        fill(writer)
        writer.commit(SIZE)
    assert stored(server, made)
    assert len(server.of("PUT")) == 1


@pytest.mark.parametrize("found", [True, False], ids=["found", "late"])
@pytest.mark.parametrize("way", ["whole", "kept", "not-kept"])
def test_answer_is_lost(server, way, found):
    """It is a success, or nothing is left."""
    looks: list[int] = []

    def lost(_seen: Seen, act: Act) -> Answer:
        act()
        looks.append(0)
        return Answer(0)

    put = first_put(lost)

    def rule(seen: Seen, act: Act) -> Answer:
        if seen.method == "HEAD" and looks and not found:
            looks.append(1)
            if len(looks) <= 2:
                return Answer(404)
        return put(seen, act)

    server.rule = rule
    made = upload_to(server)
    writer = streamed_by(made, keep=way != "not-kept")

    def run() -> None:
        if way == "whole":
            made.put_whole(DATA, None)
            return
        fill(writer)
        writer.commit(SIZE)

    if found or way != "not-kept":
        run()
        assert stored(server, made)
        return
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        run()
    writer.abort()
    assert server.names() == []


def test_image_that_is_removed_while_its_size_is_waited_for(server):
    made = upload_to(server)
    made.uncertain = True
    server.objects[NAME] = Stored(b"short", {MARK: made.mark})
    found = made.look()
    assert found is not None
    server.objects.clear()
    with pytest.raises(exceptions.BackendException, match="was removed"):
        made.settle(found, upload.Expected(SIZE))
