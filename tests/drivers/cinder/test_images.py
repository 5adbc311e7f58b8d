# SPDX-License-Identifier: Apache-2.0
"""What an image is in Cinder: its volume, who owns it, how it grows, and how it is deleted."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.cinder.stores import (
    GROUP,
    CinderStore,
    Context,
    Listing,
    Store,
    location,
    make_store,
)

if TYPE_CHECKING:
    from tests.services.cinder import Cinder

pytestmark = pytest.mark.services

GiB = 1024**3
SIZE = 200_000


def add(store: Any, data: bytes, size: int | None = None, context: Any = None) -> str:
    given = len(data) if size is None else size
    uri: str = store.add(str(uuid.uuid4()), io.BytesIO(data), given, "sha256", context=context)[0]
    return uri


def read(store: Any, uri: str, context: Any = None, **bounds: Any) -> bytes:
    chunks, size = store.get(location(store, uri), context=context, **bounds)
    data = b"".join(chunks)
    assert len(data) == size
    return data


class Zeros:
    """A source of zeros with some data at its end."""

    def __init__(self, size: int, end: bytes) -> None:
        self._left = size - len(end)
        self._end = io.BytesIO(end)

    def read(self, length: int) -> bytes:
        if self._left:
            length = min(length, self._left)
            self._left -= length
            return bytes(length)
        return self._end.read(length)


@pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
def test_r161_layout(cinder: Cinder, listing: Listing, known: bool) -> None:
    """Name, size, type, metadata and flag of a volume are those that releases before had."""
    store = make_store(cinder.store_options("multi"))
    image_id, data = str(uuid.uuid4()), image(SIZE)
    context = Context(project_id="owner")
    size = len(data) if known else 0
    uri, stored, _md5, _sha256, metadata = store.add(
        image_id, io.BytesIO(data), size, "sha256", context=context
    )
    volume = listing.volume(uri)
    assert uri == f"cinder://{GROUP}/{volume['id']}"
    assert uri.startswith(store.url_prefix)
    assert (stored, metadata) == (SIZE, {"store": GROUP})
    assert volume["name"] == f"image-{image_id}"
    assert (volume["size"], volume["volume_type"], volume["status"]) == (1, "multi", "available")
    of_image = {"glance_image_id": image_id, "image_size": str(SIZE), "image_owner": "owner"}
    readonly = {"readonly": "True"}
    assert {**volume["metadata"], **of_image, **readonly} == volume["metadata"]
    assert volume["metadata"]["glance_upload_state"] == "complete"
    # r187
    assert store.get_size(location(store, uri)) == SIZE
    store.delete(location(store, uri))


def test_r188_empty_image(cinder: Cinder, listing: Listing) -> None:
    store = make_store(cinder.store_options("multi"))
    uri = add(store, b"")
    assert listing.volume(uri)["size"] == 1
    assert read(store, uri) == b""
    store.delete(location(store, uri))


@pytest.mark.parametrize("attached", [True, False], ids=["online", "offline"])
@pytest.mark.parametrize("data", [True, False], ids=["data", "zeros"])
def test_r193_unknown_size_grows(
    cinder: Cinder, listing: Listing, attached: bool, data: bool
) -> None:
    """A volume that is full is extended while several write, also for a hole at its very end."""
    tail = image(48 * 1024 * 1024) if data else bytes(5000)
    options = {**cinder.store_options("multi"), "cinder_do_extend_attached": attached}
    store = make_store(options, CinderStore)
    size = GiB + 3_000_000
    source = Zeros(size, tail)
    uri, stored, *_rest = store.add(str(uuid.uuid4()), source, 0, "sha256", context=Context())
    assert stored == size == store.get_size(location(store, uri))
    assert listing.volume(uri)["size"] == 2
    assert read(store, uri, offset=size - len(tail) - 7) == bytes(7) + tail
    store.delete(location(store, uri))


def test_r160_volume_that_is_larger(
    cinder: Cinder, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of the image counts, whatever size Cinder has given the volume."""
    store = make_store(cinder.store_options("multi"))
    monkeypatch.setattr("glance_store._drivers.cinder.writer.gigabytes", lambda size: 2)
    data = image(SIZE)
    uri = add(store, data)
    assert listing.volume(uri)["size"] == 2
    assert read(store, uri) == data
    store.delete(location(store, uri))


