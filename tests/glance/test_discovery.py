# SPDX-License-Identifier: Apache-2.0
"""What Glance tells about its stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .scenes import kinds

if TYPE_CHECKING:
    from .client import GlanceClient
    from .scenes import Scene
    from .server import GlanceServer

pytestmark = pytest.mark.glance


def test_stores(client: GlanceClient) -> None:
    answer = client.request("GET", "info/stores", expect=200).json()
    assert answer["stores"] == [
        {"id": "fast", "description": "a fast store", "default": "true"},
        {"id": "slow"},
        {"id": "web", "description": "images of other web servers", "read-only": "true"},
    ]


def test_stores_in_detail(glance: GlanceServer, client: GlanceClient) -> None:
    answer = client.request("GET", "info/stores/detail", expect=200).json()
    assert answer["stores"] == [
        {
            "id": "fast",
            "type": "file",
            "description": "a fast store",
            "default": "true",
            "weight": 7,
            "properties": {
                "data_dir": str(glance.datadir("fast")),
                "chunk_size": 65536,
                "thin_provisioning": False,
            },
        },
        {
            "id": "slow",
            "type": "file",
            "weight": 0,
            "properties": {
                "data_dir": str(glance.datadir("slow")),
                "chunk_size": 131072,
                "thin_provisioning": True,
            },
        },
        {
            "id": "web",
            "type": "http",
            "description": "images of other web servers",
            "read-only": "true",
            "weight": 0,
            "properties": {},
        },
    ]


@kinds("rbd", "s3", "swift", "cinder", "vmware")
def test_real_stores(scene: Scene) -> None:
    answer = scene.client.request("GET", "info/stores", expect=200).json()
    assert [store["id"] for store in answer["stores"]] == [
        scene.default.name,
        scene.named.name,
        "slow",
        "web",
    ]
    assert [store["id"] for store in answer["stores"] if "default" in store] == [scene.default.name]


# Glance knows no details of VMware stores, and fails.
@kinds("rbd", "s3", "swift", "cinder")
def test_real_stores_in_detail(scene: Scene) -> None:
    answer = scene.client.request("GET", "info/stores/detail", expect=200).json()
    found = {store["id"]: store for store in answer["stores"]}
    for store in scene.stores.values():
        assert found[store.name]["type"] == store.driver
        assert found[store.name]["properties"] == store.properties
