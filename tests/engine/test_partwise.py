# SPDX-License-Identifier: Apache-2.0
"""Copies that a backend makes part by part: all of them, the first alone, and what ends them."""

from __future__ import annotations

import threading

import pytest

from glance_store.transfer.multipart import EqualParts
from glance_store.transfer.partwise import CannotCopyError, PartRange, copy_parts, part_ranges


class Limits:
    most = 100
    largest = 1000


class Backend:
    """Notes which parts are copied, and fails at some."""

    def __init__(self, failures: dict[int, Exception] | None = None) -> None:
        self.failures = failures or {}
        self.copied: list[int] = []
        self.threads: dict[int, threading.Thread] = {}
        self.interrupted = threading.Event()

    def copy(self, part: PartRange) -> None:
        self.threads[part.number] = threading.current_thread()
        if part.number in self.failures:
            raise self.failures[part.number]
        self.copied.append(part.number)

    def run(self, size: int, steps: list[int], threads: int = 3) -> bool:
        parts = part_ranges(EqualParts(10, Limits(), size), size)
        return copy_parts(parts, self.copy, threads, steps.append, self.interrupted.set)


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (1, [PartRange(1, 0, 1)]),
        (10, [PartRange(1, 0, 10)]),
        (25, [PartRange(1, 0, 10), PartRange(2, 10, 20), PartRange(3, 20, 25)]),
    ],
)
def test_the_parts_of_an_image(size, parts):
    assert list(part_ranges(EqualParts(10, Limits(), size), size)) == parts


@pytest.mark.parametrize("size", [1, 10, 11, 95])
def test_all_parts_are_copied(size):
    backend, steps = Backend(), []
    assert backend.run(size, steps)
    assert sorted(backend.copied) == list(range(1, -(-size // 10) + 1))
    assert sum(steps) == size
    # The first one shows whether it works: no thread is started for it.
    assert backend.threads[1] is threading.current_thread()
    assert not backend.interrupted.is_set()


@pytest.mark.parametrize("number", [1, 4])
def test_a_backend_that_cannot(number):
    backend = Backend({number: CannotCopyError("no")})
    assert backend.run(95, []) is False
    assert number not in backend.copied
    assert backend.interrupted.is_set() is (number > 1)


@pytest.mark.parametrize("number", [1, 4])
def test_a_failure_ends_it(number):
    backend = Backend({number: OSError("broken")})
    with pytest.raises(OSError, match="broken"):
        backend.run(95, [], threads=1)
    assert number not in backend.copied


def test_an_interrupt_waits_for_those_under_way():
    """Whoever cleans up after it meets no part that is still being copied."""
    busy, release = threading.Barrier(3), threading.Event()
    ended: list[int] = []

    def copy(part):
        if part.number > 2:
            busy.wait(60)
            assert release.wait(60)
            ended.append(part.number)

    def progress(_length):
        if progress.steps:
            # The second part is copied, and the two that follow are under way.
            busy.wait(60)
            raise KeyboardInterrupt
        progress.steps += 1

    progress.steps = 0
    parts = part_ranges(EqualParts(10, Limits(), 40), 40)
    with pytest.raises(KeyboardInterrupt):
        copy_parts(parts, copy, 3, progress, release.set)
    assert sorted(ended) == [3, 4]