def test_image_of_an_older_release(cinder: Cinder, listing: Listing) -> None:
    """Volumes without any mark of this release are images; without a size they are all image."""
    store = make_store(cinder.store_options("multi"))
    data = image(SIZE)
    uri = add(store, data)
    volume = f"/volumes/{uri.rpartition('/')[2]}"
    marks = listing.volume(uri)["metadata"]
    old = {name: marks[name] for name in ("glance_image_id", "image_owner", "image_size")}
    listing.call("PUT", f"{volume}/metadata", {"metadata": old})
    assert read(store, uri) == data
    with pytest.raises(exceptions.Duplicate):
        store.add(old["glance_image_id"], io.BytesIO(b"x"), 1, "sha256")
    del old["image_size"]
    listing.call("PUT", f"{volume}/metadata", {"metadata": old})
    assert store.get_size(location(store, uri)) == GiB
    assert read(store, uri, chunk_size=SIZE) == data
    store.delete(location(store, uri))


def test_same_image_in_two_stores(cinder: Cinder, listing: Listing) -> None:
    """Copies of an image in stores of one project are no duplicates of each other."""
    stores = [make_store(cinder.store_options(kind)) for kind in ("multi", "plain")]
    image_id, data = str(uuid.uuid4()), image(SIZE)
    for store in stores:
        uri = store.add(image_id, io.BytesIO(data), SIZE, "sha256")[0]
        assert read(store, uri) == data
    assert len(listing.volumes()) == 2
    listing.remove_all()


def test_deletion_of_what_is_in_use(cinder: Cinder, listing: Listing) -> None:
    store = make_store(cinder.store_options("multi"))
    uri = add(store, image(SIZE))
    chunks, _size = store.get(location(store, uri))
    with pytest.raises(exceptions.InUseByStore):
        store.delete(location(store, uri))
    chunks.close()
    volume = uri.rpartition("/")[2]
    action = f"/volumes/{volume}/action"
    listing.call("POST", action, {"os-reset_status": {"status": "maintenance"}})
    with pytest.raises(exceptions.InUseByStore, match="maintenance"):
        store.delete(location(store, uri))
    listing.call("POST", action, {"os-reset_status": {"status": "available"}})
    body = {"snapshot": {"volume_id": volume, "name": "kept"}}
    snapshot = listing.call("POST", "/snapshots", body)["snapshot"]["id"]
    path = f"/snapshots/{snapshot}"
    cinder.wait(
        lambda: listing.call("GET", path)["snapshot"]["status"] == "available", "a snapshot"
    )
    with pytest.raises(exceptions.HasSnapshot):
        store.delete(location(store, uri))
    listing.call("DELETE", path)
    cinder.wait(lambda: not listing.call("GET", "/snapshots")["snapshots"], "its end")
    store.delete(location(store, uri))
    # r191: callers look for either class.
    for use in (store.get, store.get_size, store.delete):
        with pytest.raises(exceptions.NotFound) as caught:
            use(location(store, uri))
        assert isinstance(caught.value, exceptions.BackendException)


