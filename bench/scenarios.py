# SPDX-License-Identifier: Apache-2.0
"""What is measured of each driver, and what it has to reach."""

from __future__ import annotations

from bench.model import Goal, Scenario
from bench.server_scenarios import CINDER, RBD, S3, SWIFT, VMWARE
from bench.worker import KIB, MIB, Task

LARGE = 512 * MIB
SMALL = 64 * KIB
HUGE = 4096 * MIB
THIN = {"filesystem_thin_provisioning": True}
FASTER = (Goal("speed", 1.6),)
AS_FAST = (Goal("speed", 1.0),)
BOUNDED = (Goal("peak", 160 * MIB),)

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
    Scenario("import", "import glance_store", None, (Goal("import", 1.3),), times=4),
    Scenario(
        "disk",
        "add 512 MiB, random, to a disk",
        Task("add", LARGE),
        place="disk",
        rivals=("dd conv=fsync",),
    ),
)

DRIVERS: dict[str, tuple[Scenario, ...]] = {
    "file": FILE,
    "rbd": RBD,
    "s3": S3,
    "swift": SWIFT,
    "cinder": CINDER,
    "vmware": VMWARE,
}
