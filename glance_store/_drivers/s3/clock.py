# SPDX-License-Identifier: Apache-2.0
"""The service's time, which may differ from this host's."""

from __future__ import annotations

import datetime

from glance_store.transfer.retry import moment_of

_SECOND = datetime.timedelta(seconds=1)


class ServiceClock:
    """Converts times measured on this host to the service's time.

    `date` is the service's time in one of its responses, in whole seconds. `asked` and `answered`
    are `time.monotonic()` before the request and after its response.
    """

    def __init__(self, date: datetime.datetime, asked: float, answered: float) -> None:
        self._date = date
        self._asked = asked
        self._answered = answered

    def span(self, begun: float, ended: float) -> tuple[datetime.datetime, datetime.datetime]:
        """Return the earliest and the latest time the service may have recorded for an event.

        `begun` and `ended` are `time.monotonic()` before and after the event.
        """
        # The date is cut to whole seconds, and the service may cut or round up the times it
        # records.
        earliest = self._date + datetime.timedelta(seconds=begun - self._answered) - _SECOND
        latest = self._date + datetime.timedelta(seconds=ended - self._asked) + 2 * _SECOND
        return earliest, latest


def clock_of(text: str, asked: float, answered: float) -> ServiceClock | None:
    """Return the service's clock from a Date header; None if the header has no time."""
    date = moment_of(text)
    return None if date is None else ServiceClock(date, asked, answered)
