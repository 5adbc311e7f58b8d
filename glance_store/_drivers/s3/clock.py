# SPDX-License-Identifier: Apache-2.0
"""The time of the service, which need not be that of this host."""

from __future__ import annotations

import datetime

from glance_store.transfer.retry import moment_of

_SECOND = datetime.timedelta(seconds=1)


class ServiceClock:
    """Tells between which of the service's times something happened here.

    :param date: the service's time in one of its answers, in whole seconds
    :param asked: `time.monotonic()` before the request was sent
    :param answered: `time.monotonic()` when its answer had come
    """

    def __init__(self, date: datetime.datetime, asked: float, answered: float) -> None:
        self._date = date
        self._asked = asked
        self._answered = answered

    def span(self, begun: float, ended: float) -> tuple[datetime.datetime, datetime.datetime]:
        """Return the earliest and the latest time that the service may have noted for something.

        :param begun: `time.monotonic()` before it
        :param ended: `time.monotonic()` after it
        """
        # The date has lost less than a second, and what the service notes may be cut to a second
        # or rounded up to one.
        earliest = self._date + datetime.timedelta(seconds=begun - self._answered) - _SECOND
        latest = self._date + datetime.timedelta(seconds=ended - self._asked) + 2 * _SECOND
        return earliest, latest


def clock_of(text: str, asked: float, answered: float) -> ServiceClock | None:
    """Return the clock of the service; None if its answer does not tell the time.

    :param text: value of the header Date
    :param asked: `time.monotonic()` before the request was sent
    :param answered: `time.monotonic()` when the answer had come
    """
    date = moment_of(text)
    return None if date is None else ServiceClock(date, asked, answered)
