# SPDX-License-Identifier: Apache-2.0
"""Stores configured in a parent process, and used by several children at once."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING

import pytest

from .client import GlanceClient
from .images import image_bytes, location_rows
from .scenes import Scene, kinds

if TYPE_CHECKING:
    from .conftest import StartGlance

pytestmark = pytest.mark.glance


def use_from_several_processes(scene: Scene) -> None:
    """Upload, download and delete images, several at once, in the two stores of a kind."""

    def exercise(number: int) -> None:
        store = (scene.default, scene.named)[number % 2]
        data = image_bytes(f"preforked {number}")
        with GlanceClient(scene.glance.url) as client:
            image_id = client.create(f"preforked {number}")
            client.upload(image_id, data, store=store.name)
            assert client.download(image_id).content == data
            assert client.download(image_id, byte_range="bytes=70000-").content == data[70000:]
            assert store.read(image_id) == data
            assert location_rows(scene.glance, image_id)[0][1] == {"store": store.name}
            client.delete(image_id)

    before = scene.everything()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(exercise, range(scene.kind.parallel)))
    assert scene.everything() == before


@kinds("file")
def test_stores_survive_a_fork(scene: Scene, start_glance: StartGlance) -> None:
    glance = start_glance("preforked", processes=2, prefork=True)
    preforked = Scene(scene.kind, glance)
    with preforked.client:
        use_from_several_processes(preforked)


@kinds("rbd", "s3", "swift", "cinder", "vmware")
def test_real_stores_survive_a_fork(scene: Scene) -> None:
    # The processes of these scenes forked when the stores were configured.
    use_from_several_processes(scene)