def test_r172_credentials_of_the_request(cinder: Cinder) -> None:
    """Without credentials of its own a store uses those of the request, and its project."""
    listing, foreign = Listing(cinder, "tenant-a"), Listing(cinder)
    own = [name for name in cinder.store_options("multi") if not name.startswith("cinder_store_")]
    options = {name: cinder.store_options("multi")[name] for name in own}
    store = make_store(options, CinderStore)
    context = Context.of(cinder, "tenant-a")
    data = image(SIZE)
    uri = add(store, data, context=context)
    assert [volume["metadata"]["image_owner"] for volume in listing.volumes()] == [
        context.project_id
    ]
    assert foreign.volumes() == []
    assert read(store, uri, context=context) == data
    assert store.get_size(location(store, uri), context=context) == SIZE
    with pytest.raises(exceptions.NotFound):
        store.get_size(location(store, uri), context=Context.of(cinder, "tenant-b"))
    with pytest.raises(exceptions.BadStoreConfiguration, match="catalogue"):
        store.get_size(location(store, uri))
    expired = Context.of(cinder, "tenant-a")
    cinder.keystone.revoke(expired.auth_token)
    with pytest.raises(exceptions.NotAuthenticated):
        store.get_size(location(store, uri), context=expired)
    elsewhere = make_store({**options, "cinder_catalog_info": "volumev9::publicURL"}, CinderStore)
    with pytest.raises(exceptions.BadStoreConfiguration, match="volumev9"):
        elsewhere.get_size(location(store, uri), context=context)
    store.delete(location(store, uri), context=context)
    listing.wait_until_empty()


def test_r190_credentials_of_two_stores(cinder: Cinder, listing: Listing) -> None:
    """Each store of a process works in its own project, one of them by application credential."""
    first = make_store(cinder.store_options("multi"))
    theirs = Listing(cinder, "tenant-b")
    credential = cinder.keystone.application_credential("tenant-b", f"store-{uuid.uuid4()}")
    options = {
        name: value
        for name, value in cinder.store_options("multi").items()
        if name not in ("cinder_store_user_name", "cinder_store_password")
    }
    options["cinder_store_application_credential_id"] = credential.id
    options["cinder_store_application_credential_secret"] = credential.secret
    second = make_store(options)
    data = image(SIZE)
    places = [add(store, data) for store in (first, second)]
    assert [len(found.volumes()) for found in (listing, theirs)] == [1, 1]
    for store, uri in zip((first, second), places, strict=True):
        assert read(store, uri) == data
        store.delete(location(store, uri))
    theirs.wait_until_empty()


def test_r173_unknown_volume_type(
    cinder: Cinder, listing: Listing, caplog: pytest.LogCaptureFixture
) -> None:
    """A type that Cinder does not know is a warning at the start, and an error of uploads."""
    store = make_store({**cinder.store_options("multi"), "cinder_volume_type": "no-such-type"})
    assert "no-such-type" in caplog.text
    with pytest.raises(exceptions.BackendException, match="no-such-type"):
        add(store, b"data")
    assert listing.all() == []


def test_uploads_without_a_request(cinder: Cinder, listing: Listing) -> None:
    """The credentials of the store are enough, as for a command; somebody's there have to be."""
    store = make_store(cinder.store_options("multi"), CinderStore)
    uri = add(store, b"data")
    assert read(store, uri) == b"data"
    store.delete(location(store, uri))
    listing.wait_until_empty()
    store = make_store({"cinder_volume_type": "multi"}, CinderStore)
    with pytest.raises(exceptions.BadStoreConfiguration, match="no credentials"):
        add(store, b"data")


def test_r183_whose_volume_it_is(cinder: Cinder, listing: Listing) -> None:
    """A volume belongs to the store of its type, without one to that of the default type."""
    stores = {kind: make_store(cinder.store_options(kind)) for kind in ("multi", "plain")}
    default = make_store({**cinder.store_options("plain"), "cinder_volume_type": None})
    uri = add(stores["plain"], b"data")
    volume = uri.rpartition("/")[2]
    asked = Context(auth_token="good for nothing")
    assert stores["plain"].is_image_associated_with_store(asked, volume)
    assert default.is_image_associated_with_store(asked, volume)
    assert not stores["multi"].is_image_associated_with_store(asked, volume)
    assert not stores["plain"].is_image_associated_with_store(asked, str(uuid.uuid4()))
    stores["plain"].delete(location(stores["plain"], uri))


def test_health(cinder: Cinder) -> None:
    assert "GiB" in make_store(cinder.store_options("multi")).check_health()


def test_store_keeps_its_class(cinder: Cinder) -> None:
    assert issubclass(Store, CinderStore)
