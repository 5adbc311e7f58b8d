# SPDX-License-Identifier: Apache-2.0
"""Import into one or several stores, copies between them, and deletion from one of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from .images import image_bytes, location_rows
from .scenes import kinds

if TYPE_CHECKING:
    from .scenes import Scene
    from .stores.base import StoreUnderTest
    from .webserver import WebServer

pytestmark = pytest.mark.glance


def rows_in(stores: list[StoreUnderTest], image_id: str) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of the locations of an image that is in these stores."""
    return [(store.location(image_id), {"store": store.name}) for store in stores]


def assert_is_in(scene: Scene, image_id: str, stores: list[StoreUnderTest], data: bytes) -> None:
    """Assert that an image is active, whole, and in these stores alone."""
    rows = location_rows(scene.glance, image_id)
    assert sorted(rows, key=str) == sorted(rows_in(stores, image_id), key=str)
    for store in scene.stores.values():
        assert store.has(image_id) == (store in stores)
        assert store not in stores or store.read(image_id) == data
    image = scene.client.show(image_id)
    assert image["status"] == "active"
    assert sorted(image["stores"].split(",")) == sorted(store.name for store in stores)
    assert image["os_glance_importing_to_stores"] == ""
    assert image["os_glance_failed_import"] == ""
    assert image["size"] == len(data)
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert image_id not in scene.glance.staged()
    assert scene.client.download(image_id).content == data


def names(*stores: StoreUnderTest) -> list[str]:
    return [store.name for store in stores]


def test_glance_direct_into_several_stores(scene: Scene) -> None:
    client, stores = scene.client, [scene.default, scene.named]
    data = image_bytes("glance-direct")
    image_id = client.create("glance-direct")
    client.stage(image_id, data)
    assert (scene.glance.staging / image_id).read_bytes() == data
    assert client.show(image_id)["status"] == "uploading"

    client.import_image(image_id, "glance-direct", names(*stores))
    assert_is_in(scene, image_id, stores, data)
    scene.client.delete(image_id)
    assert not scene.default.has(image_id)
    assert not scene.named.has(image_id)


@kinds("file", "rbd", "s3", "swift", "vmware")
def test_glance_direct_into_the_default_store(scene: Scene) -> None:
    client = scene.client
    data = image_bytes("glance-direct default")
    image_id = client.create("glance-direct default")
    client.stage(image_id, data)
    client.import_image(image_id, "glance-direct", [])
    assert_is_in(scene, image_id, [scene.default], data)


@kinds("file")  # the staging store is one of files anyway
def test_deleting_a_staged_image_empties_the_staging_store(scene: Scene) -> None:
    image_id = scene.client.create("staged and deleted")
    scene.client.stage(image_id, image_bytes("staged and deleted"))
    assert image_id in scene.glance.staged()
    scene.client.delete(image_id)
    assert image_id not in scene.glance.staged()


def test_web_download_into_several_stores(scene: Scene, web: WebServer) -> None:
    client, stores = scene.client, [scene.named, scene.default]
    data = image_bytes("web-download")
    uri = web.add("/web-download.raw", data)
    image_id = client.create("web-download")
    client.import_image(image_id, "web-download", names(*stores), uri=uri)
    assert_is_in(scene, image_id, stores, data)


@kinds("file")  # no store takes part in it
def test_web_download_of_a_missing_file_leaves_nothing(scene: Scene, web: WebServer) -> None:
    client = scene.client
    before = scene.everything()
    image_id = client.create("missing file")
    uri = web.url("/no-such-file.raw")
    stores = names(scene.default, scene.named)
    client.import_image(image_id, "web-download", stores, uri=uri)

    image = client.show(image_id)
    assert image["status"] == "queued"
    assert sorted(image["os_glance_failed_import"].split(",")) == sorted(stores)
    assert location_rows(scene.glance, image_id) == []
    assert scene.everything() == before


@kinds("file", "rbd", "s3", "swift", "vmware")  # names of volumes need not be unique
def test_import_that_fails_in_one_store_leaves_nothing(scene: Scene) -> None:
    client = scene.client
    image_id = client.create("one store fails")
    client.stage(image_id, image_bytes("one store fails"))
    # Something in the way makes the second store refuse what the first has taken.
    is_untouched = scene.named.put_in_the_way(image_id)
    client.import_image(image_id, "glance-direct", names(scene.default, scene.named))

    assert location_rows(scene.glance, image_id) == []
    assert not scene.default.has(image_id)
    assert is_untouched()


@kinds("file", "rbd", "s3", "swift", "vmware")  # names of volumes need not be unique
def test_import_that_may_fail_in_one_store(scene: Scene) -> None:
    client, stores = scene.client, names(scene.default, scene.named)
    data = image_bytes("one store may fail")
    image_id = client.create("one store may fail")
    client.stage(image_id, data)
    is_untouched = scene.named.put_in_the_way(image_id)
    client.import_image(image_id, "glance-direct", stores, all_stores_must_succeed=False)

    image = client.show(image_id)
    assert (image["status"], image["stores"]) == ("active", scene.default.name)
    assert image["os_glance_failed_import"] == scene.named.name
    assert location_rows(scene.glance, image_id) == rows_in([scene.default], image_id)
    assert client.download(image_id).content == data
    assert image_id not in scene.glance.staged()
    assert is_untouched()


@pytest.mark.parametrize("direction", ["from files", "to files"])
def test_copy_image_into_another_store(scene: Scene, direction: str) -> None:
    client = scene.client
    source, target = scene.default, scene.files
    if direction == "from files":
        source, target = target, source
    data = image_bytes("copy-image")
    image_id = client.create("copy-image")
    client.upload(image_id, data, store=source.name)
    client.import_image(image_id, "copy-image", [target.name])
    assert_is_in(scene, image_id, [source, target], data)


def test_deleting_from_one_store_keeps_the_others(scene: Scene) -> None:
    client, one, other = scene.client, scene.default, scene.files
    data = image_bytes("two stores")
    image_id = client.create("two stores")
    client.stage(image_id, data)
    client.import_image(image_id, "glance-direct", names(one, other))
    client.delete_from_store(image_id, one.name)
    assert location_rows(scene.glance, image_id) == rows_in([other], image_id)
    assert not one.has(image_id)
    assert client.show(image_id)["stores"] == other.name
    assert client.download(image_id).content == data

    client.delete_from_store(image_id, other.name, expect=403)  # the last copy stays
    assert other.read(image_id) == data

    client.import_image(image_id, "copy-image", [one.name])
    assert_is_in(scene, image_id, [other, one], data)
