# SPDX-License-Identifier: Apache-2.0
"""Serve all parts of Swift: ``serve_swift.py FOLDER PART=PORT...``.

The folder holds swift.conf and the configuration of each part. The modules are imported
once, then each part runs in a process of its own, whose id is in a file such as ``proxy.pid``.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

PARTS = ("account", "container", "object", "proxy")
SHARED_MODULES = (
    "keystonemiddleware.auth_token",
    "swift.account.server",
    "swift.container.server",
    "swift.obj.server",
    "swift.proxy.server",
)


def run_part(folder: Path, part: str) -> NoReturn:
    """Serve one part until a signal ends it."""
    from swift.common.wsgi import run_wsgi
    from swift.obj.server import global_conf_callback

    options: dict[str, Any] = {}
    if part == "object":
        options = {"global_conf_callback": global_conf_callback, "allow_modify_pipeline": False}
    log = os.open(folder / f"{part}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    conf = folder / f"{part}.conf"
    sys.argv = [f"swift-{part}-server", str(conf)]
    os._exit(run_wsgi(str(conf), f"{part}-server", verbose=True, **options))


def write_rings(folder: Path, ports: dict[str, int]) -> None:
    """Say where the parts are: one copy of everything on one device."""
    from swift.common.ring import RingBuilder

    for part, port in ports.items():
        builder = RingBuilder(2, 1, 1)
        address = {"ip": "127.0.0.1", "port": port}
        replication = {"replication_ip": "127.0.0.1", "replication_port": port}
        place = {"id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "disk", "meta": ""}
        builder.add_dev({**place, **address, **replication})
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{part}.ring.gz"))


def main() -> None:
    """Serve until SIGTERM."""
    folder = Path(sys.argv[1])
    import swift.common.utils

    # Limits and storage policies are read from this file while other modules are imported.
    swift.common.utils.SWIFT_CONF_FILE = str(folder / "swift.conf")
    # Imported here, they are imported once for all parts.
    for module in SHARED_MODULES:
        importlib.import_module(module)
    write_rings(folder, {name: int(port) for name, port in (a.split("=") for a in sys.argv[2:])})
    children: list[int] = []

    def stop(*_: object) -> NoReturn:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        os._exit(0)

    # The parts get the group's signal as well; they end when this process says so.
    for part in PARTS:
        child = os.fork()
        if not child:
            run_part(folder, part)
        children.append(child)
        (folder / f"{part}.pid").write_text(str(child))
    signal.signal(signal.SIGTERM, stop)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
