# SPDX-License-Identifier: Apache-2.0
"""Volumes that are files of an NFS export, for which a bind mount stands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.drivers.cinder.stores import Listing
from tests.services.base import Unavailable
from tests.services.fixtures import unavailable

if TYPE_CHECKING:
    from tests.services.cinder import Cinder

pytestmark = pytest.mark.services


@pytest.mark.parametrize("online", [True, False], ids=["extend-attached", "extend-detached"])
def test_r188_volumes_on_nfs(
    cinder: Cinder, listing: Listing, tmp_path: Path, online: bool
) -> None:
    """Mounted while at least one image is in use, extended (r194: never while attached)."""
    try:
        cinder.require_nfs()
    except Unavailable as reason:
        unavailable(reason)
    options = {
        **cinder.store_options("nfs"),
        "cinder_mount_point_base": str(tmp_path),
        "cinder_do_extend_attached": online,
    }
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-m", "tests.drivers.cinder.use_nfs"],
        input=json.dumps(options, default=str),
        capture_output=True,
        text=True,
        env=cinder.client_environment(),
        check=False,
    )
    assert not done.returncode, f"{done.stderr}\n{cinder.logs()}"
    assert json.loads(done.stdout) == {
        "mounts": [False, True, True, False, False],
        "states": 1,
        "read": True,
        "together": True,
        "grown": 1_000_000,
        "end": True,
        "error": "Invalid",
    }
    assert list(tmp_path.glob("*/mount_users_*")) == []
