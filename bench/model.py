# SPDX-License-Identifier: Apache-2.0
"""What a scenario is: its work, what it has to reach, and what came out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bench.worker import MIB, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.worker import Measurement

REFERENCE = "reference"
CURRENT = "current"


@dataclasses.dataclass(frozen=True)
class Goal:
    """A bound that the current library has to keep.

    ``kind`` is "speed" (seconds of the contender ``against`` over its own, at least), "peak"
    (resident bytes, at most), "import" (its own seconds over those of its two heaviest
    dependencies, at most), or "figure" (the figure of this name, at most).
    """

    kind: str
    limit: float
    against: str = REFERENCE
    figure: str = ""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A measurement by name.

    ``content`` is what the source file holds: "random", "sparse" (94 % zeros) or "scattered" (the
    same, the data at changing places). ``place`` is where images go: "tmpfs", "disk" or the name of
    a server; ``link`` is the network in between, one of `bench.beds.base.LINKS`. ``import`` has no
    task. The number of turns is that of the command line times ``times``, and ``at_most``;
    ``warm``: one turn ahead of them does not count.

    The options of the task are those of both sides, ``options`` those of one contender alone, by
    its label. A label of its own there is one more contender, the current library with these
    options; ``servers`` are sections for the configuration file of the server and its clients, for
    the time of one contender. ``alone``: without the reference. ``rivals`` are labels of other
    programs, ``stated`` names of figures to print. ``unit``: what a size has to be a multiple of,
    in bytes. ``extra``: not measured unless asked for.
    """

    name: str
    title: str
    task: Task | None
    goals: tuple[Goal, ...] = ()
    content: str = "random"
    place: str = "tmpfs"
    times: int = 1
    at_most: int = 1000
    warm: bool = True
    link: str = ""
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    servers: Mapping[str, Mapping[str, Mapping[str, str]]] = dataclasses.field(default_factory=dict)
    alone: bool = False
    rivals: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()
    unit: int = MIB
    extra: bool = False

    def turns(self, rounds: int) -> int:
        return min(rounds * self.times, self.at_most)

    def scaled(self, factor: float) -> Scenario:
        """Return this scenario with smaller images, and without goals."""
        if self.task is None:
            return dataclasses.replace(self, goals=())
        units = max(1, round(self.task.size * factor / self.unit))
        size = min(self.task.size, units * self.unit)
        return dataclasses.replace(self, goals=(), task=dataclasses.replace(self.task, size=size))


@dataclasses.dataclass(frozen=True)
class Result:
    """The measurements of a scenario, by contender, each list in order of the turns, and why those
    failed that are missing.
    """

    scenario: Scenario
    measurements: dict[str, list[Measurement]]
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
