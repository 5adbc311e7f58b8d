# SPDX-License-Identifier: Apache-2.0
"""Glance's image cache, filled by downloads and on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .client import GlanceClient
from .images import image_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import StartGlance
    from .server import GlanceServer
    from .webserver import WebServer

pytestmark = pytest.mark.glance


@pytest.fixture(scope="module")
def caching_glance(
    start_glance: StartGlance, tmp_path_factory: pytest.TempPathFactory
) -> GlanceServer:
    cache = tmp_path_factory.mktemp("glance-image-cache")
    return start_glance(
        "caching",
        options={
            "DEFAULT": {
                "image_cache_dir": str(cache),
                # A name for this node in the table of cached images; nobody connects to it.
                "worker_self_reference_url": "http://127.0.0.1",
            },
            "paste_deploy": {"flavor": "caching"},
        },
    )


@pytest.fixture(scope="module")
def caching_client(caching_glance: GlanceServer) -> Iterator[GlanceClient]:
    with GlanceClient(caching_glance.url) as administrator:
        yield administrator


def cached(client: GlanceClient) -> list[str]:
    answer = client.request("GET", "cache", expect=200).json()
    return [image["image_id"] for image in answer["cached_images"]]


def wait_until_cached(client: GlanceClient, image_id: str) -> None:
    client.wait_for(image_id, lambda _: image_id in cached(client))


def test_download_fills_the_cache(
    caching_glance: GlanceServer, caching_client: GlanceClient
) -> None:
    data = image_bytes("cached")
    image_id = caching_client.create("cached")
    caching_client.upload(image_id, data)
    assert image_id not in cached(caching_client)
    assert caching_client.download(image_id).content == data
    wait_until_cached(caching_client, image_id)

    # With its file gone from the store, only the cache can have the image.
    (caching_glance.datadir("fast") / image_id).unlink()
    assert caching_client.download(image_id).content == data
    caching_client.delete(image_id)
    assert image_id not in cached(caching_client)


def test_range_download_does_not_fill_the_cache(
    caching_glance: GlanceServer, caching_client: GlanceClient
) -> None:
    data = image_bytes("ranges are not cached")
    image_id = caching_client.create("ranges are not cached")
    caching_client.upload(image_id, data)
    answer = caching_client.download(image_id, byte_range="bytes=100-200")
    assert answer.content == data[100:201]
    assert image_id not in cached(caching_client)


def test_image_is_fetched_into_the_cache_on_request(
    caching_glance: GlanceServer, caching_client: GlanceClient
) -> None:
    """Glance gives no store with this get: the scheme of the location has to suffice."""
    data = image_bytes("prefetched")
    image_id = caching_client.create("prefetched")
    caching_client.upload(image_id, data, store="slow")
    caching_client.request("PUT", f"cache/{image_id}", expect=202)
    wait_until_cached(caching_client, image_id)

    (caching_glance.datadir("slow") / image_id).unlink()
    assert caching_client.download(image_id).content == data


def test_http_location_is_cached(caching_client: GlanceClient, web: WebServer) -> None:
    data = image_bytes("cached from the web")
    image_id = caching_client.create("cached from the web")
    caching_client.add_location(image_id, web.add("/cached.raw", data))
    assert caching_client.download(image_id).content == data
    wait_until_cached(caching_client, image_id)

    del web.files["/cached.raw"]
    assert caching_client.download(image_id).content == data
