# SPDX-License-Identifier: Apache-2.0
"""Images in the accounts of their owners: isolation, access control, trusts."""

from __future__ import annotations

import concurrent.futures
import io
import logging
import types
import uuid
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store._drivers.swift.client import Client
from glance_store.testing import image
from glance_store.testing.inputs import Source, check_bytes
from tests.drivers.swift.account import Account, Context, revoke, token_of
from tests.drivers.swift.conftest import SEGMENT, locate
from tests.faults.http import How
from tests.faults.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glance_store._drivers.swift import BaseStore

pytestmark = pytest.mark.services

OWNER, OTHER, ADMIN = "tenant-a", "tenant-b", "glance"
SIZE = 2 * SEGMENT + 7


@pytest.fixture
def owner(keystone, swift, container) -> Iterator[Account]:
    """The account of the owner, seen past the driver."""
    found = Account(keystone, OWNER, swift.storage_url(OWNER))
    yield found
    found.remove(container)


@pytest.fixture
def context(keystone, swift) -> Callable[..., Context]:
    """Make contexts of users."""

    def context(user: str, token: str | None = None, url: str | None = None) -> Context:
        return Context(keystone, user, url or swift.storage_url(user), token)

    return context


@pytest.fixture
def tenants(make) -> BaseStore:
    return make(multi_tenant=True)


def read(store, uri, context) -> bytes:
    return b"".join(store.get(locate(store, uri), context=context)[0])


def trusts(keystone) -> list[str]:
    """Return the ids of the trusts of the owner."""
    token = token_of(keystone, OWNER)
    path = f"/OS-TRUST/trusts?trustor_user_id={keystone.accounts[OWNER].user_id}"
    return [t["id"] for t in keystone.api.call("GET", path, None, token)[0]["trusts"]]


@pytest.mark.parametrize("size", [100, SIZE])
def test_r089_r108_image_in_the_account_of_its_owner(
    tenants, owner, swift, context, container, size
):
    image_id = str(uuid.uuid4())
    as_owner = context(OWNER)
    data = image(size)
    uri, *_rest = tenants.add(image_id, io.BytesIO(data), size, "sha256", context=as_owner)
    address = swift.storage_url(OWNER).removeprefix("http://")
    assert uri == f"swift+http://{address}/{container}_{image_id}/{image_id}"
    assert read(tenants, uri, as_owner) == data
    assert tenants.get_size(locate(tenants, uri), context=as_owner) == size
    tenants.delete(locate(tenants, uri), context=as_owner)
    # Empty, it goes too.
    assert owner.containers(container) == []


def test_isolation_and_acls(make, owner, context, container):
    admin = "service:*"
    store = make(multi_tenant=True, admin_tenants=[])
    uri, *_rest = store.add("x", io.BytesIO(image(SIZE)), SIZE, "sha256", context=context(OWNER))
    where = locate(store, uri)
    for user in (OTHER, ADMIN):
        with pytest.raises(exceptions.Forbidden):
            store.get(where, context=context(user))
        # Glance asks for the size of what a user has made up: his mistake, no fault of the store.
        with pytest.raises(exceptions.BadStoreUri):
            store.get_size(where, context=context(user))
        with pytest.raises(exceptions.Forbidden):
            store.delete(where, context=context(user))
    # The project of the other one.
    project = context(OTHER).project_id
    store.set_acls(where, read_tenants=[project], context=context(OWNER))
    assert read(store, uri, context(OTHER)) == image(SIZE)
    with pytest.raises(exceptions.Forbidden):
        store.get(where, context=context(ADMIN))
    with pytest.raises(exceptions.Forbidden):
        store.delete(where, context=context(OTHER))
    store.set_acls(where, context=context(OWNER))
    with pytest.raises(exceptions.Forbidden):
        store.get(where, context=context(OTHER))
    store.set_acls(where, public=True, context=context(OWNER))
    for user in (OTHER, ADMIN):
        assert read(store, uri, context(user)) == image(SIZE)
    assert admin not in owner.call("HEAD", f"/{container}_x").headers.get("x-container-read", "")


def test_r088_public_is_not_for_everybody(tenants, owner, context, container):
    """Regression 88: who is not authenticated does not read a public image."""
    tenants.add("x", io.BytesIO(b"data"), 4, "sha256", context=context(OWNER))
    place = locate(tenants, f"swift+http://{owner.url[7:]}/{container}_x/x")
    tenants.set_acls(place, public=True, context=context(OWNER))
    head = owner.call("HEAD", f"/{container}_x")
    assert head.headers["x-container-read"] == "*:*"
    assert owner.call("GET", f"/{container}_x/x", headers={"X-Auth-Token": ""}).status == 401


