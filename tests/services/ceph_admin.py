# SPDX-License-Identifier: Apache-2.0
"""Send commands to the monitors of a Ceph cluster.

python3 ceph_admin.py CEPH_CONF: a JSON list of steps comes on the standard input, a JSON list of
results leaves on the standard output. It is run by the distribution's Python, for which the
distribution made the bindings; one connection for all steps is many times faster than the `ceph`
program. A step has one of these keys:

command   object with `prefix` and arguments; with `input` and `binary` in base64
osds_up   how many OSDs have to be up
writable  name of a pool that has to take writes
rbd_init  name of a pool to make ready for images
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import rados

PATIENCE = 60
# A call of librados waits for ever otherwise, and nobody would know for what.
CALL_SECONDS = 5
HEALTH = {"command": {"prefix": "health", "detail": "detail"}}


def until(cluster: Any, ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"after {PATIENCE} s: {what}; {command(cluster, HEALTH)}")
        time.sleep(0.02)


def connect(conf: str) -> Any:
    """Return a connection; the monitor may be starting."""
    # A monitor that does not listen yet is tried again after this time, 3 s by default.
    hurry = {
        "mon_client_hunt_interval": "0.1",
        "client_mount_timeout": str(PATIENCE),
        "rados_osd_op_timeout": str(CALL_SECONDS),
    }
    cluster = rados.Rados(conffile=conf, conf=hurry)
    cluster.connect(timeout=PATIENCE)
    return cluster


def command(cluster: Any, step: dict[str, Any]) -> Any:
    arguments = json.dumps({"format": "json", **step["command"]})
    given = base64.b64decode(step.get("input", ""))
    status, output, message = cluster.mon_command(arguments, given, timeout=PATIENCE)
    if status:
        raise SystemExit(f"{arguments}: {message} ({status})")
    if step.get("binary"):
        return base64.b64encode(output).decode()
    return json.loads(output) if output.strip() else None


def osds_up(cluster: Any, count: int) -> None:
    def enough() -> bool:
        return bool(command(cluster, {"command": {"prefix": "osd stat"}})["num_up_osds"] >= count)

    until(cluster, enough, f"not {count} OSDs are up")


def writable(cluster: Any, pool: str) -> None:
    with cluster.open_ioctx(pool) as access:

        def takes_writes() -> bool:
            try:
                access.write_full("probe", b"probe")
                access.remove_object("probe")
            except (rados.TimedOut, rados.ObjectNotFound):
                # A write that was late may come after the removal.
                return False
            return True

        until(cluster, takes_writes, f"pool {pool} takes no writes")


def rbd_init(cluster: Any, pool: str) -> None:
    import rbd

    with cluster.open_ioctx(pool) as access:
        rbd.RBD().pool_init(access, True)


def run(cluster: Any, step: dict[str, Any]) -> Any:
    if "command" in step:
        return command(cluster, step)
    if "osds_up" in step:
        return osds_up(cluster, step["osds_up"])
    if "writable" in step:
        return writable(cluster, step["writable"])
    return rbd_init(cluster, step["rbd_init"])


def main() -> None:
    steps = json.load(sys.stdin)
    cluster = connect(sys.argv[1])
    try:
        json.dump([run(cluster, step) for step in steps], sys.stdout)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
