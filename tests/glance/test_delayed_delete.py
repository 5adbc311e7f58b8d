# SPDX-License-Identifier: Apache-2.0
"""Delayed deletion, carried out by the real glance-scrubber."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .client import GlanceClient
from .images import image_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import StartGlance
    from .server import GlanceServer

pytestmark = pytest.mark.glance


@pytest.fixture(scope="module")
def delaying_glance(start_glance: StartGlance) -> GlanceServer:
    return start_glance("delaying", options={"DEFAULT": {"delayed_delete": "true"}})


@pytest.fixture(scope="module")
def delaying_client(delaying_glance: GlanceServer) -> Iterator[GlanceClient]:
    with GlanceClient(delaying_glance.url) as administrator:
        yield administrator


def states(glance: GlanceServer, image_id: str) -> tuple[str, list[str]]:
    """Return the status of an image and of its locations, as they are in the database."""
    image = glance.rows("SELECT status FROM images WHERE id = ?", (image_id,))
    locations = glance.rows(
        "SELECT status FROM image_locations WHERE image_id = ? ORDER BY id", (image_id,)
    )
    return image[0]["status"], [row["status"] for row in locations]


def test_scrubber_removes_what_was_deleted(
    delaying_glance: GlanceServer, delaying_client: GlanceClient
) -> None:
    kept, gone, missing = (delaying_client.create(name) for name in ("kept", "gone", "missing"))
    for image_id in (kept, gone, missing):
        delaying_client.stage(image_id, image_bytes(image_id))
        delaying_client.import_image(image_id, "glance-direct", ["fast", "slow"])
    for image_id in (gone, missing):
        delaying_client.delete(image_id)
        pending = ("pending_delete", ["pending_delete", "pending_delete"])
        assert states(delaying_glance, image_id) == pending
    for store in ("fast", "slow"):
        assert delaying_glance.stored(store) == sorted([kept, gone, missing])
    # What somebody else has removed meanwhile must not stop the scrubber.
    (delaying_glance.datadir("fast") / missing).unlink()

    delaying_glance.run("glance-scrubber")
    for store in ("fast", "slow"):
        assert delaying_glance.stored(store) == [kept]
    for image_id in (gone, missing):
        assert states(delaying_glance, image_id) == ("deleted", ["deleted", "deleted"])
    assert states(delaying_glance, kept) == ("active", ["active", "active"])
    assert delaying_client.download(kept).content == image_bytes(kept)


def test_scrubber_with_nothing_to_do(
    delaying_glance: GlanceServer, delaying_client: GlanceClient
) -> None:
    before = delaying_glance.stored("fast"), delaying_glance.stored("slow")
    delaying_glance.run("glance-scrubber")
    assert (delaying_glance.stored("fast"), delaying_glance.stored("slow")) == before
