# SPDX-License-Identifier: Apache-2.0
"""Import into one or several stores, copies between them, and deletion from one of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from .images import file_url, image_bytes, location_rows

if TYPE_CHECKING:
    from .client import GlanceClient
    from .server import GlanceServer
    from .webserver import WebServer

pytestmark = pytest.mark.glance


def assert_is_in(
    glance: GlanceServer, client: GlanceClient, image_id: str, stores: list[str], data: bytes
) -> None:
    """Assert that an image is active, whole, and in these file stores alone."""
    rows = location_rows(glance, image_id)
    expected = [(file_url(glance, store, image_id), {"store": store}) for store in stores]
    assert sorted(rows) == sorted(expected)
    for store in ("fast", "slow"):
        stored = glance.datadir(store) / image_id
        assert stored.exists() == (store in stores)
        assert not stored.exists() or stored.read_bytes() == data
    image = client.show(image_id)
    assert image["status"] == "active"
    assert sorted(image["stores"].split(",")) == sorted(stores)
    assert image["os_glance_importing_to_stores"] == ""
    assert image["os_glance_failed_import"] == ""
    assert image["size"] == len(data)
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert image_id not in glance.staged()
    assert client.download(image_id).content == data


def test_glance_direct_into_several_stores(glance: GlanceServer, client: GlanceClient) -> None:
    data = image_bytes("glance-direct")
    image_id = client.create("glance-direct")
    client.stage(image_id, data)
    assert (glance.staging / image_id).read_bytes() == data
    assert client.show(image_id)["status"] == "uploading"

    client.import_image(image_id, "glance-direct", ["fast", "slow"])
    assert_is_in(glance, client, image_id, ["fast", "slow"], data)
    client.delete(image_id)
    assert image_id not in glance.stored("fast") + glance.stored("slow")


def test_glance_direct_into_the_default_store(glance: GlanceServer, client: GlanceClient) -> None:
    data = image_bytes("glance-direct default")
    image_id = client.create("glance-direct default")
    client.stage(image_id, data)
    client.import_image(image_id, "glance-direct", [])
    assert_is_in(glance, client, image_id, ["fast"], data)


def test_deleting_a_staged_image_empties_the_staging_store(
    glance: GlanceServer, client: GlanceClient
) -> None:
    image_id = client.create("staged and deleted")
    client.stage(image_id, image_bytes("staged and deleted"))
    assert image_id in glance.staged()
    client.delete(image_id)
    assert image_id not in glance.staged()


def test_web_download_into_several_stores(
    glance: GlanceServer, client: GlanceClient, web: WebServer
) -> None:
    data = image_bytes("web-download")
    uri = web.add("/web-download.raw", data)
    image_id = client.create("web-download")
    client.import_image(image_id, "web-download", ["slow", "fast"], uri=uri)
    assert_is_in(glance, client, image_id, ["slow", "fast"], data)


def test_web_download_of_a_missing_file_leaves_nothing(
    glance: GlanceServer, client: GlanceClient, web: WebServer
) -> None:
    image_id = client.create("missing file")
    uri = web.url("/no-such-file.raw")
    client.import_image(image_id, "web-download", ["fast", "slow"], uri=uri)

    image = client.show(image_id)
    assert image["status"] == "queued"
    assert sorted(image["os_glance_failed_import"].split(",")) == ["fast", "slow"]
    assert location_rows(glance, image_id) == []
    assert image_id not in glance.stored("fast") + glance.stored("slow") + glance.staged()


def test_import_that_fails_in_one_store_leaves_nothing(
    glance: GlanceServer, client: GlanceClient
) -> None:
    image_id = client.create("one store fails")
    client.stage(image_id, image_bytes("one store fails"))
    # A file in the way makes the second store refuse what the first has taken.
    stray = glance.datadir("slow") / image_id
    stray.write_bytes(b"not Glance's")
    client.import_image(image_id, "glance-direct", ["fast", "slow"])

    assert location_rows(glance, image_id) == []
    assert image_id not in glance.stored("fast")
    assert stray.read_bytes() == b"not Glance's"


def test_import_that_may_fail_in_one_store(glance: GlanceServer, client: GlanceClient) -> None:
    data = image_bytes("one store may fail")
    image_id = client.create("one store may fail")
    client.stage(image_id, data)
    stray = glance.datadir("slow") / image_id
    stray.write_bytes(b"not Glance's")
    client.import_image(image_id, "glance-direct", ["fast", "slow"], all_stores_must_succeed=False)

    image = client.show(image_id)
    assert (image["status"], image["stores"]) == ("active", "fast")
    assert image["os_glance_failed_import"] == "slow"
    assert location_rows(glance, image_id) == [
        (file_url(glance, "fast", image_id), {"store": "fast"})
    ]
    assert client.download(image_id).content == data
    assert image_id not in glance.staged()


def test_copy_image_into_another_store(glance: GlanceServer, client: GlanceClient) -> None:
    data = image_bytes("copy-image")
    image_id = client.create("copy-image")
    client.upload(image_id, data, store="fast")
    client.import_image(image_id, "copy-image", ["slow"])
    assert_is_in(glance, client, image_id, ["fast", "slow"], data)


def test_deleting_from_one_store_keeps_the_others(
    glance: GlanceServer, client: GlanceClient
) -> None:
    data = image_bytes("two stores")
    image_id = client.create("two stores")
    client.stage(image_id, data)
    client.import_image(image_id, "glance-direct", ["fast", "slow"])
    client.delete_from_store(image_id, "fast")
    assert location_rows(glance, image_id) == [
        (file_url(glance, "slow", image_id), {"store": "slow"})
    ]
    assert image_id not in glance.stored("fast")
    assert client.show(image_id)["stores"] == "slow"
    assert client.download(image_id).content == data

    client.delete_from_store(image_id, "slow", expect=403)  # the last copy stays
    assert (glance.datadir("slow") / image_id).read_bytes() == data

    client.import_image(image_id, "copy-image", ["fast"])
    assert_is_in(glance, client, image_id, ["slow", "fast"], data)
