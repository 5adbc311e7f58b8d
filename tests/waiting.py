# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

# Long for what takes a moment: a machine that does three things at once is slow, not wrong.
PATIENCE = 60.0


def until(
    condition: Callable[[], object],
    what: str | Callable[[], str],
    seconds: float = PATIENCE,
    pause: float = 0.02,
) -> None:
    """Wait until a condition holds.

    :param condition: asked again and again
    :param what: says what is waited for, or what there is instead, to those who wait in vain
    :param seconds: how long
    :param pause: seconds between two questions
    :raises AssertionError: it does not come about
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {seconds:.0f} s: {text}")
        time.sleep(pause)
