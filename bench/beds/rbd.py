# SPDX-License-Identifier: Apache-2.0
"""Images in a Ceph cluster, written and read through librbd."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from bench.beds.base import ServerBed
from bench.contenders import Contender, check, program
from bench.worker import MIB
from tests.services import ceph_conf
from tests.services.ceph import Ceph

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from bench.environments import Environment
    from bench.model import Scenario
    from bench.worker import Measurement, Task

IMPORT = "rbd import"
EXPORT = "rbd export"
OSD_IN = "OSD MiB in"
OSD_OUT = "OSD MiB out"

Sections = Mapping[str, Mapping[str, str]]


class RbdBed(ServerBed):
    """A Ceph cluster with a replicated and an erasure-coded pool."""

    driver: ClassVar[str] = "rbd"

    def start(self, scenario: Scenario) -> None:
        if "ceph" not in self.lab:
            self._ceph = self.service(Ceph)
            self._set: Sections = {}

    def basis(self, scenario: Scenario, images: Path) -> dict[str, Any]:
        ceph = self._ceph
        options = {
            "rbd_store_ceph_conf": str(ceph.conf),
            "rbd_store_user": ceph.user,
            "rbd_store_pool": ceph.pool,
        }
        own = scenario.task.options if scenario.task else {}
        return {
            "driver": self.driver,
            "options": {**options, **own},
            "modules": [str(ceph.bindings())],
        }

    def ready(self, scenario: Scenario, label: str) -> None:
        """Write the configuration file of servers and clients; restart the OSD if need be."""
        wanted: Sections = scenario.servers.get(label, {})
        if wanted == self._set:
            return
        restart = wanted.get("osd") != self._set.get("osd")
        sections = ceph_conf.merged(self._ceph.sections, wanted)
        self._ceph.conf.write_text(ceph_conf.text(sections))
        self._set = wanted
        if restart:
            self._ceph.osd.kill()
            self._ceph.heal()

    def figures(self, scenario: Scenario) -> dict[str, float]:
        """Return what clients have sent to the OSD, and got from it."""
        assert self._ceph.folder is not None
        counters = asked(self._ceph.folder / "osd.0.asok", "perf dump")["osd"]
        return {
            OSD_IN: counters["op_in_bytes"] / MIB,
            OSD_OUT: counters["op_out_bytes"] / MIB,
        }

    def rivals(
        self,
        scenario: Scenario,
        task: Task,
        images: Path,
        environment: Environment,
        stack: contextlib.ExitStack,
    ) -> dict[str, Contender]:
        ceph = self._ceph
        rbd = ["rbd", "--conf", ceph.conf, "--id", ceph.user, "--no-progress"]
        image = f"{ceph.pool}/rival"
        # Objects of the size that the library makes.
        importing = [*rbd, "import", "--object-size", "8M", task.path, image]
        target = images / "exported"

        def put() -> Measurement:
            measured = program(importing, task.size)
            check([*rbd, "rm", image])
            return measured

        def prepare() -> None:
            check(importing)
            stack.callback(check, [*rbd, "rm", image])

        def read() -> Measurement:
            measured = program([*rbd, "export", image, target], task.size)
            target.unlink()
            return measured

        return {IMPORT: Contender(put), EXPORT: Contender(read, prepare)}


def asked(admin_socket: Path, prefix: str) -> Any:
    """Return the answer of a daemon of Ceph to a command, through its socket for administrators."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(admin_socket))
        connection.sendall(json.dumps({"prefix": prefix, "format": "json"}).encode() + b"\0")
        with connection.makefile("rb") as answer:
            size = int.from_bytes(answer.read(4), "big")
            return json.loads(answer.read(size))
