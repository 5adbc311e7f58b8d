# SPDX-License-Identifier: Apache-2.0
"""Uploads and imports that fail, and must leave nothing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from .client import GlanceClient
from .images import IMAGE_SIZE, MIB, image_bytes, location_rows, pieces
from .scenes import FILES_ALONE, Scene, kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import StartGlance
    from .stores.base import StoreUnderTest
    from .webserver import WebServer

pytestmark = pytest.mark.glance

SIZE_CAP = 8 * MIB
STORES = pytest.mark.parametrize("which", ["default", pytest.param("named", marks=FILES_ALONE)])
STORES_AND_LENGTHS = pytest.mark.parametrize(
    ("which", "length"),
    [
        ("default", "announced"),
        pytest.param("default", "chunked", marks=FILES_ALONE),
        pytest.param("named", "announced", marks=FILES_ALONE),
        ("named", "chunked"),
    ],
)


@pytest.fixture(scope="module")
def limited(start_glance: StartGlance, scene: Scene) -> Iterator[Scene]:
    """A Glance that takes no image beyond the cap; only this module uses its stores of files."""
    if scene.kind.size_cap is not None:
        yield scene
        return
    options = scene.kind.arguments({"DEFAULT": {"image_size_cap": str(SIZE_CAP)}})
    on_stage = Scene(scene.kind, start_glance("limited", **options))
    with on_stage.client:
        yield on_stage


@pytest.fixture
def before(limited: Scene) -> list[str]:
    """What was in the stores before a test."""
    found = limited.everything()
    if limited.kind.name == "file":
        assert found == []
    return found


def cap_of(scene: Scene) -> int:
    return scene.kind.size_cap or SIZE_CAP


def assert_nothing_of(scene: Scene, image_id: str, before: list[str]) -> None:
    """Assert that an image waits for its data, and nothing of an attempt to store it is left."""
    image = scene.client.show(image_id)
    assert (image["status"], image["size"], image["checksum"]) == ("queued", None, None)
    assert location_rows(scene.glance, image_id) == []
    assert scene.everything() == before


def assert_can_be_uploaded(
    scene: Scene, image_id: str, store: StoreUnderTest, before: list[str]
) -> None:
    """Assert that a failed upload can be repeated, and clear away the image."""
    data = image_bytes("second attempt")
    scene.client.upload(image_id, data, store=store.name)
    assert scene.client.download(image_id).content == data
    scene.client.delete(image_id)
    assert scene.everything() == before


@STORES_AND_LENGTHS
def test_interrupted_upload_leaves_nothing(
    limited: Scene, which: str, length: str, before: list[str]
) -> None:
    client, store = limited.client, limited.store(which)
    image_id = client.create("interrupted")
    data = image_bytes("interrupted", store.sent_bytes)
    announced = store.announced_bytes if length == "announced" else None
    with client.begin_upload(image_id, store.name, announced, data):
        # Interrupted no sooner than Glance has begun to write.
        client.wait_for(image_id, lambda _: store.is_writing(image_id))
    client.wait_for_status(image_id, "queued")

    assert_nothing_of(limited, image_id, before)
    assert_can_be_uploaded(limited, image_id, store, before)


@STORES
def test_unfinished_upload_is_not_in_the_store(
    limited: Scene, which: str, before: list[str]
) -> None:
    client, store = limited.client, limited.store(which)
    image_id = client.create("unfinished")
    data = image_bytes("unfinished", store.sent_bytes)
    with client.begin_upload(image_id, store.name, len(data), data[:-1]) as connection:
        # Glance has begun to write, and the last byte is missing.
        client.wait_for(image_id, lambda _: store.is_writing(image_id))
        assert not store.has(image_id)
        connection.sendall(data[-1:])
        client.wait_for_status(image_id, "active")
    assert store.read(image_id) == data
    client.delete(image_id)
    assert limited.everything() == before


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


@STORES_AND_LENGTHS
def test_upload_beyond_the_size_cap_leaves_nothing(
    limited: Scene, which: str, length: str, before: list[str]
) -> None:
    store = limited.store(which)
    data = image_bytes("too large", cap_of(limited) + 1)
    image_id = limited.client.create("too large")
    body = pieces(data) if length == "chunked" else data
    limited.client.upload(image_id, body, store=store.name, expect=413)

    assert_nothing_of(limited, image_id, before)
    assert_can_be_uploaded(limited, image_id, store, before)


@STORES
def test_upload_of_the_size_cap_is_taken(limited: Scene, which: str, before: list[str]) -> None:
    client, store = limited.client, limited.store(which)
    data = image_bytes("just right", cap_of(limited))
    image_id = client.create("just right")
    client.upload(image_id, pieces(data), store=store.name)
    assert store.read(image_id) == data
    client.delete(image_id)
    assert limited.everything() == before


@kinds("file")  # the staging store is one of files anyway
def test_staging_beyond_the_size_cap_leaves_nothing(limited: Scene, before: list[str]) -> None:
    image_id = limited.client.create("too large to stage")
    data = image_bytes("too large", cap_of(limited) + 1)
    limited.client.stage(image_id, pieces(data), expect=413)
    assert_nothing_of(limited, image_id, before)


@kinds("file")  # it goes to the staging store first
def test_web_download_beyond_the_size_cap_leaves_nothing(
    limited: Scene, web: WebServer, before: list[str]
) -> None:
    uri = web.add("/too-large.raw", image_bytes("too large", cap_of(limited) + 1))
    image_id = limited.client.create("too large to download")
    stores = [limited.default.name, limited.named.name]
    limited.client.import_image(image_id, "web-download", stores, uri=uri)
    assert_nothing_of(limited, image_id, before)