def test_admin_tenants(make, owner, context, container):
    project = context(ADMIN).project_id
    store = make(multi_tenant=True, admin_tenants=[f"{project}:*"])
    uri, *_rest = store.add("x", io.BytesIO(image(SIZE)), SIZE, "sha256", context=context(OWNER))
    assert read(store, uri, context(ADMIN)) == image(SIZE)
    with pytest.raises(exceptions.Forbidden):
        store.get(locate(store, uri), context=context(OTHER))
    writers = ["of-a-project"]
    store.set_acls(locate(store, uri), write_tenants=writers, context=context(OWNER))
    # Regression 119: the list belongs to the caller.
    assert writers == ["of-a-project"]
    head = owner.call("HEAD", f"/{container}_x")
    assert head.headers["x-container-write"] == f"of-a-project:*,{project}:*"
    assert read(store, uri, context(ADMIN)) == image(SIZE)
    store.delete(locate(store, uri), context=context(ADMIN))
    assert owner.listing(container) == []


def test_admin_tenants_by_their_ids(make, owner, context, container):
    """Without a user they are all users of the project; Swift itself would look for a role."""
    store = make(multi_tenant=True, admin_tenants=[context(ADMIN).project_id, "swiftoperator"])
    uri, *_rest = store.add("x", io.BytesIO(image(SIZE)), SIZE, "sha256", context=context(OWNER))
    assert read(store, uri, context(ADMIN)) == image(SIZE)
    # They have that role, as all operators of an account do, but belong to no such project.
    with pytest.raises(exceptions.Forbidden):
        store.get(locate(store, uri), context=context(OTHER))
    store.delete(locate(store, uri), context=context(ADMIN))
    assert owner.listing(container) == []


def test_token_of_a_user_stays_on_the_cluster(tenants, owner, context, container, swift):
    """Not even to another address of the same server, if the catalogue does not name it."""
    uri, *_rest = tenants.add("x", io.BytesIO(b"data"), 4, "sha256", context=context(OWNER))
    strange = uri.replace("127.0.0.1", "localhost")
    for operation in (tenants.get, tenants.get_size, tenants.delete, tenants.set_acls):
        with pytest.raises(exceptions.BadStoreUri, match="nothing was sent"):
            operation(locate(tenants, strange), context=context(OWNER))
    # What another user has shared is reached with the address of the other account.
    tenants.set_acls(locate(tenants, uri), public=True, context=context(OWNER))
    assert read(tenants, uri, context(OTHER)) == b"data"


def test_acls_of_a_missing_image(tenants, owner, context, container):
    place = locate(tenants, f"swift+http://{owner.url[7:]}/{container}_x/x")
    with pytest.raises(exceptions.NotFound):
        tenants.set_acls(place, context=context(OWNER))


def test_acls_of_one_account(store):
    place = locate(store, f"{store.url_prefix}x")
    with pytest.raises(NotImplementedError):
        store.set_acls(place, public=True)


def test_r122_container_with_something_else_in_it_stays(tenants, owner, context, container):
    uri, *_rest = tenants.add("x", io.BytesIO(b"data"), 4, "sha256", context=context(OWNER))
    owner.call("PUT", f"/{container}_x/notes", b"of the owner")
    tenants.delete(locate(tenants, uri), context=context(OWNER))
    assert owner.listing(container) == [f"{container}_x/notes"]


@pytest.fixture
def proxied(tenants, context, through) -> Callable[[], Context]:
    """Make contexts whose catalogue leads through the fault proxy."""
    return lambda: context(OWNER, url=through(OWNER))


def deletion(tenants, proxied, proxy, uri) -> list[str]:
    """Delete an image; return the methods of the requests for its container."""
    where = uri.replace(uri.split("/")[2], proxy.address)
    proxy.clear()
    tenants.delete(locate(tenants, where), context=proxied())
    container = f"/{uri.split('/')[-2]}"
    return [
        request.method
        for request in proxy.requests
        if request.target.partition("?")[0].endswith(container)
    ]


@pytest.fixture
def late_listing(monkeypatch, proxy) -> Callable[[int], None]:
    """Let the first tries to remove a container be refused, as by a listing that is late."""

    def late_listing(times: int) -> None:
        request = Client.request

        def refused(self, method, container, obj=None, **given):
            if method == "DELETE" and obj is None:
                proxy.fail_request(len(proxy.requests) + 1, 409, times=times)
                monkeypatch.setattr(Client, "request", request)
            return request(self, method, container, obj, **given)

        monkeypatch.setattr(Client, "request", refused)

    return late_listing


def test_listing_that_is_late(
    tenants, owner, context, container, proxied, proxy, late_listing, caplog
):
    """The container of an image that is gone is asked for again a few times."""
    uri, *_rest = tenants.add("x", io.BytesIO(b"data"), 4, "sha256", context=context(OWNER))
    late_listing(2)
    assert deletion(tenants, proxied, proxy, uri) == ["DELETE", "GET"] * 2 + ["DELETE"]
    assert owner.containers(container) == []
    assert "An empty container was left behind" not in caplog.text


