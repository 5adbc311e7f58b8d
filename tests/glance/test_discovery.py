# SPDX-License-Identifier: Apache-2.0
"""What Glance tells about its stores, and which configurations it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .server import GlanceStartError

if TYPE_CHECKING:
    from .client import GlanceClient
    from .conftest import StartGlance
    from .environment import GlanceEnvironment
    from .server import GlanceServer

pytestmark = pytest.mark.glance


def test_the_library_takes_the_place_of_the_old_one(environment: GlanceEnvironment) -> None:
    distribution = environment.distribution("glance_store")
    drivers = distribution.entry_points.select(group="glance_store.drivers")
    assert {"file", "http", "rbd", "s3", "swift", "cinder"} <= {entry.name for entry in drivers}
    groups = distribution.entry_points.select(group="oslo.config.opts")
    assert {entry.name for entry in groups} == {"glance.store", "glance.multi_store"}


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


def test_reserved_names_are_refused(start_glance: StartGlance) -> None:
    backends = {"enabled_backends": "fast:file, os_glance_mine:file"}
    with pytest.raises(GlanceStartError, match="'os_glance_' prefix should not be used"):
        start_glance("reserved-name", options={"DEFAULT": backends})


@pytest.mark.parametrize("default", ["nowhere", ""])
def test_unknown_default_store_is_refused(start_glance: StartGlance, default: str) -> None:
    options = {"glance_store": {"default_backend": default}}
    with pytest.raises(GlanceStartError, match="RuntimeError"):
        start_glance("unknown-default", options=options)


def test_drivers_that_do_not_exist_are_refused(start_glance: StartGlance) -> None:
    backends = {"enabled_backends": "fast:file, odd:no-such-driver"}
    with pytest.raises(GlanceStartError, match="no-such-driver"):
        start_glance("unknown-driver", options={"DEFAULT": backends})
