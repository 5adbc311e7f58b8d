# SPDX-License-Identifier: Apache-2.0
"""Whose credentials reach an image, whatever stands in its location; and tokens that end."""

from __future__ import annotations

import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.swift.conftest import locate, read
from tests.drivers.swift.loopback import (
    ACCOUNT,
    Answer,
    LittleSwift,
    Seen,
    Stored,
    context_at,
    store_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.swift.loopback import Act

MIB = 1024 * 1024
URI = "swift+config://ref1/images/image"
DATA = b"of the image"


@pytest.fixture
def stored(server) -> LittleSwift:
    """A cluster with an image in it."""
    server.objects["images/image"] = Stored(DATA, {})
    return server


def users(server: LittleSwift) -> list[dict[str, Any]]:
    """Return the users that have authenticated with a password."""
    return [login["identity"]["password"]["user"] for login in server.logins]


def uri_of(server: LittleSwift, user: str = "") -> str:
    return f"swift+http://{user}{server.address}/v3/images/image"


# -- locations


@pytest.mark.parametrize(
    "user", ["project%3Auser:canary@", "project%3Auser:of-other-days@", "project%3Auser:@", ""]
)
def test_password_of_the_configuration_counts(stored, user):
    """It was changed, and with it those in the locations of old images are of no use any more."""
    stored.passwords = {"user": "canary"}
    store = store_at(stored)
    uri = uri_of(stored, user)
    assert read(store, uri) == DATA
    assert store.get_size(locate(store, uri)) == len(DATA)
    store.delete(locate(store, uri))
    assert stored.names() == []
    assert {found["password"] for found in users(stored)} == {"canary"}


@pytest.mark.parametrize("ending", ["", "/", "/v3/", "/v2.0"])
def test_address_in_any_form(stored, ending):
    stored.passwords = {"user": "canary"}
    store = store_at(stored, auth_address=stored.auth_url.removesuffix("/v3") + ending)
    assert read(store, uri_of(stored, "project%3Auser:of-other-days@")) == DATA


def test_application_credential_of_the_configuration(stored):
    """Neither that credential nor a user stands in the location."""
    store = store_at(
        stored,
        application_credential_id="known",
        application_credential_secret="canary",
        user=None,
        key=None,
    )
    for uri in (uri_of(stored), "swift+config://ref1/images/image"):
        assert read(store, uri) == DATA
    (login,) = stored.logins
    assert login["identity"]["application_credential"]["id"] == "known"
    other = store.add("other", io.BytesIO(b"data"), 4, "sha256")[0]
    assert read(store, other) == b"data"


def test_another_user_of_the_configured_address(stored, tmp_path):
    """Its password is its own; the domains, which a location cannot name, are the configured."""
    file = tmp_path / "references.conf"
    file.write_text(
        f"[ref1]\nauth_address = {stored.auth_url}\nuser = project:user\nkey = canary\n"
        "user_domain_id = of-users\nproject_domain_id = of-projects\n"
    )
    store = store_at(
        stored, swift_store_config_file=str(file), auth_address=None, user=None, key=None
    )
    assert read(store, uri_of(stored, "other%3Asomebody:else@")) == DATA
    (login,) = stored.logins
    user = login["identity"]["password"]["user"]
    assert (user["name"], user["password"]) == ("somebody", "else")
    assert user["domain"] == {"id": "of-users"}
    assert login["scope"]["project"] == {"name": "other", "domain": {"id": "of-projects"}}


def test_another_address_gets_nothing_of_the_configuration(stored):
    with LittleSwift() as other:
        store = store_at(stored, retry_timeout=0)
        with pytest.raises(exceptions.BadStoreUri):
            store.get(locate(store, uri_of(other)))
        assert other.requests == []
        other.objects["images/image"] = Stored(DATA, {})
        assert read(store, uri_of(other, "project%3Auser:own@")) == DATA
        assert [found["password"] for found in users(other)] == ["own"]


# -- tokens of users that cannot be renewed


def tenants(server: LittleSwift, **options: Any) -> Any:
    return store_at(server, multi_tenant=True, use_trusts=False, **options)


def place_of(server: LittleSwift, store: Any) -> Any:
    return locate(store, f"swift+http://{server.address}{ACCOUNT}/images/image")


def test_token_ends_during_a_download(server):
    """It has to be good at the beginning only: there is one request."""
    data = image(40 * MIB)
    server.objects["images/image"] = Stored(data, {})
    ended = threading.Event()

    def rule(seen: Seen, act: Act) -> Answer:
        if ended.is_set():
            return Answer(401)
        if seen.method == "GET":
            ended.set()
        return act()

    server.rule = rule
    store = tenants(server, read_concurrency=8)
    chunks, size = store.get(place_of(server, store), context=context_at(server))
    assert b"".join(chunks) == data
    assert size == len(data)
    assert [seen.method for seen in server.requests] == ["HEAD", "GET"]


def test_token_ends_during_an_upload(server):
    """One request has all of the data, and none is needed after it."""
    server.containers = set()
    data = image(70 * MIB)
    ended = threading.Event()

    def rule(seen: Seen, act: Act) -> Answer:
        if ended.is_set():
            return Answer(401)
        if seen.method == "PUT" and "/" in seen.name:
            assert seen.read(MIB)
            ended.set()
        return act()

    server.rule = rule
    store = tenants(server)
    uri, *_rest = store.add(
        "image", io.BytesIO(data), len(data), "sha256", context=context_at(server)
    )
    assert uri.endswith("/images_image/image")
    assert [seen.name for seen in server.of("PUT")] == ["images_image", "images_image/image"]
    assert server.data("images_image/image") == data


def trusts(server: LittleSwift) -> list[str]:
    return [seen.method for seen in server.requests if "OS-TRUST" in seen.path]


def test_trusts_are_for_uploads(server):
    """A read needs none, however long it takes: it would make two requests to Keystone more."""
    data = image(40 * MIB)
    server.objects["images/image"] = Stored(data, {})
    store = store_at(server, multi_tenant=True)
    place, context = place_of(server, store), context_at(server)
    chunks, _size = store.get(place, context=context)
    assert b"".join(chunks) == data
    assert store.get_size(place, context=context) == len(data)
    assert trusts(server) == []
    assert server.logins == []
    store.add("other", io.BytesIO(data), len(data), "sha256", context=context)
    assert trusts(server) == ["POST", "DELETE"]


def test_token_without_a_project(server, caplog):
    """No trust can be made of it: the upload goes on with the token itself."""
    server.project = None
    data = image(9 * MIB)
    store = store_at(server, multi_tenant=True)
    context = context_at(server)
    uri, *_rest = store.add("image", io.BytesIO(data), len(data), "sha256", context=context)
    assert "no trust can be made" in caplog.text
    assert "not for a project" in caplog.text
    assert trusts(server) == []
    assert b"".join(store.get(locate(store, uri), context=context)[0]) == data


def with_trusts(server: LittleSwift, answer: Callable[[Seen], Answer | None]) -> None:
    """Have the identity service give other answers about trusts and the user's token."""

    def rule(seen: Seen, act: Act) -> Answer:
        asked = "OS-TRUST" in seen.path or (seen.method, seen.path) == ("GET", "/v3/auth/tokens")
        found = answer(seen) if asked else None
        if found is None:
            return act()
        assert seen.body is not None
        return found

    server.rule = rule


def upload(server: LittleSwift) -> None:
    data = image(9 * MIB)
    store = store_at(server, multi_tenant=True)
    context = context_at(server)
    store.add("image", io.BytesIO(data), len(data), "sha256", context=context)
    assert server.data("images_image/image") == data


def test_user_with_a_trust_that_has_no_end(server, caplog):
    """Heat makes such trusts; a token that may make none of its own can still store images."""
    listed = b'{"trusts": [{"id": "heat", "trustee_user_id": "heat", "expires_at": null}]}'
    with_trusts(
        server,
        lambda seen: (
            {"POST": Answer(403), "GET": Answer(200, listed)}.get(seen.method)
            if "OS-TRUST" in seen.path
            else None
        ),
    )
    upload(server)
    assert "no trust can be made" in caplog.text
    assert "answered 403" in caplog.text


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": {}, "trust": {}}'])
@pytest.mark.parametrize("path", ["/auth/tokens", "/OS-TRUST/trusts"])
def test_answer_about_trusts_that_makes_no_sense(server, caplog, path, body):
    """The image is stored without a trust."""
    with_trusts(server, lambda seen: Answer(201, body) if seen.path.endswith(path) else None)
    upload(server)
    assert "no trust can be made" in caplog.text


@pytest.mark.parametrize("ending", ["Z", ".000000Z", "+00:00", ""])
def test_end_of_a_token_in_other_forms(server, caplog, ending):
    described = server._token()
    described["token"]["expires_at"] = f"2100-01-01T00:00:00{ending}"
    answer = Answer(200, json.dumps(described).encode())
    with_trusts(server, lambda seen: answer if seen.path == "/v3/auth/tokens" else None)
    upload(server)
    assert "no trust can be made" not in caplog.text
    assert trusts(server) == ["POST", "DELETE"]


def test_trust_that_cannot_be_removed_is_not_waited_for_twice(server, pauses, caplog):
    """The identity service is away: the other token does not help."""
    with_trusts(server, lambda seen: Answer(503) if seen.method == "DELETE" else None)
    upload(server)
    assert "could not be removed" in caplog.text
    assert len(trusts(server)) == 1 + 1 + len(pauses)
