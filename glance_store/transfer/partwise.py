# SPDX-License-Identifier: Apache-2.0
"""Copies within a backend, several parts at once."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

from glance_store.transfer.multipart import Plan
from glance_store.transfer.threads import Workers

LOG = logging.getLogger(__name__)


class CannotCopyError(Exception):
    """The backend cannot copy this part itself."""


class PartRange(NamedTuple):
    """A part of an image: its number (from 1), first byte, and the byte after its last."""

    number: int
    start: int
    stop: int


def part_ranges(plan: Plan, size: int) -> Iterator[PartRange]:
    """Yield the parts of an image of `size` bytes."""
    start = 0
    while start < size:
        stop = min(start + plan.size_at(start), size)
        yield PartRange(plan.number_at(start), start, stop)
        start = stop


def copy_parts(
    parts: Iterator[PartRange],
    copy: Callable[[PartRange], None],
    concurrency: int,
    progress: Callable[[int], None],
    interrupt: Callable[[], None],
) -> bool:
    """Copy parts within the backend. The first goes alone, to find out whether that works.

    :param parts: the parts of the image
    :param copy: copies one part; called on several threads; may raise `CannotCopyError`
    :param concurrency: maximum number of copies at once
    :param progress: called with the size of each part, on the caller's thread
    :param interrupt: called after a failure, to end running copies soon
    :returns: False if the backend cannot copy the image itself
    :raises Exception: the first failure, after all copies have ended
    """
    try:
        first = next(parts)
        copy(first)
        progress(first.stop - first.start)
        _copy_rest(parts, copy, concurrency, progress, interrupt)
    except CannotCopyError as exc:
        LOG.debug("The backend cannot copy the image itself: %s", exc)
        return False
    return True


def _copy_rest(
    parts: Iterator[PartRange],
    copy: Callable[[PartRange], None],
    concurrency: int,
    progress: Callable[[int], None],
    interrupt: Callable[[], None],
) -> None:
    workers = Workers(concurrency, "glance_store-copy")
    tasks: dict[concurrent.futures.Future[None], int] = {}
    try:
        for part in parts:
            tasks[workers.submit(copy, part)] = part.stop - part.start
        for task in concurrent.futures.as_completed(tasks):
            task.result()
            progress(tasks[task])
    except BaseException:
        interrupt()
        concurrent.futures.wait([task for task in tasks if not task.cancel()])
        raise
    finally:
        workers.close()
