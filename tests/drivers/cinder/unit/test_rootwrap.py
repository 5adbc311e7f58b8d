# SPDX-License-Identifier: Apache-2.0
"""The commands that the Cinder store runs as root pass the filters in ``etc``; others do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

wrapper = pytest.importorskip("oslo_rootwrap.wrapper")

FILTERS = Path(__file__).parents[4] / "etc" / "glance" / "rootwrap.d"
SOCKET = ["--privsep_sock_path", "/tmp/tmpabc/privsep.sock"]
QUIET = ["--privsep_context", "os_brick.privileged.brick_privsep_hide_output", *SOCKET]
PRIVSEP = ["--privsep_context", "os_brick.privileged.default", *SOCKET]


def filters() -> list[Any]:
    """Return the filters of the file: rootwrap itself adds one that lets any privsep-helper run."""
    found = wrapper.load_filters([str(FILTERS)])
    return [one for one in found if one.exec_path != "privsep-helper" or one.args]


@pytest.mark.parametrize(
    "command",
    [
        ["chown", "1000", "/dev/sdx"],
        ["mount", "-t", "nfs", "-o", "vers=4", "10.0.0.1:/x", "/var/lib/glance/mnt/x"],
        ["umount", "/var/lib/glance/mnt/x"],
        ["privsep-helper", "--config-file", "/etc/glance/glance-api.conf", *PRIVSEP],
        ["privsep-helper", "--config-file", "/etc/glance/glance-api.conf", *QUIET],
    ],
    ids=lambda command: command[0],
)
def test_r185_allowed(command: list[str]) -> None:
    assert any(one.match(command) for one in filters())


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "id"],
        ["privsep-helper", "--config-file", "/etc/../tmp/x", *PRIVSEP],
        ["privsep-helper", "--config-file", "/etc/x", "--privsep_context", "os.system", *SOCKET],
    ],
    ids=["shell", "traversal", "context"],
)
def test_refused(command: list[str]) -> None:
    assert not any(one.match(command) for one in filters())
