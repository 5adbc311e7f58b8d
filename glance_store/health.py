# SPDX-License-Identifier: Apache-2.0
"""Health checks of stores. Each runs on its own thread, because a store may never answer."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store.capabilities import BitMasks
from glance_store.inventory import Capacity
from glance_store.location import one_line
from glance_store.transfer.threads import Workers

LOG = logging.getLogger(__name__)

_UNKNOWN = Capacity(None, None, None)
_EXPECTED = (exceptions.GlanceStoreException, exceptions.BackendException, OSError)


class Health(NamedTuple):
    """Result of a health check; `latency` is in seconds, None if the store did not answer."""

    healthy: bool
    text: str
    latency: float | None


def reason(exc: BaseException) -> str:
    """Describe an error of a store for an operator: one line, without secrets."""
    text = one_line(exc)
    return text if text and isinstance(exc, _EXPECTED) else f"{type(exc).__name__}: {text}"


def _ask(find: Callable[[], Any], describe: Callable[[BaseException], str]) -> Health:
    """Check the health of a store. May never return."""
    begun = time.monotonic()
    try:
        store = find()
        wrong = store.configuration_error
        if wrong is None:
            healthy, text = True, one_line(store.check_health())
        else:
            state = "read-only" if store.is_capable(BitMasks.READ_ACCESS) else "unusable"
            healthy, text = False, one_line(f"{state}: {wrong}")
    except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way
        healthy, text = False, describe(exc)
    return Health(healthy, text, round(time.monotonic() - begun, 3))


def _capacity_of(store: Any) -> Capacity:
    try:
        return store.capacity() or _UNKNOWN
    except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way
        LOG.debug("Cannot find out the capacity of a store: %s", reason(exc))
        return _UNKNOWN


class Probe:
    """One check of the health and the capacity of a store; `describe` words its errors."""

    def __init__(self, store: Any, describe: Callable[[BaseException], str] = reason) -> None:
        workers = Workers(1, "glance_store-health")
        self._health = workers.submit(_ask, lambda: store, describe)
        self._capacity = workers.submit(_capacity_of, store)
        workers.close()

    def result(self, deadline: float, limit: float) -> tuple[Health, Capacity]:
        """Return what the store has answered by `deadline` (monotonic clock).

        `limit`, the seconds it had, is for the text alone.
        """
        asked: list[concurrent.futures.Future[Any]] = [self._health, self._capacity]
        concurrent.futures.wait(asked, max(0.0, deadline - time.monotonic()))
        return (
            self._health.result() if self._health.done() else _silent(limit),
            self._capacity.result() if self._capacity.done() else _UNKNOWN,
        )


def _silent(seconds: float) -> Health:
    return Health(False, f"no answer in {seconds:g} s", None)


class _Question(NamedTuple):
    """A check by `Watch`: when it began, and when the answer came (empty until then)."""

    answer: concurrent.futures.Future[Health]
    begun: float
    ended: list[float]


class Watch:
    """Caches the health of a store, and checks it again when the answer is old.

    A store that does not answer delays callers only until `limit` has passed since the check began.
    After that it counts as unhealthy, without delay, until it answers.

    :param find: returns the store; called on the thread that checks it
    :param limit: seconds a check may take
    :param keep: seconds an answer stays valid
    """

    def __init__(self, find: Callable[[], Any], limit: float, keep: float) -> None:
        self._find = find
        self._limit = limit
        self._keep = keep
        self._workers = Workers(1, "glance_store-health")
        # By process: a forked child never gets the answers to its parent's checks.
        self._states: dict[int, _WatchState] = {}

    def ask(self) -> _Question:
        """Start a check unless one is running or its answer is still valid. Does not wait."""
        pid = os.getpid()
        state = self._states.get(pid) or self._states.setdefault(pid, _WatchState())
        with state.lock:
            last = state.question
            if last is None or (last.ended and time.monotonic() - last.ended[0] >= self._keep):
                ended: list[float] = []
                last = _Question(self._workers.submit(self._answer, ended), time.monotonic(), ended)
                state.question = last
            return last

    def _answer(self, ended: list[float]) -> Health:
        try:
            return _ask(self._find, reason)
        finally:
            ended.append(time.monotonic())

    def health(self, question: _Question) -> Health:
        """Wait for the answer to a question from `ask`, up to the limit."""
        rest = question.begun + self._limit - time.monotonic()
        concurrent.futures.wait([question.answer], max(0.0, rest))
        if question.answer.done():
            return question.answer.result()
        return _silent(max(self._limit, round(time.monotonic() - question.begun)))


class _WatchState:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.question: _Question | None = None
