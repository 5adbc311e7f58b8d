# SPDX-License-Identifier: Apache-2.0
"""Stores whose backend could not be reached when they were configured.

A mistake in the configuration disables a store. An outage does not: the store is configured again
on its next use.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

from glance_store import exceptions
from glance_store.location import one_line

LOG = logging.getLogger(__name__)

# Temporary failures. Drivers from outside raise any of these.
OUTAGES = (
    exceptions.TimeoutError,
    exceptions.RemoteServiceUnavailable,
    exceptions.BackendException,
    OSError,
)


class _Outage:
    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.attempts = 0  # failed attempts to configure the store again
        self.lock = threading.Lock()


class Outages:
    """The stores that must be configured before they can be used."""

    def __init__(self) -> None:
        self._outages: weakref.WeakKeyDictionary[Any, _Outage] = weakref.WeakKeyDictionary()

    def configure(self, store: Any, name: str, configure: Callable[[], None]) -> None:
        """Configure a store for the first time; remember it if its backend cannot be reached."""
        try:
            configure()
        except OUTAGES as exc:
            reason = one_line(exc)
            self._outages[store] = _Outage(reason)
            LOG.error(
                "Store %s cannot reach its backend and will try again on its next use: %s",
                name,
                reason,
            )

    def configure_again(self, store: Any, name: str, configure: Callable[[], None]) -> str | None:
        """Configure a store if that has failed so far; return why it still cannot be used."""
        outage = self._outages.get(store)
        if outage is None:
            return None
        seen = outage.attempts
        with outage.lock:
            if self._outages.get(store) is not outage:
                return None
            if outage.attempts != seen:
                # Another thread has just tried and failed: do not wait as long again.
                return outage.reason
            try:
                configure()
            except (*OUTAGES, exceptions.GlanceStoreException) as exc:
                outage.attempts += 1
                outage.reason = one_line(exc)
                return outage.reason
            del self._outages[store]
        LOG.info("Store %s can be used again: its backend is reachable", name)
        return None

    def after_fork(self) -> None:
        """Replace locks: the threads that held them do not exist in this process."""
        for outage in list(self._outages.values()):
            outage.lock = threading.Lock()
