# SPDX-License-Identifier: Apache-2.0
"""Can volumes of the Cinder of the tests be attached, written, extended, read and deleted?"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.base import Unavailable
from tests.services.cinder import PROGRAMS
from tests.services.fixtures import unavailable
from tests.services.keystone_api import DOMAIN

if TYPE_CHECKING:
    from tests.services.cinder import Cinder
    from tests.services.keystone import Keystone

pytestmark = pytest.mark.services

GiB = 1024**3


def use_volume(cinder: Cinder, folder: Path, kind: str, user: str, twice: bool) -> dict[str, Any]:
    account = cinder.keystone.accounts[user]
    mounts = folder / "mounts"
    # Images of other tests of this run.
    before = cinder.call(user, "GET", "/volumes")["volumes"]
    wanted = {
        "credentials": {
            "auth_url": cinder.keystone.auth_url,
            "username": account.user,
            "password": account.password,
            "project_name": account.project,
            "user_domain_id": DOMAIN,
            "project_domain_id": DOMAIN,
        },
        "type": kind,
        "mounts": str(mounts),
        "locks": str(folder),
        "twice": twice,
    }
    # What it mounts goes with it.
    alone = ["unshare", "--mount"] if kind == "nfs" else []
    done = subprocess.run(
        [*alone, str(cinder.python), "-W", "ignore", str(PROGRAMS / "attach.py")],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        env=cinder.client_environment(),
        check=False,
    )
    assert not done.returncode, f"{done.stderr}\n{cinder.logs()}"
    seen: dict[str, Any] = json.loads(done.stdout)
    assert str(mounts) not in Path("/proc/self/mounts").read_text()
    assert cinder.call(user, "GET", "/volumes")["volumes"] == before
    return seen


@pytest.mark.parametrize("user", ["glance", "tenant-a"])
def test_volume_on_ceph(cinder: Cinder, tmp_path: Path, user: str) -> None:
    seen = use_volume(cinder, tmp_path, "plain", user, twice=False)
    assert seen == {"connector": "rbd", "bytes": 2 * GiB, "multiattach": False}


def test_volume_attached_twice(cinder: Cinder, tmp_path: Path) -> None:
    seen = use_volume(cinder, tmp_path, "multi", "glance", twice=True)
    assert seen == {"connector": "rbd", "bytes": 2 * GiB, "multiattach": True, "twice": True}


def test_volume_on_nfs(cinder: Cinder, tmp_path: Path) -> None:
    try:
        cinder.require_nfs()
    except Unavailable as reason:
        unavailable(reason)
    seen = use_volume(cinder, tmp_path, "nfs", "glance", twice=False)
    assert seen == {"connector": "nfs", "bytes": 2 * GiB, "multiattach": False}


def test_catalog(keystone: Keystone, cinder: Cinder) -> None:
    _token, about = keystone.token("tenant-b")
    entry = next(entry for entry in about["catalog"] if entry["type"] == "volumev3")
    project = keystone.accounts["tenant-b"].project_id
    assert {e["url"] for e in entry["endpoints"]} == {f"{cinder.url}/{project}"}


def test_tenants_do_not_see_each_other(cinder: Cinder) -> None:
    body = {"volume": {"size": 1, "name": "apart", "volume_type": "plain"}}
    volume = cinder.call("tenant-a", "POST", "/volumes", body)["volume"]["id"]
    with pytest.raises(RuntimeError, match="404"):
        cinder.call("tenant-b", "GET", f"/volumes/{volume}")
    cinder.wait(
        lambda: (
            cinder.call("tenant-a", "GET", f"/volumes/{volume}")["volume"]["status"] == "available"
        ),
        "a volume",
    )
    cinder.call("tenant-a", "DELETE", f"/volumes/{volume}")
    cinder.wait(lambda: cinder.call("tenant-a", "GET", "/volumes")["volumes"] == [], "its end")
