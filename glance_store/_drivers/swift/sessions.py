# SPDX-License-Identifier: Apache-2.0
"""Sessions of accounts whose credentials are known, kept from one operation to the next."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from glance_store._drivers.swift.auth import SessionAccount

# Accounts that only locations name, and that are kept besides those of the configuration.
_KEPT = 32


class Sessions:
    """The accounts of a store, of its own in each process.

    Anybody who may add locations can name any number of accounts: of those only the ones that were
    used last are kept. What is dropped is closed by Python when its last user has let go of it.

    :param kept: accounts outside of the configuration that are kept
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        # By process, each with a lock of its own: a forked child must not use the connections that
        # it has inherited, and a lock may be held by a thread that it does not have.
        self._of_process: dict[int, _Accounts] = {}

    def get(self, key: Hashable, stays: bool, make: Callable[[], SessionAccount]) -> SessionAccount:
        """Return an account.

        :param key: tells it from all others
        :param stays: it is one of the configuration
        :param make: makes it, without a request
        """
        accounts = self._of_process.setdefault(os.getpid(), _Accounts(self._kept))
        return accounts.get(key, stays, make)


class _Accounts:
    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._staying: dict[Hashable, SessionAccount] = {}
        self._passing: OrderedDict[Hashable, SessionAccount] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, stays: bool, make: Callable[[], SessionAccount]) -> SessionAccount:
        with self._lock:
            account = self._staying.get(key) or self._passing.pop(key, None) or make()
            if stays or key in self._staying:
                self._staying[key] = account
            else:
                self._passing[key] = account
                if len(self._passing) > self._kept:
                    self._passing.popitem(last=False)
            return account
