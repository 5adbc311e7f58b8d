# SPDX-License-Identifier: Apache-2.0
"""What is measured, and what it has to reach."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bench.worker import KIB, MIB, Task

if TYPE_CHECKING:
    from bench.worker import Measurement


@dataclasses.dataclass(frozen=True)
class Goal:
    """A bound that the current library has to keep.

    ``kind`` is "speed" (seconds of the reference over its own, at least), "peak" (resident bytes,
    at most) or "import" (its own seconds over those of its two heaviest dependencies, at most).
    """

    kind: str
    limit: float


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A measurement by name.

    ``content`` is what the source file holds: "random", or "sparse" for 94 % zeros. ``place`` is
    where images go: "tmpfs" or "disk". ``import`` has no task. The number of turns is that of the
    command line times ``times``, and ``at_most``.
    """

    name: str
    title: str
    task: Task | None
    goal: Goal | None = None
    content: str = "random"
    place: str = "tmpfs"
    times: int = 1
    at_most: int = 1000

    def turns(self, rounds: int) -> int:
        return min(rounds * self.times, self.at_most)


LARGE = 512 * MIB
SMALL = 64 * KIB
HUGE = 4096 * MIB
THIN = {"filesystem_thin_provisioning": True}
FASTER = Goal("speed", 1.6)
AS_FAST = Goal("speed", 1.0)
BOUNDED = Goal("peak", 160 * MIB)

FILE = (
    Scenario("add", "add 512 MiB, random", Task("add", LARGE), FASTER),
    Scenario(
        "add-network",
        "add 512 MiB, random, 64 KiB reads",
        Task("add", LARGE, source="network"),
        FASTER,
    ),
    Scenario(
        "add-thin",
        "add 512 MiB, 94 % zeros, thin",
        Task("add", LARGE, options=THIN),
        FASTER,
        content="sparse",
    ),
    Scenario(
        "add-thin-network",
        "add 512 MiB, 94 % zeros, thin, 64 KiB reads",
        Task("add", LARGE, source="network", options=THIN),
        FASTER,
        content="sparse",
    ),
    Scenario("get", "get 512 MiB", Task("get", LARGE, repeat=9), AS_FAST),
    Scenario(
        "add-small",
        "add 2000 images of 64 KiB",
        Task("add", SMALL, count=2000, repeat=9, source="memory"),
        AS_FAST,
    ),
    Scenario(
        "get-small",
        "get 2000 images of 64 KiB",
        Task("get", SMALL, count=2000, repeat=9, source="memory"),
        AS_FAST,
    ),
    Scenario(
        "add-concurrent",
        "add 8 images of 64 MiB at once",
        Task("add", LARGE // 8, count=8, threads=8, source="generated"),
        AS_FAST,
    ),
    Scenario(
        "memory-known",
        "add 4 GiB, size known",
        Task("add", HUGE, source="generated"),
        BOUNDED,
        at_most=1,
    ),
    Scenario(
        "memory-unknown",
        "add 4 GiB, size unknown",
        Task("add", HUGE, source="generated", declared=False),
        BOUNDED,
        at_most=1,
    ),
    Scenario("import", "import glance_store", None, Goal("import", 1.3), times=4),
    Scenario("disk", "add 512 MiB, random, to a disk", Task("add", LARGE), place="disk"),
)

DRIVERS = {"file": FILE}


@dataclasses.dataclass(frozen=True)
class Result:
    """The measurements of a scenario, by contender, each list in order of the turns."""

    scenario: Scenario
    measurements: dict[str, list[Measurement]]
