# SPDX-License-Identifier: Apache-2.0
"""Upload, download, and deletion of image data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from .images import IMAGE_SIZE, file_url, image_bytes, location_rows, pieces

if TYPE_CHECKING:
    from .client import GlanceClient
    from .server import GlanceServer

pytestmark = pytest.mark.glance

RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=1000-1999": (1000, 2000),
    "bytes=65530-131080": (65530, 131081),  # across the edges of chunks
    "bytes=3000000-": (3000000, IMAGE_SIZE),
    "bytes=-500": (IMAGE_SIZE - 500, IMAGE_SIZE),
    f"bytes=100-{IMAGE_SIZE + 100}": (100, IMAGE_SIZE),
}


def test_upload_goes_to_the_default_store(glance: GlanceServer, client: GlanceClient) -> None:
    data = image_bytes("default store")
    image_id = client.create("default store")
    client.upload(image_id, data)

    assert location_rows(glance, image_id) == [
        (file_url(glance, "fast", image_id), {"store": "fast"})
    ]
    assert (glance.datadir("fast") / image_id).read_bytes() == data
    assert image_id not in glance.stored("slow")
    image = client.show(image_id)
    assert (image["status"], image["size"], image["stores"]) == ("active", len(data), "fast")
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert image["os_hash_algo"] == "sha512"
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert client.download(image_id).content == data


def test_upload_to_a_named_store(glance: GlanceServer, client: GlanceClient) -> None:
    data = image_bytes("named store")
    image_id = client.create("named store")
    client.upload(image_id, data, store="slow")

    assert location_rows(glance, image_id) == [
        (file_url(glance, "slow", image_id), {"store": "slow"})
    ]
    assert (glance.datadir("slow") / image_id).read_bytes() == data
    assert image_id not in glance.stored("fast")
    assert client.show(image_id)["stores"] == "slow"
    assert client.download(image_id).content == data
    assert client.download(image_id, prefer="slow").content == data


def test_upload_of_unknown_length(glance: GlanceServer, client: GlanceClient) -> None:
    data = image_bytes("unknown length")
    image_id = client.create("unknown length")
    client.upload(image_id, pieces(data))

    assert (glance.datadir("fast") / image_id).read_bytes() == data
    image = client.show(image_id)
    assert (image["status"], image["size"]) == ("active", len(data))
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()


def test_upload_of_zeros_to_a_thin_store(glance: GlanceServer, client: GlanceClient) -> None:
    head, tail = image_bytes("head", 5000), image_bytes("tail", 5000)
    data = head + bytes(IMAGE_SIZE) + tail
    image_id = client.create("zeros")
    client.upload(image_id, data, store="slow")

    stored = glance.datadir("slow") / image_id
    assert stored.read_bytes() == data
    assert stored.stat().st_blocks * 512 < IMAGE_SIZE
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


def test_second_upload_is_refused_and_harms_nothing(
    glance: GlanceServer, client: GlanceClient
) -> None:
    data = image_bytes("first upload")
    image_id = client.create("two uploads")
    client.upload(image_id, data)
    client.upload(image_id, image_bytes("second upload"), expect=409)

    assert (glance.datadir("fast") / image_id).read_bytes() == data
    assert client.show(image_id)["checksum"] == hashlib.md5(data).hexdigest()


def test_upload_over_a_file_that_is_in_the_way_is_refused(
    glance: GlanceServer, client: GlanceClient
) -> None:
    image_id = client.create("in the way")
    stray = glance.datadir("fast") / image_id
    stray.write_bytes(b"not Glance's")
    # Glance 33 has no better answer for the library's Duplicate.
    client.upload(image_id, image_bytes("in the way"), expect=500)

    assert stray.read_bytes() == b"not Glance's"
    assert location_rows(glance, image_id) == []


@pytest.fixture(scope="module", params=["fast", "slow"])
def image_in_store(request: pytest.FixtureRequest, client: GlanceClient) -> tuple[str, bytes]:
    data = image_bytes("ranges")
    image_id = client.create("ranges")
    client.upload(image_id, data, store=request.param)
    return image_id, data


@pytest.mark.parametrize("wanted", RANGES)
def test_range_download(
    client: GlanceClient, image_in_store: tuple[str, bytes], wanted: str
) -> None:
    image_id, data = image_in_store
    start, end = RANGES[wanted]
    answer = client.download(image_id, byte_range=wanted)

    assert answer.content == data[start:end]
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(data)}"
    assert answer.headers["Content-Length"] == str(end - start)


def test_range_behind_the_end_is_refused(
    client: GlanceClient, image_in_store: tuple[str, bytes]
) -> None:
    client.download(image_in_store[0], byte_range=f"bytes={IMAGE_SIZE}-", expect=416)


def test_deleting_an_image_removes_its_data(glance: GlanceServer, client: GlanceClient) -> None:
    image_id = client.create("to be deleted")
    client.upload(image_id, image_bytes("to be deleted"), store="slow")
    assert image_id in glance.stored("slow")
    client.delete(image_id)

    assert image_id not in glance.stored("slow")
    assert location_rows(glance, image_id) == []
    client.request("GET", f"images/{image_id}", expect=404)


def test_an_image_whose_data_is_gone(glance: GlanceServer, client: GlanceClient) -> None:
    image_id = client.create("data gone")
    client.upload(image_id, image_bytes("data gone"))
    (glance.datadir("fast") / image_id).unlink()

    client.download(image_id, expect=204)
    client.delete(image_id)
    client.request("GET", f"images/{image_id}", expect=404)


def test_sharing_an_image_needs_nothing_of_the_store(client: GlanceClient) -> None:
    data = image_bytes("shared")
    image_id = client.create("shared", visibility="shared")
    client.upload(image_id, data)
    client.request("POST", f"images/{image_id}/members", json={"member": "other"}, expect=200)

    with type(client)(client.url, roles="member,reader", project="other") as other:
        assert other.download(image_id).content == data
