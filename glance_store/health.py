# SPDX-License-Identifier: Apache-2.0
"""How stores are. They are asked in threads, all at the same time: one may never answer."""

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
    """How a store is: whether well, what to say of it, and the seconds that it took to find out."""

    healthy: bool
    text: str
    latency: float | None


def reason(exc: BaseException) -> str:
    """Return what an operator should read about an error of a store: one line, without secrets."""
    text = one_line(str(exc))
    return text if text and isinstance(exc, _EXPECTED) else f"{type(exc).__name__}: {text}"


def _ask(find: Callable[[], Any], describe: Callable[[BaseException], str]) -> Health:
    """Ask a store how it is, and wait for the answer, which may never come."""
    begun = time.monotonic()
    try:
        store = find()
        wrong = store.configuration_error
        if wrong is None:
            healthy, text = True, one_line(str(store.check_health()))
        else:
            state = "read-only" if store.is_capable(BitMasks.READ_ACCESS) else "unusable"
            healthy, text = False, one_line(f"{state}: {wrong}")
    except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way
        healthy, text = False, describe(exc)
    return Health(healthy, text, round(time.monotonic() - begun, 3))


def _room_of(store: Any) -> Capacity:
    try:
        return store.capacity() or _UNKNOWN
    except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way
        LOG.debug("The room of a store is not known: %s", reason(exc))
        return _UNKNOWN


class Probe:
    """Asks a store once how it is and what room it has.

    :param store: the store
    :param describe: says what is wrong
    """

    def __init__(self, store: Any, describe: Callable[[BaseException], str] = reason) -> None:
        workers = Workers(1, "glance_store-health")
        self._health = workers.submit(_ask, lambda: store, describe)
        self._room = workers.submit(_room_of, store)
        workers.close()

    def result(self, deadline: float, limit: float) -> tuple[Health, Capacity]:
        """Return how the store is, as far as it has answered.

        :param deadline: until when it may take, on the monotonic clock
        :param limit: seconds that it has had, for the text
        """
        asked: list[concurrent.futures.Future[Any]] = [self._health, self._room]
        concurrent.futures.wait(asked, max(0.0, deadline - time.monotonic()))
        return (
            self._health.result() if self._health.done() else _silent(limit),
            self._room.result() if self._room.done() else _UNKNOWN,
        )


def _silent(seconds: float) -> Health:
    return Health(False, f"no answer in {seconds:g} s", None)


class _Question(NamedTuple):
    """A probe of a `Watch`, when it began, and when the answer came, once it has."""

    answer: concurrent.futures.Future[Health]
    begun: float
    came: list[float]


class Watch:
    """Knows how a store is, and asks it again when the answer is old.

    A store that does not answer makes those who ask wait once, until the limit has passed since it
    was asked. From then on it is not well, at once, until it does answer.

    :param find: returns the store; called in the thread that asks it
    :param limit: seconds that it may take
    :param keep: seconds for which an answer is good
    """

    def __init__(self, find: Callable[[], Any], limit: float, keep: float) -> None:
        self._find = find
        self._limit = limit
        self._keep = keep
        self._workers = Workers(1, "glance_store-health")
        # A forked child does not hear what its parent has asked.
        self._states: dict[int, _WatchState] = {}

    def ask(self) -> _Question:
        """Ask the store, unless there is a good answer or one is on its way. Does not wait."""
        pid = os.getpid()
        state = self._states.get(pid) or self._states.setdefault(pid, _WatchState())
        with state.lock:
            last = state.question
            if last is None or (last.came and time.monotonic() - last.came[0] >= self._keep):
                came: list[float] = []
                last = _Question(self._workers.submit(self._answer, came), time.monotonic(), came)
                state.question = last
            return last

    def _answer(self, came: list[float]) -> Health:
        try:
            return _ask(self._find, reason)
        finally:
            came.append(time.monotonic())

    def health(self, question: _Question) -> Health:
        """Return how the store is.

        :param question: what `ask` returned
        """
        rest = question.begun + self._limit - time.monotonic()
        concurrent.futures.wait([question.answer], max(0.0, rest))
        if question.answer.done():
            return question.answer.result()
        return _silent(max(self._limit, round(time.monotonic() - question.begun)))


class _WatchState:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.question: _Question | None = None
