# SPDX-License-Identifier: Apache-2.0
"""Copies that a backend makes by itself, part by part, several parts at once."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

from glance_store.transfer.multipart import Plan
from glance_store.transfer.threads import Workers

LOG = logging.getLogger(__name__)


class CannotCopyError(Exception):
    """The backend does not copy this part by itself."""


class PartRange(NamedTuple):
    """A part of an image: its number, from 1, its first byte, and the one behind its last."""

    number: int
    start: int
    stop: int


def part_ranges(plan: Plan, size: int) -> Iterator[PartRange]:
    """Yield the parts of an image.

    :param plan: of their sizes
    :param size: bytes of the image
    """
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
    """Have parts copied; the first one alone, as it shows whether that works.

    :param parts: those of the image
    :param copy: has one copied; called in several threads; raises `CannotCopyError`
    :param concurrency: how many at once
    :param progress: called with the bytes of each, in the caller's thread
    :param interrupt: called on a failure, so that those that are under way end soon
    :returns: False: the backend cannot do it
    :raises Exception: the first failure, when no `copy` runs any more
    """
    try:
        first = next(parts)
        copy(first)
        progress(first.stop - first.start)
        _copy_rest(parts, copy, concurrency, progress, interrupt)
    except CannotCopyError as exc:
        LOG.debug("The backend does not copy the image by itself: %s", exc)
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
