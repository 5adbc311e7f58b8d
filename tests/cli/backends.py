# SPDX-License-Identifier: Apache-2.0
"""Real backends for tests of the command: a configuration, and what is there past the drivers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.cinder.stores import Listing
from tests.drivers.rbd.test_kit import BOOKKEEPING
from tests.drivers.swift.account import Account
from tests.services.cinder import POOL
from tests.services.fixtures import ceph_of, client_module, running

KINDS = ("file", "rbd", "s3", "swift", "cinder", "vmware")

# Seconds without a new part after which an upload counts as dead; a busy machine takes its time.
QUIET = 25.0
CONF = """\
[DEFAULT]
enabled_backends = {stores}
[glance_store]
default_backend = first
[first]
filesystem_store_datadir = {root}/first
[last]
filesystem_store_datadir = {root}/last
filesystem_thin_provisioning = true
"""
SMALL_PARTS = {
    "[s3]": "s3_store_large_object_size = 5\ns3_store_large_object_chunk_size = 5",
    "[swift]": "swift_store_large_object_size = 1\nswift_store_large_object_chunk_size = 1",
}


def configuration(root: Path, services: Sequence[Any], stores: str) -> Path:
    """Write a configuration of stores on servers, and of two on files.

    :param stores: the value of `enabled_backends`
    """
    text = CONF.format(root=root, stores=stores)
    text += "".join(service.glance_conf() + "\n" for service in services)
    for section, options in SMALL_PARTS.items():
        text = text.replace(f"{section}\n", f"{section}\n{options}\n")
    path = root / "glance-api.conf"
    path.write_text(text)
    return path


@dataclass
class Backend:
    """One store on a real server.

    :ivar name: identifier of the store
    :ivar listing: tells everything that there is, past the driver
    :ivar environment: for processes that use it
    :ivar quiet: seconds after which an upload that does nothing counts as dead
    :ivar forget: has the server forget clients that were killed, given the ids of their images
    """

    name: str
    config: Path
    listing: Callable[[], list[str]]
    environment: dict[str, str]
    quiet: float = -60.0
    forget: Callable[[Sequence[str]], None] = lambda _ids: None


def backend_of(kind: str, request: pytest.FixtureRequest, root: Path) -> Backend:
    """Start a server if need be, and return the store on it."""
    return _MAKERS[kind](request, root)


def _file(_request: pytest.FixtureRequest, root: Path) -> Backend:
    config = configuration(root, [], "first:file, last:file")
    return Backend("last", config, lambda: _names(root / "last"), dict(os.environ))


def _names(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*")]


def _rbd(request: pytest.FixtureRequest, root: Path) -> Backend:
    ceph = ceph_of(request.getfixturevalue("lab"))
    import rados

    def listing() -> list[str]:
        with (
            rados.Rados(conffile=str(ceph.conf), rados_id=ceph.user) as cluster,
            cluster.open_ioctx(ceph.pool) as pool,
        ):
            return [one.key for one in pool.list_objects() if one.key not in BOOKKEEPING]

    return Backend(
        "ceph",
        configuration(root, [ceph], "first:file, ceph:rbd"),
        listing,
        with_bindings(ceph, dict(os.environ)),
        forget=lambda ids: ceph.shut_out(ceph.pool, ids),
    )


def with_bindings(ceph: Any, environment: dict[str, str]) -> dict[str, str]:
    """Return variables for processes that use Ceph's bindings."""
    modules = [os.environ.get("PYTHONPATH"), str(ceph.bindings())]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, modules))}


def _s3(request: pytest.FixtureRequest, root: Path) -> Backend:
    radosgw: Any = running(request.getfixturevalue("lab"), "radosgw")
    client = client_module("boto3", "s3").client(
        "s3",
        endpoint_url=radosgw.url,
        aws_access_key_id=radosgw.access_key,
        aws_secret_access_key=radosgw.secret_key,
        region_name="us-east-1",
    )
    bucket = radosgw.bucket

    def listing() -> list[str]:
        if bucket not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
            return []
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        uploads = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
        return [
            *(f"object {one['Key']}" for page in pages for one in page.get("Contents", [])),
            *(f"upload {one['Key']}" for page in uploads for one in page.get("Uploads", [])),
        ]

    config = configuration(root, [radosgw], "first:file, s3:s3")
    return Backend("s3", config, listing, dict(os.environ), quiet=QUIET)


def _swift(request: pytest.FixtureRequest, root: Path) -> Backend:
    swift: Any = running(request.getfixturevalue("lab"), "swift")
    account = Account(swift.keystone, "glance", swift.storage_url("glance"))

    def listing() -> list[str]:
        # Other tests have containers of their own.
        boxes = account.containers("images")
        return [f"{box}/{name}" for box in boxes for name in account.objects(box)]

    config = configuration(root, [swift], "first:file, swift:swift")
    return Backend("swift", config, listing, dict(os.environ), quiet=QUIET)


def _cinder(request: pytest.FixtureRequest, root: Path) -> Backend:
    cinder: Any = running(request.getfixturevalue("lab"), "cinder")
    ceph = ceph_of(request.getfixturevalue("lab"))

    def volumes() -> list[dict[str, Any]]:
        # What tests of the driver have left in the same project goes in its own time.
        found = Listing(cinder).volumes()
        return [one for one in found if one["metadata"].get("glance_store") == "cinder"]

    def listing() -> list[str]:
        return [f"{one['id']} {one['status']} {len(one['attachments'])}" for one in volumes()]

    def forget(ids: Sequence[str]) -> None:
        dead = [one["id"] for one in volumes() if one["metadata"].get("glance_image_id") in ids]
        ceph.shut_out(POOL, dead)

    return Backend(
        "cinder",
        configuration(root, [cinder], "first:file, cinder:cinder"),
        listing,
        with_bindings(ceph, cinder.client_environment()),
        forget=forget,
    )


def _vmware(request: pytest.FixtureRequest, root: Path) -> Backend:
    vcenter: Any = running(request.getfixturevalue("own_lab"), "vcenter")
    config = configuration(root, [vcenter], "first:file, vmware:vmware")

    def listing() -> list[str]:
        # Other tests have directories of their own.
        return [str(path) for path in vcenter.files() if vcenter.directory in path.parts]

    return Backend("vmware", config, listing, dict(os.environ), quiet=QUIET)


_MAKERS = {
    "file": _file,
    "rbd": _rbd,
    "s3": _s3,
    "swift": _swift,
    "cinder": _cinder,
    "vmware": _vmware,
}
