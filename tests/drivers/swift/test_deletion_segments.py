# SPDX-License-Identifier: Apache-2.0
"""Deletions that come only so far: what is left is named, and goes with the next try."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import deleter
from glance_store.testing import image
from tests.drivers.swift import undeletable
from tests.drivers.swift.conftest import SEGMENT, locate, read
from tests.faults.http import How

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glance_store._drivers.swift import BaseStore
    from tests.drivers.swift.account import Account

pytestmark = pytest.mark.services

SIZE = 3 * SEGMENT + 7
USER = "glance"
# Number of the request in a deletion of a dynamic image: it is looked at before, and listed up to
# the page that is empty.
FIRST_SEGMENT = 4


@pytest.fixture(params=["static", "dynamic"])
def kind(request) -> str:
    """How an image is one; dynamic where there are no static ones."""
    if request.param == "dynamic":
        request.getfixturevalue("no_static")
    return str(request.param)


@pytest.fixture
def proxied(make, through) -> Callable[..., BaseStore]:
    def proxied(**options: Any) -> BaseStore:
        return make(endpoint=through(USER), **options)

    return proxied


@pytest.fixture
def stubborn(swift, account) -> Iterator[Callable[[str], None]]:
    """Make objects of the account undeletable; at the end they go."""
    made: list[str] = []

    def stubborn(path: str) -> None:
        body = account.call("GET", f"/{path}").body
        undeletable.keep(swift, f"{account.url}/{path}", body)
        made.append(f"{account.url}/{path}")

    yield stubborn
    for url in made:
        undeletable.release(swift, url)


def add(store: BaseStore, name: str, data: bytes) -> str:
    return str(store.add(name, io.BytesIO(data), len(data), "sha256")[0])


def put_dynamic(account: Account, container: str, name: str, parts: int) -> None:
    """Write a dynamic large object of small segments."""
    put_static(account, container, name, parts)
    account.call("DELETE", f"/{container}/{name}")
    headers = {"X-Object-Manifest": f"{container}/{name}-"}
    account.call("PUT", f"/{container}/{name}", b"", headers)


def put_static(account: Account, container: str, name: str, parts: int) -> None:
    """Write a static large object of small segments."""
    account.call("PUT", f"/{container}")
    entries = []
    for number in range(parts):
        data = b"%06d" % number
        path = f"/{container}/{name}-{number:05d}"
        account.call("PUT", path, data)
        entries.append({"path": path, "etag": hashlib.md5(data).hexdigest(), "size_bytes": 6})
    body = json.dumps(entries).encode()
    answer = account.call("PUT", f"/{container}/{name}?multipart-manifest=put", body)
    assert answer.status == 201


@pytest.mark.parametrize("patience", [0, 1])
def test_segment_that_swift_does_not_remove(
    make, account, container, swift, stubborn, patience, kind
):
    """It is named. The manifest stays where Swift lets it: the next deletion takes both."""
    store = make(retry_timeout=patience)
    uri = add(store, "image", image(SIZE))
    _manifest, _first, second, *_rest = account.objects(container)
    stubborn(f"{container}/{second}")
    with pytest.raises(exceptions.BackendException) as caught:
        store.delete(locate(store, uri))
    assert second in str(caught.value)
    assert "delete the image again" in str(caught.value)
    assert account.objects(container) == (["image"] if kind == "dynamic" else []) + [second]
    undeletable.release(swift, f"{account.url}/{container}/{second}")
    if kind == "dynamic":
        store.delete(locate(store, uri))
    assert account.call("HEAD", f"/{container}/image").status == 404


@pytest.mark.usefixtures("no_static")
@pytest.mark.parametrize("status", [409, 503])
def test_segment_that_fails_for_good(proxied, proxy, account, container, status):
    store = proxied(retry_timeout=0)
    uri = add(store, "image", image(SIZE))
    proxy.clear()
    proxy.fail_request(FIRST_SEGMENT, status, times=None)
    with pytest.raises(exceptions.BackendException) as caught:
        store.delete(locate(store, uri))
    proxy.clear()
    manifest, *left = account.objects(container)
    assert manifest == "image"
    assert len(left) == 1
    assert left[0] in str(caught.value)
    store.delete(locate(store, uri))
    assert account.objects(container) == []


@pytest.mark.usefixtures("no_static")
@pytest.mark.parametrize("status", [409, 503])
def test_segment_that_fails_once(proxied, proxy, account, container, status):
    store = proxied()
    uri = add(store, "image", image(SIZE))
    proxy.clear()
    proxy.fail_request(FIRST_SEGMENT, status)
    store.delete(locate(store, uri))
    assert account.objects(container) == []


@pytest.mark.usefixtures("kind")
def test_each_request_of_a_deletion_fails_once(proxied, proxy, account, container):
    store = proxied()

    def place_and_delete() -> None:
        uri = add(store, "image", image(SIZE))
        proxy.clear()
        store.delete(locate(store, uri))

    for number in proxy.each_request(place_and_delete):
        uri = add(store, "image", image(SIZE))
        proxy.clear()
        proxy.fail_request(number, 503)
        store.delete(locate(store, uri))
        assert account.objects(container) == []


def test_cluster_that_is_gone_in_the_middle(proxied, proxy, account, container, caplog):
    """Not each of many segments is tried again and again; what is left can be deleted later."""
    store = proxied()
    put_dynamic(account, container, "image", 40)
    uri = f"{store.url_prefix}image"
    proxy.clear()
    proxy.fail_request(10, how=How.RESET, times=None, everything=True)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="delete the image again"):
        store.delete(locate(store, uri))
    # All tries for each of the others would be more than 120.
    assert len(proxy.requests) < 60
    proxy.clear()
    left = account.objects(container)
    assert left[0] == "image"
    assert 30 < len(left) <= 41
    store.delete(locate(store, uri))
    assert account.objects(container) == []


def test_failed_upload_on_a_cluster_that_is_gone(proxied, proxy, account, container, caplog):
    """One line says what is left, and where."""
    store = proxied()
    put_static(account, container, "image", 40)
    client = store._client(locate(store, f"{store.url_prefix}image").store_location, None)
    names = [name for name in account.objects(container) if name != "image"]
    proxy.clear()
    proxy.fail_request(1, how=How.RESET, times=None, everything=True)
    caplog.clear()
    deleter.remove_objects(client, container, names)
    # Two tries for each would be 80.
    assert len(proxy.requests) < 40
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    text = line.getMessage()
    assert f"40 objects in the container {container}, image-000*" in text
    assert "delete them" in text
    assert len(text) < 400


def test_cluster_that_is_gone_before_it_removes_anything(proxied, proxy, account, container):
    """A static image is removed by one request."""
    store = proxied()
    put_static(account, container, "image", 40)
    uri = f"{store.url_prefix}image"
    proxy.clear()
    proxy.fail_request(2, how=How.RESET, times=None, everything=True)
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        store.delete(locate(store, uri))
    proxy.clear()
    assert len(account.objects(container)) == 41
    store.delete(locate(store, uri))
    assert account.objects(container) == []


def test_account_that_may_not_remove_anything(make, account, container, proxy, through, kind):
    """It is stopped at the first segment: the image stays whole."""
    store = make(endpoint=through(USER))
    uri = add(store, "image", image(SIZE))
    before = account.objects(container)
    proxy.clear()
    first = FIRST_SEGMENT if kind == "dynamic" else 2
    proxy.fail_request(first, 403, times=None, everything=True)
    with pytest.raises(exceptions.Forbidden):
        store.delete(locate(store, uri))
    proxy.clear()
    assert account.objects(container) == before
    assert read(store, uri) == image(SIZE)


def test_r091_segment_of_a_dynamic_image_that_is_not_removed(make, account, container, stubborn):
    """Regression 91: the others go; the error names what is left, and so does the manifest."""
    store = make(retry_timeout=0)
    put_dynamic(account, container, "image", 5)
    stubborn(f"{container}/image-00002")
    with pytest.raises(exceptions.BackendException, match="image-00002") as caught:
        store.delete(locate(store, f"{store.url_prefix}image"))
    assert account.objects(container) == ["image", "image-00002"]
    assert container in str(caught.value)


def test_manifest_in_a_manifest(store, account, container, swift, stubborn):
    """Other programs write such; what the cluster cannot remove is named."""
    put_static(account, container, "inner", 3)
    account.call("PUT", f"/{container}/last", b"end")
    entries = [{"path": f"/{container}/inner"}, {"path": f"/{container}/last"}]
    body = json.dumps(entries).encode()
    answer = account.call("PUT", f"/{container}/outer?multipart-manifest=put", body)
    assert answer.status == 201
    uri = f"{store.url_prefix}outer"
    assert read(store, uri) == b"000000000001000002end"
    stubborn(f"{container}/inner-00001")
    with pytest.raises(exceptions.BackendException, match="inner-00001"):
        store.delete(locate(store, uri))
    assert account.objects(container) == ["inner-00001"]
    undeletable.release(swift, f"{account.url}/{container}/inner-00001")
    assert account.call("HEAD", f"/{container}/outer").status == 404
    assert account.call("HEAD", f"/{container}/inner").status == 404
    assert account.call("HEAD", f"/{container}/last").status == 404
