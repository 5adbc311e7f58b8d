# SPDX-License-Identifier: Apache-2.0
"""Locations: those of the http store, and those that older releases wrote."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from .images import image_bytes, location_rows
from .scenes import FILES_ALONE, kinds

if TYPE_CHECKING:
    from .client import GlanceClient
    from .scenes import Scene
    from .server import GlanceServer
    from .webserver import WebServer

pytestmark = pytest.mark.glance


@pytest.fixture
def http_image(client: GlanceClient, web: WebServer) -> tuple[str, bytes]:
    """An image whose data is on the web server."""
    data = image_bytes("http image")
    image_id = client.create("http image")
    client.add_location(image_id, web.add("/image.raw", data))
    return image_id, data


def test_http_location(
    glance: GlanceServer, client: GlanceClient, web: WebServer, http_image: tuple[str, bytes]
) -> None:
    image_id, data = http_image
    assert location_rows(glance, image_id) == [(web.url("/image.raw"), {"store": "web"})]
    image = client.show(image_id)
    assert (image["status"], image["size"], image["stores"]) == ("active", len(data), "web")
    assert client.download(image_id).content == data


@pytest.mark.parametrize(("start", "end"), [(0, 1), (4000, 70000), (3 << 20, (3 << 20) + 4711)])
def test_range_of_an_http_location(
    client: GlanceClient, web: WebServer, http_image: tuple[str, bytes], start: int, end: int
) -> None:
    image_id, data = http_image
    before = len(web.ranges_asked_of("/image.raw"))
    answer = client.download(image_id, byte_range=f"bytes={start}-{end - 1}")

    assert answer.content == data[start:end]
    asked = web.ranges_asked_of("/image.raw")[before:]
    assert asked, "the web server was not asked"
    assert all(asked), f"the whole image was fetched for a part of it: {asked}"


@pytest.mark.parametrize("target", ["/there/image.raw", "../there/image.raw"])
def test_relative_redirect_of_an_http_location(
    client: GlanceClient, web: WebServer, target: str
) -> None:
    data = image_bytes("redirected")
    web.add("/there/image.raw", data)
    image_id = client.create("redirected")
    client.add_location(image_id, web.add_redirect("/here/image.raw", target))

    assert client.show(image_id)["size"] == len(data)
    assert client.download(image_id).content == data
    assert client.download(image_id, byte_range="bytes=1000-4999").content == data[1000:5000]


def test_http_location_that_is_gone(client: GlanceClient, web: WebServer) -> None:
    image_id = client.create("gone from the web")
    client.add_location(image_id, web.add("/gone.raw", image_bytes("gone")))
    del web.files["/gone.raw"]
    client.download(image_id, expect=204)


def test_deleting_an_image_with_an_http_location(
    glance: GlanceServer, client: GlanceClient, http_image: tuple[str, bytes]
) -> None:
    image_id, _ = http_image
    client.delete(image_id)  # the data is not Glance's to delete, the record is
    client.request("GET", f"images/{image_id}", expect=404)


def test_http_location_by_the_locations_api(
    glance: GlanceServer, client: GlanceClient, web: WebServer
) -> None:
    data = image_bytes("locations api")
    url = web.add("/locations-api.raw", data)
    image_id = client.create("locations api")
    digest = hashlib.sha512(data).hexdigest()
    validation = {"os_hash_algo": "sha512", "os_hash_value": digest}
    body = {"url": url, "validation_data": validation}
    client.request("POST", f"images/{image_id}/locations", json=body, expect=202)
    assert client.wait_for_tasks(image_id) == ["success"]

    assert location_rows(glance, image_id) == [(url, {"store": "web"})]
    image = client.show(image_id)
    assert (image["status"], image["size"]) == ("active", len(data))
    # Glance has read the whole image through the library to compute these.
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert image["os_hash_value"] == digest
    with type(client)(client.url, roles="service") as service:
        answer = service.request("GET", f"images/{image_id}/locations", expect=200).json()
    assert answer == [{"url": url, "metadata": {"store": "web"}}]


def test_second_location_serves_when_the_first_is_gone(
    glance: GlanceServer, client: GlanceClient, web: WebServer
) -> None:
    data = image_bytes("two locations")
    image_id = client.create("two locations")
    client.upload(image_id, data)
    client.add_location(image_id, web.add("/two-locations.raw", data))
    assert client.show(image_id)["stores"] == "fast,web"
    (glance.datadir("fast") / image_id).unlink()
    assert client.download(image_id).content == data


def test_record_tells_where_the_data_is(scene: Scene) -> None:
    client, store = scene.client, scene.default
    image_id = client.create("direct url")
    client.upload(image_id, image_bytes("direct url"))
    image = client.show(image_id)

    url = store.location(image_id)
    assert image["direct_url"] == url
    [location] = image["locations"]
    assert (location["url"], location["metadata"]) == (url, {"store": store.name})


@kinds("rbd", "s3", "swift", "cinder", "vmware")
def test_location_of_data_that_is_there(scene: Scene) -> None:
    """What somebody has put into the store becomes an image."""
    client, store = scene.client, scene.default
    data = image_bytes("there before")
    first, second = client.create("there before"), client.create("added")
    client.upload(first, data)
    client.add_location(second, store.location(first))

    image = client.show(second)
    assert (image["status"], image["size"], image["stores"]) == ("active", len(data), store.name)
    assert client.download(second).content == data
    assert client.download(second, byte_range="bytes=1000-4999").content == data[1000:5000]


@pytest.mark.parametrize(
    ("which", "former"),
    [
        ("default", "no name"),
        pytest.param("default", "renamed", marks=FILES_ALONE),
        pytest.param("named", "no name", marks=FILES_ALONE),
        ("named", "renamed"),
    ],
)
def test_old_location_gets_its_store(scene: Scene, which: str, former: str) -> None:
    """Glance finds the store of a location written before there were several of them."""
    glance, client = scene.glance, scene.client
    store = scene.store(which)
    old = {} if former == "no name" else {"store": former}
    data = image_bytes("old location")
    image_id = client.create("old location")
    client.upload(image_id, data, store=store.name)
    url = store.location(image_id)
    glance.rows(
        "UPDATE image_locations SET meta_data = ? WHERE image_id = ?", (json.dumps(old), image_id)
    )
    assert location_rows(glance, image_id) == [(url, old)]

    assert client.show(image_id)["stores"] == store.name
    assert location_rows(glance, image_id) == [(url, {"store": store.name})]
    assert client.download(image_id).content == data
    scene.client.delete(image_id)
    assert not store.has(image_id)


@kinds("rbd", "s3", "cinder")
def test_location_of_an_early_release(scene: Scene) -> None:
    """Before there were several stores, and with what is not in a location any more."""
    glance, client, store = scene.glance, scene.client, scene.default
    data = image_bytes("early release")
    image_id = client.create("early release")
    client.upload(image_id, data)
    url = store.old_location(image_id)
    assert url is not None
    # Glance cannot tell whose store it was by the shortest locations of Ceph.
    old = {"store": store.name} if store.driver == "rbd" else {}
    glance.rows(
        "UPDATE image_locations SET value = ?, meta_data = ? WHERE image_id = ?",
        (url, json.dumps(old), image_id),
    )
    assert client.show(image_id)["stores"] == store.name
    assert client.download(image_id).content == data
    if store.driver != "rbd":
        [(now, metadata)] = location_rows(glance, image_id)
        assert (now, metadata) == (store.location(image_id), {"store": store.name})
    scene.client.delete(image_id)
    assert not store.has(image_id)


def test_old_location_with_the_other_scheme_of_files(
    glance: GlanceServer, client: GlanceClient
) -> None:
    """`filesystem://` is as good as `file://`, even though no store's prefix matches it."""
    data = image_bytes("filesystem scheme")
    image_id = client.create("filesystem scheme")
    client.upload(image_id, data, store="slow")
    url = f"filesystem://{glance.datadir('slow') / image_id}"
    glance.rows("UPDATE image_locations SET value = ? WHERE image_id = ?", (url, image_id))
    assert client.download(image_id).content == data
    client.delete(image_id)
    assert image_id not in glance.stored("slow")
