# SPDX-License-Identifier: Apache-2.0
"""How many transfers of this process are working, compared to the cores it may use.

Threads for one upload pay off while a core would otherwise idle. When several uploads already keep
all cores busy, they only add context switches.
"""

from __future__ import annotations

import os
import weakref


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class Load:
    """Tracks the transfers that have data to work on; one that waits for its source has none."""

    def __init__(self) -> None:
        # An interrupt may make a transfer leave twice, so a counter would drift; or never, so a
        # strong reference would count it for ever.
        self._at_work: weakref.WeakSet[object] = weakref.WeakSet()

    def enter(self, transfer: object) -> None:
        """Record that a transfer has data to work on."""
        self._at_work.add(transfer)

    def leave(self, transfer: object) -> None:
        """Record that a transfer has no more data to work on."""
        self._at_work.discard(transfer)

    def has_spare_core(self) -> bool:
        """Tell whether another transfer can use more than one core."""
        return len(self._at_work) < max(1, cores() - 1)

    def forget(self) -> None:
        """Reset in a forked process, which does not have the parent's threads."""
        self._at_work = weakref.WeakSet()


LOAD = Load()

os.register_at_fork(after_in_child=LOAD.forget)
