# SPDX-License-Identifier: Apache-2.0
"""How many transfers of this process are at work right now, against the cores that it may use.

Threads for one upload pay when a core would idle without them. Where several uploads keep all cores
busy already, they only cost switches between threads.
"""

from __future__ import annotations

import os
import threading


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class Load:
    """Counts the transfers that have data in hand; one that waits for its source has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work = 0

    def enter(self) -> None:
        """Count a transfer in: it has data to work on."""
        with self._lock:
            self._at_work += 1

    def leave(self) -> None:
        """Count a transfer out: its data is worked off."""
        with self._lock:
            self._at_work -= 1

    def has_spare_core(self) -> bool:
        """Tell whether one more transfer can use more than one core."""
        return self._at_work < max(1, cores() - 1)

    def forget(self) -> None:
        """Begin anew, in a forked process: the threads that were at work are not there."""
        self._lock = threading.Lock()
        self._at_work = 0


LOAD = Load()

os.register_at_fork(after_in_child=LOAD.forget)
