# SPDX-License-Identifier: Apache-2.0
"""Uploads and imports that fail, and must leave nothing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from .client import GlanceClient
from .images import IMAGE_SIZE, MIB, image_bytes, location_rows, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import StartGlance
    from .server import GlanceServer
    from .webserver import WebServer

pytestmark = pytest.mark.glance

SIZE_CAP = 8 * MIB
STORES = pytest.mark.parametrize("store", ["fast", "slow"])
LENGTHS = pytest.mark.parametrize("announced", [2 * IMAGE_SIZE, None], ids=["length", "chunked"])


@pytest.fixture(scope="module")
def limited_glance(start_glance: StartGlance) -> GlanceServer:
    """A Glance that takes no image beyond the cap; only this module uses its stores."""
    return start_glance("limited", options={"DEFAULT": {"image_size_cap": str(SIZE_CAP)}})


@pytest.fixture(scope="module")
def limited_client(limited_glance: GlanceServer) -> Iterator[GlanceClient]:
    with GlanceClient(limited_glance.url) as administrator:
        yield administrator


def leftovers(glance: GlanceServer) -> list[str]:
    """Return every file in every store, also those without a name."""
    named = glance.stored("fast") + glance.stored("slow") + glance.staged()
    return named + glance.open_files("fast") + glance.open_files("slow")


def assert_nothing_of(glance: GlanceServer, client: GlanceClient, image_id: str) -> None:
    """Assert that an image waits for its data, and nothing of an attempt to store it is left."""
    image = client.show(image_id)
    assert (image["status"], image["size"], image["checksum"]) == ("queued", None, None)
    assert location_rows(glance, image_id) == []
    assert leftovers(glance) == []


def assert_can_be_uploaded(
    glance: GlanceServer, client: GlanceClient, image_id: str, store: str
) -> None:
    """Assert that a failed upload can be repeated, and clear away the image."""
    data = image_bytes("second attempt")
    client.upload(image_id, data, store=store)
    assert client.download(image_id).content == data
    client.delete(image_id)
    assert leftovers(glance) == []


@STORES
@LENGTHS
def test_interrupted_upload_leaves_nothing(
    limited_glance: GlanceServer, limited_client: GlanceClient, store: str, announced: int | None
) -> None:
    image_id = limited_client.create("interrupted")
    data = image_bytes("interrupted")
    with limited_client.begin_upload(image_id, store, announced, data):
        # Interrupted no sooner than Glance has begun to write.
        limited_client.wait_for(image_id, lambda _: bool(limited_glance.open_files(store)))
    limited_client.wait_for_status(image_id, "queued")

    assert_nothing_of(limited_glance, limited_client, image_id)
    assert_can_be_uploaded(limited_glance, limited_client, image_id, store)


@STORES
def test_unfinished_upload_is_not_in_the_store(
    limited_glance: GlanceServer, limited_client: GlanceClient, store: str
) -> None:
    image_id = limited_client.create("unfinished")
    data = image_bytes("unfinished")
    with limited_client.begin_upload(image_id, store, len(data), data[:-1]) as connection:
        # Glance has begun to write, and the last byte is missing.
        limited_client.wait_for(image_id, lambda _: bool(limited_glance.open_files(store)))
        assert image_id not in limited_glance.stored(store)
        connection.sendall(data[-1:])
        limited_client.wait_for_status(image_id, "active")
    assert (limited_glance.datadir(store) / image_id).read_bytes() == data
    limited_client.delete(image_id)
    assert leftovers(limited_glance) == []


def test_killed_glance_leaves_no_image(start_glance: StartGlance) -> None:
    glance = start_glance("killed")
    with GlanceClient(glance.url) as client:
        image_id = client.create("killed")
        data = image_bytes("killed")
        with client.begin_upload(image_id, "fast", 2 * IMAGE_SIZE, data):
            client.wait_for(image_id, lambda _: bool(glance.open_files("fast")))
            glance.stop(signal.SIGKILL)
    # Where the file system has no files without a name, one with another name may be left.
    assert image_id not in glance.stored("fast")
    glance.start()
    with GlanceClient(glance.url) as client:
        client.delete(image_id)
        again = client.create("after the kill")
        client.upload(again, data)
        assert client.download(again).content == data


@STORES
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_upload_beyond_the_size_cap_leaves_nothing(
    limited_glance: GlanceServer, limited_client: GlanceClient, store: str, chunked: bool
) -> None:
    data = image_bytes("too large", SIZE_CAP + 1)
    image_id = limited_client.create("too large")
    body = pieces(data) if chunked else data
    limited_client.upload(image_id, body, store=store, expect=413)

    assert_nothing_of(limited_glance, limited_client, image_id)
    assert_can_be_uploaded(limited_glance, limited_client, image_id, store)


@STORES
def test_upload_of_the_size_cap_is_taken(
    limited_glance: GlanceServer, limited_client: GlanceClient, store: str
) -> None:
    data = image_bytes("just right", SIZE_CAP)
    image_id = limited_client.create("just right")
    limited_client.upload(image_id, pieces(data), store=store)
    assert (limited_glance.datadir(store) / image_id).read_bytes() == data
    limited_client.delete(image_id)
    assert leftovers(limited_glance) == []


def test_staging_beyond_the_size_cap_leaves_nothing(
    limited_glance: GlanceServer, limited_client: GlanceClient
) -> None:
    image_id = limited_client.create("too large to stage")
    limited_client.stage(image_id, pieces(image_bytes("too large", SIZE_CAP + 1)), expect=413)
    assert_nothing_of(limited_glance, limited_client, image_id)


def test_web_download_beyond_the_size_cap_leaves_nothing(
    limited_glance: GlanceServer, limited_client: GlanceClient, web: WebServer
) -> None:
    uri = web.add("/too-large.raw", image_bytes("too large", SIZE_CAP + 1))
    image_id = limited_client.create("too large to download")
    limited_client.import_image(image_id, "web-download", ["fast", "slow"], uri=uri)
    assert_nothing_of(limited_glance, limited_client, image_id)
