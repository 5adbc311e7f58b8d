# SPDX-License-Identifier: Apache-2.0
"""Delayed deletion, carried out by the real glance-scrubber."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .images import image_bytes
from .scenes import Scene, kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import StartGlance
    from .server import GlanceServer

pytestmark = pytest.mark.glance


@pytest.fixture(scope="module")
def delaying(start_glance: StartGlance, scene: Scene) -> Iterator[Scene]:
    """A Glance that deletes later, with the stores of the scene."""
    options = scene.kind.arguments({"DEFAULT": {"delayed_delete": "true"}})
    on_stage = Scene(scene.kind, start_glance(f"delaying-{scene.kind.name}", **options))
    with on_stage.client:
        yield on_stage


def states(glance: GlanceServer, image_id: str) -> tuple[str, list[str]]:
    """Return the status of an image and of its locations, as they are in the database."""
    image = glance.rows("SELECT status FROM images WHERE id = ?", (image_id,))
    locations = glance.rows(
        "SELECT status FROM image_locations WHERE image_id = ? ORDER BY id", (image_id,)
    )
    return image[0]["status"], [row["status"] for row in locations]


def test_scrubber_removes_what_was_deleted(delaying: Scene) -> None:
    glance, client = delaying.glance, delaying.client
    stores = delaying.default, delaying.files
    kept, gone, missing = (client.create(name) for name in ("kept", "gone", "missing"))
    for image_id in (kept, gone, missing):
        client.stage(image_id, image_bytes(image_id))
        client.import_image(image_id, "glance-direct", [store.name for store in stores])
    for image_id in (gone, missing):
        client.delete(image_id)
        pending = ("pending_delete", ["pending_delete", "pending_delete"])
        assert states(glance, image_id) == pending
    for store in stores:
        assert all(store.has(image_id) for image_id in (kept, gone, missing))
    # What somebody else has removed meanwhile must not stop the scrubber.
    delaying.default.remove(missing)

    glance.run("glance-scrubber")
    for store in stores:
        assert store.has(kept)
        assert not any(store.has(image_id) for image_id in (gone, missing))
    for image_id in (gone, missing):
        assert states(glance, image_id) == ("deleted", ["deleted", "deleted"])
    assert states(glance, kept) == ("active", ["active", "active"])
    assert client.download(kept).content == image_bytes(kept)


@kinds("file")
def test_scrubber_with_nothing_to_do(delaying: Scene) -> None:
    before = delaying.everything()
    delaying.glance.run("glance-scrubber")
    assert delaying.everything() == before
