# SPDX-License-Identifier: Apache-2.0
"""Images as volumes of Cinder, which os-brick attaches through librbd."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from bench.beds.base import ServerBed, context_of
from tests.services.cinder import Cinder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.model import Scenario

EXTENSIONS = "extensions"
# What Cinder writes to its log for each extension that it accepts.
_EXTENDED = b"Extend volume request issued successfully"


class CinderBed(ServerBed):
    """A Cinder with volumes on Ceph."""

    driver: ClassVar[str] = "cinder"
    clients: ClassVar[tuple[str, ...]] = ("os-brick", "python-cinderclient")

    def start(self, scenario: Scenario) -> None:
        self._cinder = self.service(Cinder)

    def basis(self, scenario: Scenario, images: Path) -> dict[str, Any]:
        cinder = self._cinder
        options = {name: _plain(value) for name, value in cinder.store_options("plain").items()}
        own = scenario.task.options if scenario.task else {}
        return {
            "driver": self.driver,
            "options": {**options, **own},
            "context": context_of(*cinder.keystone.token("glance")),
            "modules": [str(cinder.ceph.bindings())],
        }

    def variables(self) -> Mapping[str, str]:
        return {"PATH": self._cinder.client_environment()["PATH"]}

    def figures(self, scenario: Scenario) -> dict[str, float]:
        """Return how often volumes were extended so far."""
        assert self._cinder.folder is not None
        logs = self._cinder.folder.glob("*.log")
        return {EXTENSIONS: sum(log.read_bytes().count(_EXTENDED) for log in logs)}

    def settle(self, patience: float = 60.0) -> None:
        """Wait until no volume is being deleted any more."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            volumes = self._cinder.call("glance", "GET", "/volumes/detail")["volumes"]
            if not any(volume["status"] == "deleting" for volume in volumes):
                break
            time.sleep(0.5)
        super().settle()


def _plain(value: object) -> object:
    return value if isinstance(value, (bool, int, str)) else str(value)
