# SPDX-License-Identifier: Apache-2.0
"""Configurations that Glance refuses, and those it lives with."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .client import GlanceClient
from .images import image_bytes, location_rows
from .server import GlanceStartError

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_options_are_listed_for_the_sample_configuration(environment: GlanceEnvironment) -> None:
    command = [environment.command("oslo-config-generator")]
    for namespace in ("glance.api", "glance.store", "glance.multi_store"):
        command += ["--namespace", namespace]
    sample = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "#filesystem_store_datadir = " in sample
    assert "#default_backend = " in sample


def test_reserved_names_are_refused(start_glance: StartGlance) -> None:
    backends = {"enabled_backends": "fast:file, os_glance_mine:file"}
    with pytest.raises(GlanceStartError, match="'os_glance_' prefix should not be used"):
        start_glance("reserved-name", options={"DEFAULT": backends})


@pytest.mark.parametrize("default", ["nowhere", ""])
def test_unknown_default_store_is_refused(start_glance: StartGlance, default: str) -> None:
    options = {"glance_store": {"default_backend": default}}
    with pytest.raises(GlanceStartError, match="RuntimeError"):
        start_glance("unknown-default", options=options)


@pytest.fixture(scope="module")
def odd_glance(start_glance: StartGlance, tmp_path_factory: pytest.TempPathFactory) -> GlanceServer:
    """A Glance with one good store, and others that are odd each in its own way."""
    folder = tmp_path_factory.mktemp("odd-stores")
    (folder / "a-file").touch()
    return start_glance(
        "odd",
        options={
            "DEFAULT": {
                "enabled_backends": "fast:file, broken:file, many:file, unknown:no-such-driver"
            },
            # A directory cannot be made there, not even by root.
            "broken": {"filesystem_store_datadir": str(folder / "a-file" / "images")},
            "many": {
                "filesystem_store_datadir": "",
                "filesystem_store_datadirs": f"{folder / 'low'}:1\n{folder / 'high'}:2",
            },
        },
    )


@pytest.fixture
def odd_client(odd_glance: GlanceServer) -> Iterator[GlanceClient]:
    with GlanceClient(odd_glance.url) as administrator:
        yield administrator


@pytest.mark.parametrize(("store", "status"), [("broken", 410), ("unknown", 400)])
def test_an_unusable_store_does_not_harm_the_others(
    odd_glance: GlanceServer, odd_client: GlanceClient, store: str, status: int
) -> None:
    data = image_bytes("unusable store")
    image_id = odd_client.create("unusable store")
    odd_client.upload(image_id, data, store=store, expect=status)
    assert odd_client.show(image_id)["status"] == "queued"
    assert location_rows(odd_glance, image_id) == []

    odd_client.upload(image_id, data, store="fast")
    assert odd_client.download(image_id).content == data


def test_a_missing_driver_is_told_in_the_log(odd_glance: GlanceServer) -> None:
    assert "no-such-driver" in odd_glance.log_text()


def test_a_store_of_several_directories(odd_glance: GlanceServer, odd_client: GlanceClient) -> None:
    data = image_bytes("several directories")
    image_id = odd_client.create("several directories")
    odd_client.upload(image_id, data, store="many")

    [(url, metadata)] = location_rows(odd_glance, image_id)
    assert metadata == {"store": "many"}
    stored = Path(url.removeprefix("file://"))
    assert (stored.parent.name, stored.name) == ("high", image_id)
    assert stored.read_bytes() == data
    assert odd_client.download(image_id, byte_range="bytes=70000-").content == data[70000:]
    odd_client.delete(image_id)
    assert not stored.exists()
