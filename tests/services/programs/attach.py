# SPDX-License-Identifier: Apache-2.0
"""Use one volume in each way there is, with Cinder's client and os-brick.

It is run in Cinder's environment. Credentials, volume type and folder for mounts come as JSON on
the standard input; what has been seen leaves as JSON on the standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import os_brick
import os_brick.privileged
from cinderclient import client, exceptions
from keystoneauth1 import session
from keystoneauth1.identity import v3
from os_brick.initiator import connector
from oslo_config import cfg

# Attachments are handed over completed from this version on, read-only ones as well.
MICROVERSION = "3.54"
MiB = 1024 * 1024
PATIENCE = 60


def wait(cinder: Any, volume: Any, status: str) -> None:
    """Wait until a volume has a status."""
    deadline = time.monotonic() + PATIENCE
    while (found := cinder.volumes.get(volume.id).status) != status:
        if found.startswith("error") or time.monotonic() > deadline:
            raise SystemExit(f"the volume is {found} instead of {status}")
        time.sleep(0.1)


def wait_until_gone(cinder: Any, volume: Any) -> None:
    """Wait until a volume does not exist any more."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(exceptions.NotFound):
        while time.monotonic() < deadline:
            cinder.volumes.get(volume.id)
            time.sleep(0.1)
        raise SystemExit("the volume is not deleted")


@contextlib.contextmanager
def opened(device: dict[str, Any]) -> Iterator[BinaryIO]:
    """Give the bytes of a device, which is a path, or what librbd has opened."""
    path = device["path"]
    if isinstance(path, str):
        with open(path, "r+b") as found:
            yield found
    else:
        yield path


@contextlib.contextmanager
def attached(cinder: Any, volume: Any, mounts: str, seen: dict[str, Any]) -> Iterator[BinaryIO]:
    """Give the bytes of a volume while it is attached."""
    properties = connector.get_connector_properties("", "127.0.0.1", False, False)
    attachment = cinder.attachments.create(volume.id, properties, None, "rw")
    info = attachment["connection_info"]
    seen["connector"] = info["driver_volume_type"]
    brick = connector.InitiatorConnector.factory(
        info["driver_volume_type"], "", conn=info, nfs_mount_point_base=mounts
    )
    try:
        device = brick.connect_volume(info)
        try:
            cinder.attachments.complete(attachment["id"])
            with opened(device) as content:
                yield content
        finally:
            brick.disconnect_volume(info, device)
    finally:
        cinder.attachments.delete(attachment["id"])


def use(cinder: Any, volume: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Write a volume, extend it, and read it again from a new attachment."""
    seen: dict[str, Any] = {}
    places = {0: os.urandom(MiB), 512 * MiB: os.urandom(4096)}
    with attached(cinder, volume, wanted["mounts"], seen) as content:
        wait(cinder, volume, "in-use")
        for place, piece in places.items():
            content.seek(place)
            content.write(piece)
        content.flush()
    wait(cinder, volume, "available")
    cinder.volumes.extend(volume, 2)
    wait(cinder, volume, "available")
    with attached(cinder, volume, wanted["mounts"], seen) as content:
        for place, piece in places.items():
            content.seek(place)
            if content.read(len(piece)) != piece:
                raise SystemExit(f"other bytes are at {place}")
        seen["bytes"] = content.seek(0, os.SEEK_END) or content.tell()
        if wanted["twice"]:
            with attached(cinder, volume, wanted["mounts"], seen) as other:
                other.seek(0)
                seen["twice"] = other.read(MiB) == places[0]
    wait(cinder, volume, "available")
    return seen


def main() -> None:
    """Create a volume, use it, delete it."""
    wanted = json.load(sys.stdin)
    cfg.CONF([], project="tests")
    cfg.CONF.set_override("lock_path", wanted["locks"], group="oslo_concurrency")
    os_brick.setup(cfg.CONF)
    # The tests mount and attach with the rights of this very process.
    os_brick.privileged.default.set_client_mode(False)
    owner = session.Session(auth=v3.Password(**wanted["credentials"]))
    cinder = client.Client(MICROVERSION, session=owner)
    volume = cinder.volumes.create(1, name="smoke", volume_type=wanted["type"])
    try:
        wait(cinder, volume, "available")
        seen = use(cinder, volume, wanted)
        seen["multiattach"] = cinder.volumes.get(volume.id).multiattach
    finally:
        cinder.volumes.delete(volume)
        wait_until_gone(cinder, volume)
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