def test_listing_that_stays_late(
    tenants, owner, context, container, proxied, proxy, late_listing, caplog
):
    uri, *_rest = tenants.add("x", io.BytesIO(b"data"), 4, "sha256", context=context(OWNER))
    late_listing(100)
    deletion(tenants, proxied, proxy, uri)
    assert f"{container}_x" in caplog.text
    assert "An empty container was left behind" in caplog.text


def test_container_with_something_else_is_not_asked_for_again(
    tenants, owner, context, container, proxied, proxy, caplog
):
    uri, *_rest = tenants.add("x", io.BytesIO(b"data"), 4, "sha256", context=context(OWNER))
    owner.call("PUT", f"/{container}_x/notes", b"of the owner")
    caplog.set_level(logging.DEBUG, "glance_store")
    assert deletion(tenants, proxied, proxy, uri) == ["DELETE", "GET"]
    (line,) = [r for r in caplog.records if "stays" in r.getMessage()]
    assert line.levelno == logging.DEBUG
    assert "notes" in line.getMessage()
    assert owner.listing(container) == [f"{container}_x/notes"]


def test_failed_upload_leaves_no_container(tenants, owner, context, container):
    with pytest.raises(exceptions.Invalid):
        tenants.add("x", io.BytesIO(image(SIZE)), SIZE + 1, "sha256", context=context(OWNER))
    assert owner.containers(container) == []


@pytest.mark.parametrize("missing", ["context", "auth_token", "service_catalog"])
def test_request_without_a_user(tenants, context, missing):
    incomplete = context(OWNER)
    if missing == "context":
        incomplete = None
    else:
        setattr(incomplete, missing, None)
    with pytest.raises(exceptions.BadStoreConfiguration):
        tenants.add("x", io.BytesIO(b"data"), 4, "sha256", context=incomplete)


def test_r109_catalogue_of_version_3(make, owner, context, container):
    store = make(multi_tenant=True, region="RegionTwo", endpoint_type="internalURL")
    asking = context(OWNER)
    endpoints = [
        {"interface": "internal", "region_id": "RegionOne", "url": "http://127.0.0.1:1/v1/x"},
        {"interface": "public", "region_id": "RegionTwo", "url": "http://127.0.0.1:1/v1/x"},
        {"interface": "internal", "region_id": "RegionTwo", "url": owner.url},
    ]
    asking.service_catalog = [{"type": "object-store", "endpoints": endpoints}]
    uri, *_rest = store.add("x", io.BytesIO(b"data"), 4, "sha256", context=asking)
    assert read(store, uri, asking) == b"data"
    asking.service_catalog = [{"type": "object-store", "endpoints": endpoints[:2]}]
    with pytest.raises(exceptions.NoServiceEndpoint, match="RegionTwo"):
        store.add("y", io.BytesIO(b"data"), 4, "sha256", context=asking)


def test_r120_prefix_where_it_is_known(make, owner, swift, context, container):
    store = make(multi_tenant=True, endpoint=swift.storage_url(OWNER))
    uri, *_rest = store.add("x", io.BytesIO(b"data"), 4, "sha256", context=context(OWNER))
    assert uri.startswith(store.url_prefix)
    assert store.url_prefix.count("://") == 1
    assert make(multi_tenant=True).url_prefix is None


# Tokens that end while an image is on its way.


def test_r112_token_ends_in_the_middle_of_an_upload(tenants, owner, keystone, context, container):
    """The upload goes on in the name of the user, by a trust that is removed afterwards."""
    token, _about = keystone.token(OWNER)

    def revoke_late(position: int) -> None:
        if position == 2 * SEGMENT:
            revoke(keystone, token)

    data = image(6 * SEGMENT + 7)
    store = tenants
    source = Source(data, portion=SEGMENT, before_read=revoke_late)
    uri, *_rest = store.add("x", source, len(data), "sha256", context=context(OWNER, token))
    assert read(store, uri, context(OWNER)) == data
    assert trusts(keystone) == []


def test_token_ends_in_an_upload_without_a_trust(make, owner, keystone, context, container, caplog):
    """It fails, and says so; without a token nothing can be removed either."""
    store = make(multi_tenant=True, use_trusts=False)
    token, _about = keystone.token(OWNER)
    data = image(3 * SEGMENT)

    def revoke_late(position: int) -> None:
        if position == 2 * SEGMENT:
            revoke(keystone, token)

    source = Source(data, portion=SEGMENT, before_read=revoke_late)
    with pytest.raises(exceptions.BackendException, match="token"):
        store.add("x", source, len(data), "sha256", context=context(OWNER, token))
    assert not any(name.endswith("/x") for name in owner.listing(container))


