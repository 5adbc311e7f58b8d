# SPDX-License-Identifier: Apache-2.0
"""Images as files of datastores behind a vCenter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.beds.base import ServerBed
from tests.services.vcenter import VCenter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.model import Scenario


class VMwareBed(ServerBed):
    """A vCenter with two datastores in memory."""

    driver: ClassVar[str] = "vmware"
    clients: ClassVar[tuple[str, ...]] = ("oslo.vmware",)

    def start(self, scenario: Scenario) -> None:
        self._server = self.service(VCenter)

    def basis(self, scenario: Scenario, images: Path) -> dict[str, Any]:
        # The reference takes one datastore without doubt.
        datastores = [f"{self._server.datacenter}:{self._server.datastores[0]}"]
        options = {**self._server.store_options(), "vmware_datastores": datastores}
        return {"driver": self.driver, "options": options}

    def variables(self) -> Mapping[str, str]:
        # The reference believes it rather than its option.
        return {"REQUESTS_CA_BUNDLE": str(self._server.authority)}
