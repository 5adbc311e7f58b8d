# SPDX-License-Identifier: Apache-2.0
"""What a process that runs for long notices: other tokens, another address, an outage of either."""

from __future__ import annotations

import contextlib
import datetime
import io
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from tests.drivers.swift.conftest import locate, read
from tests.drivers.swift.loopback import (
    ACCOUNT,
    Answer,
    LittleSwift,
    Seen,
    Stored,
    store_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drivers.swift.loopback import Act

URI = "swift+config://ref1/images/image"
DATA = b"of the image"
PLAIN = {"Content-Type": "text/plain"}


@pytest.fixture
def stored(server) -> LittleSwift:
    """A cluster with an image in it."""
    server.objects["images/image"] = Stored(DATA, {})
    return server


# -- tokens that are not refused as Swift does it


def test_revoked_token_is_replaced_where_it_is_answered_by_403(stored):
    """As by the RADOS gateway; otherwise the process uses it until its end."""
    revoked = ["token1"]
    stored.rule = lambda seen, act: Answer(403) if seen.token in revoked else act()
    store = store_at(stored)
    place = locate(store, URI)
    assert read(store, URI) == DATA
    assert len(stored.logins) == 2
    revoked.append("token2")
    store.delete(place)
    assert len(stored.logins) == 3


def test_account_without_rights_does_not_log_in_each_time(stored):
    stored.rule = lambda seen, act: Answer(403) if seen.name == "images/image" else act()
    store = store_at(stored)
    for _number in range(3):
        with pytest.raises(exceptions.Forbidden):
            store.delete(locate(store, URI))
    assert len(stored.logins) == 2


# -- an identity service that is out of reach


def ending(server: LittleSwift, seconds: float) -> None:
    """Have all tokens end soon."""
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    described = server._token()
    described["token"]["expires_at"] = end.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    server._token = lambda: described


def without_identity(seen: Seen, act: Act) -> Answer:
    return Answer(503) if seen.path.startswith("/v3") else act()


def test_token_is_used_to_its_end_while_there_is_no_other(stored, pauses):
    """As when the identity service restarts: it is replaced a minute or two before its end."""
    ending(stored, 50)
    store = store_at(stored, retry_timeout=0.3)
    place = locate(store, URI)
    assert read(store, URI) == DATA
    stored.rule = without_identity
    assert read(store, URI) == DATA
    # Swift may have moved, but nobody knows where to.
    down = [Answer(503)] * 2
    stored.rule = lambda seen, act: (
        down.pop() if seen.method == "HEAD" and down else without_identity(seen, act)
    )
    with contextlib.suppress(exceptions.RemoteServiceUnavailable):
        store.get_size(place)
    assert store.get_size(place) == len(DATA)


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "refused"])
def test_token_that_is_no_good_is_not_used(stored, pauses, ended):
    ending(stored, -1 if ended else 50)
    store = store_at(stored, retry_timeout=0.3)
    assert read(store, URI) == DATA
    stored.rule = lambda seen, act: (
        Answer(401) if seen.path.startswith(ACCOUNT) and not ended else without_identity(seen, act)
    )
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        store.get_size(locate(store, URI))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"}),
        Answer(404, b"default backend - 404", PLAIN),
        Answer(201, b"{}"),
    ],
    ids=["page", "404", "nothing"],
)
def test_proxy_that_answers_in_place_of_the_identity_service(stored, pauses, answer):
    """Its service is restarting: that passes, whatever the status says."""
    answers = [answer] * 2
    stored.rule = lambda seen, act: (
        answers.pop() if seen.path.startswith("/v3") and answers and seen.body else act()
    )
    assert read(store_at(stored), URI) == DATA
    stored.rule = lambda seen, act: answer if seen.path.startswith("/v3") and seen.body else act()
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="look for a proxy"):
        read(store_at(stored, retry_timeout=0.3), URI)


@pytest.mark.parametrize(("status", "hint"), [(401, True), (404, True), (503, False)])
def test_refusal_of_the_identity_service(stored, pauses, status, hint):
    stored.rule = lambda seen, act: Answer(status) if seen.path.startswith("/v3") else act()
    with pytest.raises(exceptions.GlanceStoreException, match=f"answered {status}") as caught:
        read(store_at(stored, retry_timeout=0.3), URI)
    assert ("password" in str(caught.value)) == hint


# -- a Swift that moves to another address


@pytest.fixture
def other(server: LittleSwift) -> Iterator[LittleSwift]:
    """Another address of Swift, of which the identity service can tell."""
    with LittleSwift() as running:
        yield running


def move(server: LittleSwift, other: LittleSwift, answer: Answer | None) -> None:
    """Have the identity service name another address, while this one gives one answer."""
    described = server._token()
    described["token"]["catalog"][0]["endpoints"][0]["url"] = other.url
    server._token = lambda: described
    other.objects.update(server.objects)
    if answer is not None:
        server.rule = lambda seen, act: answer if seen.path.startswith(ACCOUNT) else act()


@pytest.mark.parametrize("answer", [Answer(0), Answer(503), Answer(404, b"gone", PLAIN)])
def test_swift_that_is_at_another_address(server, other, pauses, answer):
    """No restart of the service is needed: the catalogue is read again after a failure."""
    store = store_at(server, retry_timeout=0.3)
    uri = store.add("image", io.BytesIO(b"data"), 4, "sha256")[0]
    move(server, other, answer)
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        store.get_size(locate(store, uri))
    assert read(store, uri) == b"data"
    assert len(server.logins) == 2
    store.delete(locate(store, uri))
    assert (other.names(), len(server.logins)) == ([], 2)


def test_swift_that_moves_has_its_new_address_with_the_next_token(server, other):
    store = store_at(server)
    uri = store.add("image", io.BytesIO(b"data"), 4, "sha256")[0]
    move(server, other, None)
    refused = [Answer(401)]
    server.rule = lambda seen, act: refused.pop() if seen.method == "HEAD" and refused else act()
    assert store.get_size(locate(store, uri)) == 4
    assert read(store, uri) == b"data"
    assert other.of("GET", "/image")


def test_outage_of_swift_is_none_of_the_identity_service(server, pauses):
    """Logging in after each of many failed requests, one after the other, would prolong it."""
    store = store_at(server, retry_timeout=0)
    server.rule = lambda seen, act: Answer(503) if seen.path.startswith(ACCOUNT) else act()
    for _number in range(10):
        with pytest.raises(exceptions.RemoteServiceUnavailable):
            store.get_size(locate(store, URI))
    assert len(server.logins) == 2


def test_swift_that_the_options_name_stays_there(server, other):
    server.objects["images/image"] = Stored(b"data", {})
    store = store_at(server, retry_timeout=0, swift_store_endpoint=server.url)
    move(server, other, Answer(503))
    for _number in range(2):
        with pytest.raises(exceptions.RemoteServiceUnavailable):
            store.get_size(locate(store, URI))
    assert (other.requests, len(server.logins)) == ([], 1)


def test_passwords_of_a_netrc_file(server, sent_with_netrc):
    """requests sends them where a session does not say who asks, to Keystone as to Swift."""
    store = store_at(server)
    uri = store.add("image", io.BytesIO(b"data"), 4, "sha256")[0]
    assert read(store, uri) == b"data"
    assert server.logins
    assert {request.method for request in sent_with_netrc} >= {"GET", "POST", "PUT"}
    assert not any("Authorization" in request.headers for request in sent_with_netrc)
