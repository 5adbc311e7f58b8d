# SPDX-License-Identifier: Apache-2.0
"""Images as files in a scratch folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from bench.beds.base import Bed
from bench.contenders import Contender, dd

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from bench.beds.base import Measure
    from bench.environments import Environment
    from bench.model import Scenario
    from bench.worker import Measurement, Task

DD = "dd conv=fsync"


class FileBed(Bed):
    """A folder on the tmpfs or the disk."""

    driver: ClassVar[str] = "file"
    prefix: ClassVar[str] = "image"

    def basis(self, scenario: Scenario, images: Path) -> dict[str, Any]:
        own = scenario.task.options if scenario.task else {}
        return {"options": {"filesystem_store_datadir": str(images), **own}}

    def rivals(
        self,
        scenario: Scenario,
        task: Task,
        images: Path,
        environment: Environment,
        stack: contextlib.ExitStack,
    ) -> dict[str, Contender]:
        return {DD: Contender(lambda: dd(task.path, images / "dd"))}

    def around(self, scenario: Scenario, label: str, measure: Measure) -> Measure:
        if scenario.place != "disk":
            return measure

        def synced() -> Measurement:
            # It does not pay for what others left unwritten.
            os.sync()
            return measure()

        return synced