def test_trust_of_a_failed_upload_is_removed(tenants, owner, keystone, context):
    with pytest.raises(exceptions.Invalid):
        tenants.add("x", io.BytesIO(image(SIZE)), SIZE + 1, "sha256", context=context(OWNER))
    assert trusts(keystone) == []


def test_token_ends_in_the_middle_of_a_download(
    make, owner, keystone, context, container, through, proxy
):
    """It has to be good at the beginning only: all comes in one answer, and needs no trust."""
    store = make(multi_tenant=True, read_concurrency=4)
    data = image(40 * 1024 * 1024)
    uri, *_rest = store.add("x", io.BytesIO(data), len(data), "sha256", context=context(OWNER))
    where = uri.replace(uri.split("/")[2], proxy.address)
    token, _about = keystone.token(OWNER)
    asking = context(OWNER, token, through(OWNER))
    # So slow that several connections would be faster.
    proxy.inject(bandwidth=16 * 1024 * 1024)
    chunks, _length = store.get(locate(store, where), context=asking)
    got = [next(chunks)]
    assert trusts(keystone) == []
    revoke(keystone, token)
    got += chunks
    check_bytes(b"".join(got), data)
    assert [request.method for request in proxy.requests] == ["HEAD", "GET"]


def test_several_trusts_at_once(tenants, keystone, owner, context, container, caplog):
    """Keystone wants trusts of one user to differ: uploads that begin together each have one."""
    accounts = [tenants._account_for(context(OWNER))[0] for _number in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda account: account.prepare(), accounts))
    assert "no trust can be made" not in caplog.text
    assert len(trusts(keystone)) == 4
    for account in accounts:
        account.close()
    assert trusts(keystone) == []


@pytest.mark.parametrize("patience", [0, 2])
def test_answer_about_a_trust_is_lost(make, owner, keystone, context, container, caplog, patience):
    """The trust that was made is used and removed; there is no second one."""
    with FaultProxy("127.0.0.1", keystone.port, http=True) as identity:
        store = make(
            multi_tenant=True,
            auth_address=f"http://{identity.address}/v3",
            retry_timeout=patience,
        )
        account, _place = store._account_for(context(OWNER))
        account.prepare()
        account.close()
        posts = [r.number for r in identity.requests if r.target.endswith("/OS-TRUST/trusts")]
        identity.clear()
        identity.fail_request(posts[0], how=How.RESET, after=0)
        account, _place = store._account_for(context(OWNER))
        account.prepare()
        assert "no trust can be made" not in caplog.text
        assert len(trusts(keystone)) == 1
        account.close()
    assert trusts(keystone) == []


def test_trust_that_cannot_be_looked_for(make, owner, keystone, context, container, caplog):
    """Nobody knows whether it was made: the log says until when it would last."""
    with FaultProxy("127.0.0.1", keystone.port, http=True) as identity:
        store = make(
            multi_tenant=True, auth_address=f"http://{identity.address}/v3", retry_timeout=0
        )
        account, _place = store._account_for(context(OWNER))
        account.prepare()
        account.close()
        posts = [r.number for r in identity.requests if r.target.endswith("/OS-TRUST/trusts")]
        identity.clear()
        identity.fail_request(posts[0], how=How.RESET, everything=True, times=None)
        account, _place = store._account_for(context(OWNER))
        account.prepare()
        assert "may be left in the identity service until" in caplog.text
        assert "no trust can be made" in caplog.text
        assert account.token() == context(OWNER).auth_token
        account.close()


def test_trust_that_cannot_be_made(make, owner, keystone, context, container, caplog):
    """The upload goes on with the user's token."""
    store = make(multi_tenant=True, key="wrong-secret")
    uri, *_rest = store.add("x", io.BytesIO(image(SIZE)), SIZE, "sha256", context=context(OWNER))
    assert "no trust can be made" in caplog.text
    assert "wrong-secret" not in caplog.text
    assert read(store, uri, context(OWNER)) == image(SIZE)


# Configuration.


def test_r108_contradicting_options(make, tmp_path):
    with pytest.raises(exceptions.BadStoreConfiguration, match="exclude"):
        make(multi_tenant=True, swift_store_config_file=str(tmp_path / "file"))


def test_location_of_another_kind_of_store(tenants, store, make, context):
    alone = locate(tenants, f"{store.url_prefix}x")
    with pytest.raises(exceptions.BadStoreUri, match="multi_tenant"):
        tenants.get(alone, context=context(OWNER))
    shared = locate(store, "swift+http://127.0.0.1:1/v1/AUTH_x/c/o")
    with pytest.raises(exceptions.BadStoreUri, match="multi_tenant"):
        store.get(shared, context=types.SimpleNamespace(auth_token="token"))
