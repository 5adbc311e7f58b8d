# SPDX-License-Identifier: Apache-2.0
"""Drivers of an earlier release, installed as outside drivers: they work as they are.

The release is installed by pip into a folder of its own, and its drivers are loaded from there
under other names, unread. Only what a driver does is seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.facade.reference_driver import DATA, STORE
from tests.services.fixtures import client_module, unavailable

if TYPE_CHECKING:
    from tests.services.ceph import Ceph
    from tests.services.radosgw import Radosgw

# Also the release itself is a peer that has to be installed.
pytestmark = pytest.mark.services

REFERENCE = "glance_store==5.7.0"
REPOSITORY = Path(__file__).resolve().parents[2]
DRIVERS = ("filesystem", "http", "rbd", "s3")
SECONDS = 240

MODES = pytest.mark.parametrize("mode", ["multi", "single"])


@pytest.fixture(scope="session")
def reference() -> Path:
    """A folder with the reference release and what it depends on."""
    cache = Path(os.environ.get("GLANCE_STORE_TEST_CACHE") or REPOSITORY / ".cache")
    folder = cache / f"reference-{sys.implementation.cache_tag}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        target = Path(scratch, "site")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "--target", target, REFERENCE], capture_output=True, text=True, check=False
        )
        if done.returncode:
            unavailable(f"{REFERENCE} could not be installed: {done.stderr.strip()[-300:]}")
        try:
            target.rename(folder)
        except OSError:
            # Another run was quicker.
            assert folder.exists()
    return folder


@pytest.fixture(scope="session")
def vendor(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a distribution of drivers: modules of its own, and their entry points."""
    site = tmp_path_factory.mktemp("vendor")
    about = site / "vendor_drivers-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor-drivers\nVersion: 1.0\n")
    points = ["[glance_store.drivers]"]
    for name in DRIVERS:
        installed = reference / "glance_store" / "_drivers" / f"{name}.py"
        (site / f"vendor_{name}.py").symlink_to(installed)
        points.append(f"vendor_{name} = vendor_{name}:Store")
    (about / "entry_points.txt").write_text("\n".join(points))
    return site


@pytest.fixture
def life(reference: Path, vendor: Path, tmp_path: Path) -> Any:
    """Run the life of an image in one of the drivers, and return what each step came to."""

    def run(
        mode: str, driver: str, scheme: str, options: dict[str, Any], uri: str | None = None
    ) -> dict[str, Any]:
        arguments = {"mode": mode, "entry": f"vendor_{driver}", "scheme": scheme}
        arguments |= {"options": options, "uri": uri}
        # The folders of this process too: the bindings of Ceph are in one of them.
        path = os.pathsep.join([str(vendor), str(REPOSITORY), *filter(None, sys.path)])
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.facade.reference_driver",
                str(reference),
                json.dumps(arguments),
            ],
            # Entry points are kept in a cache of the user's between processes.
            env={
                **os.environ,
                "PYTHONPATH": path,
                "PYTHONDONTWRITEBYTECODE": "1",
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
                "NO_PROXY": "127.0.0.1",
            },
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
        steps: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return steps

    return run


def expected(mode: str, driver: str, can_read_ranges: bool) -> dict[str, Any]:
    return {
        "module": f"vendor_{driver}",
        "added": [len(DATA), True, STORE if mode == "multi" else None],
        "again": "Duplicate",
        "size": len(DATA),
        "whole": "the image",
        "range": "the image" if can_read_ranges else "StoreRandomGetNotSupported",
        "acls": None,
        "deleted": None,
        "after": "NotFound",
    }


@MODES
def test_files(life: Any, mode: str, tmp_path: Path) -> None:
    options = {"filesystem_store_datadir": str(tmp_path / "images")}
    found = life(mode, "filesystem", "file", options)
    assert found == expected(mode, "filesystem", can_read_ranges=True)


@MODES
def test_http(life: Any, mode: str, web: tuple[str, Path]) -> None:
    address, site = web
    (site / "image").write_bytes(DATA)
    assert life(mode, "http", "http", {}, f"http://{address}/image") == {
        "module": "vendor_http",
        "add": "StoreAddDisabled",
        "size": len(DATA),
        "whole": "the image",
        "range": "StoreRandomGetNotSupported",
        "acls": None,
        "deleted": "StoreDeleteNotSupported",
        "after": len(DATA),
    }


@pytest.mark.services
@MODES
def test_rbd(life: Any, mode: str, ceph: Ceph) -> None:
    options = {
        "rbd_store_ceph_conf": str(ceph.conf),
        "rbd_store_user": ceph.user,
        "rbd_store_pool": ceph.pool,
    }
    found = life(mode, "rbd", "rbd", options)
    assert found == expected(mode, "rbd", can_read_ranges=False)


@pytest.mark.services
@MODES
def test_s3(life: Any, mode: str, radosgw: Radosgw) -> None:
    client_module("boto3", "s3")
    options = {
        "s3_store_host": radosgw.url,
        "s3_store_access_key": radosgw.access_key,
        "s3_store_secret_key": radosgw.secret_key,
        "s3_store_bucket": "vendor",
        "s3_store_create_bucket_on_put": True,
        "s3_store_bucket_url_format": "path",
    }
    found = life(mode, "s3", "s3", options)
    assert found == expected(mode, "s3", can_read_ranges=False)
