# SPDX-License-Identifier: Apache-2.0
"""Locks by name, for the moment in which something of that name is created.

A backend that does not know the condition "only if there is none" is asked before. Between question
and creation another upload of this process may not come; those of other processes may.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Hashable, Iterator


class KeyedLocks:
    """Locks that exist as long as somebody holds or awaits them.

    `CREATING` is that of the process; in a forked child nobody holds any of its locks.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def holding(self, key: Hashable) -> Iterator[None]:
        """Hold the lock of a key.

        :param key: anything that can be a key
        """
        with self._guard:
            lock, holders = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = lock, holders + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, holders = self._locks[key]
                if holders == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = lock, holders - 1

    def __len__(self) -> int:
        """Return how many locks are held or awaited."""
        return len(self._locks)

    def forget(self) -> None:
        """Begin anew, in a forked process: the threads that held locks are not there."""
        self._guard = threading.Lock()
        self._locks = {}


CREATING = KeyedLocks()

os.register_at_fork(after_in_child=CREATING.forget)
