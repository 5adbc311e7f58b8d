# SPDX-License-Identifier: Apache-2.0
"""Upload, download, and deletion of image data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from .images import IMAGE_SIZE, image_bytes, location_rows, pieces
from .scenes import FILES_ALONE, kinds

if TYPE_CHECKING:
    from .client import GlanceClient
    from .scenes import Scene
    from .server import GlanceServer
    from .stores.base import StoreUnderTest

pytestmark = pytest.mark.glance

STORES = pytest.mark.parametrize("which", ["default", pytest.param("named", marks=FILES_ALONE)])
RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=1000-1999": (1000, 2000),
    "bytes=65530-131080": (65530, 131081),  # across the edges of chunks
    "bytes=3000000-": (3000000, IMAGE_SIZE),
    "bytes=-500": (IMAGE_SIZE - 500, IMAGE_SIZE),
    f"bytes=100-{IMAGE_SIZE + 100}": (100, IMAGE_SIZE),
}


def test_upload_goes_to_the_default_store(scene: Scene) -> None:
    client, store = scene.client, scene.default
    data = image_bytes("default store")
    image_id = client.create("default store")
    client.upload(image_id, data)

    rows = location_rows(scene.glance, image_id)
    assert rows == [(store.location(image_id), {"store": store.name})]
    assert store.read(image_id) == data
    assert not scene.named.has(image_id)
    image = client.show(image_id)
    assert (image["status"], image["size"], image["stores"]) == ("active", len(data), store.name)
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert image["os_hash_algo"] == "sha512"
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert client.download(image_id).content == data


def test_upload_to_a_named_store(scene: Scene) -> None:
    client, store = scene.client, scene.named
    data = image_bytes("named store")
    image_id = client.create("named store")
    client.upload(image_id, data, store=store.name)

    rows = location_rows(scene.glance, image_id)
    assert rows == [(store.location(image_id), {"store": store.name})]
    assert store.read(image_id) == data
    assert not scene.default.has(image_id)
    assert client.show(image_id)["stores"] == store.name
    assert client.download(image_id).content == data
    assert client.download(image_id, prefer=store.name).content == data
    assert client.download(image_id, byte_range="bytes=65530-").content == data[65530:]


def test_upload_of_unknown_length(scene: Scene) -> None:
    client = scene.client
    data = image_bytes("unknown length")
    image_id = client.create("unknown length")
    client.upload(image_id, pieces(data))

    assert scene.default.read(image_id) == data
    image = client.show(image_id)
    assert (image["status"], image["size"]) == ("active", len(data))
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()


@kinds("file", "rbd")
def test_upload_of_zeros_to_a_thin_store(scene: Scene) -> None:
    client, store = scene.client, scene.named
    assert store.thin
    head, tail = image_bytes("head", 5000), image_bytes("tail", 5000)
    data = head + bytes(IMAGE_SIZE) + tail
    image_id = client.create("zeros")
    client.upload(image_id, data, store=store.name)

    assert store.read(image_id) == data
    assert store.used_bytes(image_id) < IMAGE_SIZE
    assert client.show(image_id)["checksum"] == hashlib.md5(data).hexdigest()
    assert client.download(image_id).content == data


def test_upload_to_an_unknown_store_is_refused(glance: GlanceServer, client: GlanceClient) -> None:
    image_id = client.create("unknown store")
    answer = client.upload(image_id, image_bytes("unknown store"), store="nowhere", expect=400)

    assert "nowhere" in answer.text
    assert client.show(image_id)["status"] == "queued"
    assert location_rows(glance, image_id) == []
    assert image_id not in glance.stored("fast") + glance.stored("slow")


def test_upload_to_the_http_store_is_refused(glance: GlanceServer, client: GlanceClient) -> None:
    data = image_bytes("http store")
    image_id = client.create("http store")
    client.upload(image_id, data, store="web", expect=410)

    assert client.show(image_id)["status"] == "queued"
    assert location_rows(glance, image_id) == []
    client.upload(image_id, data, store="fast")
    assert client.download(image_id).content == data


def test_second_upload_is_refused_and_harms_nothing(scene: Scene) -> None:
    client = scene.client
    data = image_bytes("first upload")
    image_id = client.create("two uploads")
    client.upload(image_id, data)
    client.upload(image_id, image_bytes("second upload"), expect=409)

    assert scene.default.read(image_id) == data
    assert client.show(image_id)["checksum"] == hashlib.md5(data).hexdigest()


@kinds("file", "rbd", "s3", "swift", "vmware")  # names of volumes need not be unique
def test_upload_over_something_that_is_in_the_way_is_refused(scene: Scene) -> None:
    image_id = scene.client.create("in the way")
    is_untouched = scene.default.put_in_the_way(image_id)
    # Glance 33 has no better answer for the library's Duplicate.
    scene.client.upload(image_id, image_bytes("in the way"), expect=500)

    assert is_untouched()
    assert location_rows(scene.glance, image_id) == []


@pytest.fixture(scope="module")
def images_in_stores() -> dict[str, str]:
    """The ids of images that are good for several tests, by kind and store."""
    return {}


def image_in(store: StoreUnderTest, scene: Scene, known: dict[str, str]) -> tuple[str, bytes]:
    """Return an image that is in a store, and what is in the image."""
    data = image_bytes("ranges")
    key = f"{scene.kind.name} {store.name}"
    if key not in known:
        image_id = scene.client.create("ranges")
        scene.client.upload(image_id, data, store=store.name)
        known[key] = image_id
    return known[key], data


@pytest.mark.parametrize("wanted", RANGES)
@STORES
def test_range_download(
    scene: Scene, images_in_stores: dict[str, str], which: str, wanted: str
) -> None:
    image_id, data = image_in(scene.store(which), scene, images_in_stores)
    start, end = RANGES[wanted]
    answer = scene.client.download(image_id, byte_range=wanted)

    assert answer.content == data[start:end]
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(data)}"
    assert answer.headers["Content-Length"] == str(end - start)


@STORES
def test_range_behind_the_end_is_refused(
    scene: Scene, images_in_stores: dict[str, str], which: str
) -> None:
    image_id, _ = image_in(scene.store(which), scene, images_in_stores)
    scene.client.download(image_id, byte_range=f"bytes={IMAGE_SIZE}-", expect=416)


def test_deleting_an_image_removes_its_data(scene: Scene) -> None:
    client, store = scene.client, scene.named
    before = scene.everything()
    image_id = client.create("to be deleted")
    client.upload(image_id, image_bytes("to be deleted"), store=store.name)
    assert store.has(image_id)
    client.delete(image_id)

    assert not store.has(image_id)
    assert scene.everything() == before
    assert location_rows(scene.glance, image_id) == []
    client.request("GET", f"images/{image_id}", expect=404)


def test_an_image_whose_data_is_gone(scene: Scene) -> None:
    client = scene.client
    image_id = client.create("data gone")
    client.upload(image_id, image_bytes("data gone"))
    scene.default.remove(image_id)

    client.download(image_id, expect=204)
    client.delete(image_id)
    client.request("GET", f"images/{image_id}", expect=404)


def test_sharing_an_image_needs_nothing_of_the_store(scene: Scene) -> None:
    client = scene.client
    data = image_bytes("shared")
    image_id = client.create("shared", visibility="shared")
    client.upload(image_id, data)
    client.request("POST", f"images/{image_id}/members", json={"member": "other"}, expect=200)

    with type(client)(client.url, roles="member,reader", project="other") as other:
        assert other.download(image_id).content == data
