# SPDX-License-Identifier: Apache-2.0
"""Stores configured in a parent process, and used by several children at once."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING

import pytest

from .client import GlanceClient
from .images import image_bytes, location_rows

if TYPE_CHECKING:
    from .conftest import StartGlance

pytestmark = pytest.mark.glance

IMAGES = 8


def test_stores_survive_a_fork(start_glance: StartGlance) -> None:
    glance = start_glance("preforked", processes=2, prefork=True)

    def exercise(number: int) -> None:
        store = ("fast", "slow")[number % 2]
        data = image_bytes(f"preforked {number}")
        with GlanceClient(glance.url) as client:
            image_id = client.create(f"preforked {number}")
            client.upload(image_id, data, store=store)
            assert client.download(image_id).content == data
            assert client.download(image_id, byte_range="bytes=70000-").content == data[70000:]
            assert (glance.datadir(store) / image_id).read_bytes() == data
            assert location_rows(glance, image_id)[0][1] == {"store": store}
            client.delete(image_id)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(exercise, range(IMAGES)))
    assert glance.stored("fast") + glance.stored("slow") == []
