# SPDX-License-Identifier: Apache-2.0
"""Stores whose backends were out of reach when they were configured.

A mistake in the configuration disables a store; an outage does not: the store is configured again
when it is used next.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

from glance_store import exceptions

LOG = logging.getLogger(__name__)

# What passes by itself. Drivers from outside say it with any of these.
OUTAGES = (
    exceptions.TimeoutError,
    exceptions.RemoteServiceUnavailable,
    exceptions.BackendException,
    OSError,
)


def one_line(error: object) -> str:
    """Return the text of an error as one line of a log.

    :param error: an exception, or a text
    """
    return " ".join(str(getattr(error, "msg", error)).split())


class _Outage:
    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.attempts = 0  # to configure the store since then
        self.lock = threading.Lock()


class Outages:
    """The stores that have to be configured before they can be used."""

    def __init__(self) -> None:
        self._outages: weakref.WeakKeyDictionary[Any, _Outage] = weakref.WeakKeyDictionary()

    def configure(self, store: Any, name: str, configure: Callable[[], None]) -> None:
        """Configure a store for the first time; remember it when its backend is out of reach.

        :param store: the store
        :param name: of the store
        :param configure: does it
        """
        try:
            configure()
        except OUTAGES as exc:
            reason = one_line(exc)
            self._outages[store] = _Outage(reason)
            LOG.error(
                "Store %s cannot reach its backend, and tries again when it is used: %s",
                name,
                reason,
            )

    def configure_again(self, store: Any, name: str, configure: Callable[[], None]) -> str | None:
        """Configure a store if that has failed so far.

        :param store: the store
        :param name: of the store
        :param configure: does it
        :returns: why the store cannot be used yet; None when it can
        """
        outage = self._outages.get(store)
        if outage is None:
            return None
        seen = outage.attempts
        with outage.lock:
            if self._outages.get(store) is not outage:
                return None
            if outage.attempts != seen:
                # Another thread has just tried in vain: not once more as long.
                return outage.reason
            try:
                configure()
            except (*OUTAGES, exceptions.GlanceStoreException) as exc:
                outage.attempts += 1
                outage.reason = one_line(exc)
                return outage.reason
            del self._outages[store]
        LOG.info("Store %s can be used again: its backend is back", name)
        return None

    def after_fork(self) -> None:
        """Begin with new locks: the threads that held them are not in this process."""
        for outage in list(self._outages.values()):
            outage.lock = threading.Lock()
