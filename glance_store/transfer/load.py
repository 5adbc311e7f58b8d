# SPDX-License-Identifier: Apache-2.0
"""How many transfers of this process are at work right now, against the cores that it may use.

Threads for one upload pay when a core would idle without them. Where several uploads keep all cores
busy already, they only cost switches between threads.
"""

from __future__ import annotations

import os
import weakref


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class Load:
    """Knows the transfers that have data in hand; one that waits for its source has none."""

    def __init__(self) -> None:
        # No count: an interrupt may make a transfer leave twice. Weak: or never, and it would be
        # taken for at work as long as the process lives.
        self._at_work: weakref.WeakSet[object] = weakref.WeakSet()

    def enter(self, transfer: object) -> None:
        """Take note that a transfer has data to work on."""
        self._at_work.add(transfer)

    def leave(self, transfer: object) -> None:
        """Take note that its data is worked off."""
        self._at_work.discard(transfer)

    def has_spare_core(self) -> bool:
        """Tell whether one more transfer can use more than one core."""
        return len(self._at_work) < max(1, cores() - 1)

    def forget(self) -> None:
        """Begin anew, in a forked process: the threads that were at work are not there."""
        self._at_work = weakref.WeakSet()


LOAD = Load()

os.register_at_fork(after_in_child=LOAD.forget)
