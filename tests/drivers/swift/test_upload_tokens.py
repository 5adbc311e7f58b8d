# SPDX-License-Identifier: Apache-2.0
"""Tokens that end while an image is uploaded, whichever way it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing import image
from glance_store.testing.inputs import Source, check_bytes
from glance_store.transfer.load import LOAD
from tests.drivers.swift.account import Account, Context, revoke, token_of
from tests.drivers.swift.conftest import locate, read
from tests.drivers.swift.uploads import WAYS, behind, numbers, options_of
from tests.faults.conftest import eventually
from tests.faults.http import How

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glance_store._drivers.swift import BaseStore

pytestmark = pytest.mark.services

OWNER = "tenant-a"
# Those whose first byte is sent before the last one has come.
LONG = [way for way in WAYS if way != "object"]


@pytest.fixture
def owner(keystone, swift, container) -> Iterator[Account]:
    """The account of the owner, seen past the driver."""
    found = Account(keystone, OWNER, swift.storage_url(OWNER))
    yield found
    found.remove(container)


def trusts(keystone) -> list[str]:
    """Return the ids of the trusts of the owner."""
    token = token_of(keystone, OWNER)
    path = f"/OS-TRUST/trusts?trustor_user_id={keystone.accounts[OWNER].user_id}"
    return [found["id"] for found in keystone.api.call("GET", path, None, token)[0]["trusts"]]


def once_behind(middle: int, function: Callable[[], object]) -> Callable[[int], None]:
    """Return what a source calls: the function, when more than `middle` bytes are on their way."""
    called = False

    def before_read(position: int) -> None:
        nonlocal called
        if position > middle and not called:
            called = True
            # A segment that cannot be sent again must not begin just now: its token is looked at
            # before, and nothing helps it when that one ends between this and its request.
            assert eventually(lambda: not LOAD._at_work)
            function()

    return before_read


@pytest.mark.parametrize("way", LONG)
def test_token_of_the_service_ends(make, account, keystone, container, tmp_path, way):
    store = make(**options_of(way, tmp_path))
    data = image(WAYS[way].size)
    source_of_tokens = store._account_for(None)[0]
    before_read = once_behind(
        len(data) * 2 // 3, lambda: revoke(keystone, source_of_tokens.token())
    )
    source = Source(data, portion=len(data) // 20, before_read=before_read)
    uri = store.add("image", source, len(data), "sha256")[0]
    check_bytes(read(store, uri), data)


@pytest.mark.parametrize("way", LONG)
def test_token_of_a_user_ends(make, owner, keystone, swift, container, tmp_path, way):
    """The trust is there before it ends; afterwards it is gone."""
    store = make(multi_tenant=True, **options_of(way, tmp_path))
    token, _about = keystone.token(OWNER)
    context = Context(keystone, OWNER, swift.storage_url(OWNER), token)
    data = image(WAYS[way].size)
    before_read = once_behind(len(data) * 2 // 3, lambda: revoke(keystone, token))
    source = Source(data, portion=len(data) // 20, before_read=before_read)
    uri = store.add("x", source, len(data), "sha256", context=context)[0]
    context = Context(keystone, OWNER, swift.storage_url(OWNER))
    check_bytes(b"".join(store.get(locate(store, uri), context=context)[0]), data)
    assert trusts(keystone) == []


@pytest.mark.parametrize("way", LONG)
def test_failed_upload_leaves_nothing_when_the_token_of_a_user_has_ended(
    make, owner, keystone, swift, container, tmp_path, way
):
    store = make(multi_tenant=True, **options_of(way, tmp_path))
    token, _about = keystone.token(OWNER)
    context = Context(keystone, OWNER, swift.storage_url(OWNER), token)
    data = image(WAYS[way].size)
    before_read = once_behind(len(data) - 1, lambda: revoke(keystone, token))
    end = exceptions.Invalid("the user's quota")
    source = Source(data, before_read=before_read, end=end)
    with pytest.raises(exceptions.Invalid):
        store.add("x", source, len(data) + 1, "sha256", context=context)
    assert owner.containers(container) == []
    assert trusts(keystone) == []


def test_a_small_image_needs_no_trust(make, owner, keystone, swift, container, monkeypatch):
    """It is sent in a moment; a trust would take longer."""
    store = make(multi_tenant=True)
    context = Context(keystone, OWNER, swift.storage_url(OWNER))
    account, place = store._account_for(context)
    monkeypatch.setattr(store, "_account_for", lambda _context: (account, place))
    prepared = []
    monkeypatch.setattr(account, "prepare", lambda: prepared.append(True))
    store.add("x", Source(image(10)), 10, "sha256", context=context)
    assert prepared == []


# The check behind the last request.


@pytest.fixture
def last_check(make, owner, through, keystone, swift, proxy, tmp_path) -> Callable[..., Any]:
    """Make a store of users; tell which requests make an image and look for it in the end."""

    def last_check(way: str) -> tuple[BaseStore, Context, bytes, int, int]:
        options = options_of(way, tmp_path)
        store = behind(make, through, OWNER, multi_tenant=True, use_trusts=False, **options)
        context = Context(keystone, OWNER, swift.storage_url(OWNER))
        data = image(WAYS[way].size)
        # The first upload also asks the cluster what it can do.
        for _time in range(2):
            proxy.clear()
            uri = store.add("x", Source(data), len(data), "sha256", context=context)[0]
            put = [request.number for request in proxy.requests if request.method == "PUT"][-1]
            found = numbers(proxy, "HEAD", "/x")[-1]
            store.delete(locate(store, uri), context=context)
        proxy.clear()
        return store, context, data, put, found

    return last_check


@pytest.mark.parametrize("status", [401, 403, 503])
@pytest.mark.parametrize("way", ["object", "stream-kept", "segments"])
def test_an_image_that_is_in_place_is_a_success(last_check, proxy, way, status):
    """Swift has said that it is there: it is, also when it cannot be looked at any more."""
    store, context, data, _put, number = last_check(way)
    proxy.fail_request(number, status, times=None)
    uri = store.add("x", Source(data), len(data), "sha256", context=context)[0]
    with pytest.raises(exceptions.GlanceStoreException):
        store.get_size(locate(store, uri), context=context)
    proxy.clear()
    check_bytes(b"".join(store.get(locate(store, uri), context=context)[0]), data)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("way", ["object", "stream-kept", "segments"])
def test_an_image_of_which_nothing_is_known_is_none(
    last_check, proxy, owner, container, way, status
):
    """Its answer was lost, and it cannot be looked at: the upload fails, and leaves nothing."""
    store, context, data, put, number = last_check(way)
    proxy.fail_request(put, how=How.RESET, after=0)
    proxy.fail_request(number, status)
    with pytest.raises(exceptions.GlanceStoreException):
        store.add("x", Source(data), len(data), "sha256", context=context)
    assert owner.listing(container) == []
