# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a slow link, without a clock."""

from __future__ import annotations

import random

import pytest

from tests.faults.link import MEBIBYTE, Link


def test_without_limits_bytes_arrive_at_once() -> None:
    link = Link()
    assert link.instant
    assert [link.due(now, 10**6) for now in (5.0, 5.0, 7.0)] == [5.0, 5.0, 7.0]


def test_latency_delays_and_does_not_slow_down() -> None:
    link = Link(latency=0.5)
    assert not link.instant
    assert [link.due(now, 10**6) for now in (5.0, 5.0, 7.0)] == [5.5, 5.5, 7.5]


def test_bandwidth_lets_one_piece_after_the_other_through() -> None:
    link = Link(bandwidth=100.0)
    assert [link.due(0.0, 50), link.due(0.0, 50), link.due(0.2, 100)] == [0.5, 1.0, 2.0]


def test_idle_time_is_not_saved_up() -> None:
    link = Link(latency=1.0, bandwidth=100.0)
    assert link.due(0.0, 100) == 2.0
    assert link.due(50.0, 100) == 52.0


def test_a_late_look_is_made_up_for() -> None:
    # The bytes have waited since 0: when they left does not depend on who looks when.
    link = Link(bandwidth=100.0)
    assert [link.due(0.0, 10) for _piece in range(10)][-1] == pytest.approx(1.0)


def test_nothing_passes_before_the_link_opens() -> None:
    assert Link(latency=0.5, opens=9.0).due(3.0, 1) == 9.5


@pytest.mark.parametrize("bandwidth", [1.0, 1000.0, 40.0 * MEBIBYTE, 10_000.0 * MEBIBYTE])
def test_the_rate_of_random_pieces_is_the_bandwidth(bandwidth: float) -> None:
    numbers = random.Random(1)
    link = Link(bandwidth=bandwidth)
    sizes = [numbers.randint(1, link.piece) for _piece in range(1000)]
    dues = [link.due(0.0, size) for size in sizes]
    assert dues == sorted(dues)
    assert sum(sizes) / dues[-1] == pytest.approx(bandwidth)


@pytest.mark.parametrize("latency", [0.0, 0.01, 5.0])
@pytest.mark.parametrize("bandwidth", [None, 1.0, 1000.0, 40.0 * MEBIBYTE, 10_000.0 * MEBIBYTE])
def test_what_waits_is_enough_and_not_too_much(latency: float, bandwidth: float | None) -> None:
    link = Link(latency, bandwidth)
    assert 1 <= link.piece <= 256 * 1024
    assert link.capacity <= 32 * MEBIBYTE
    if bandwidth is not None and bandwidth * (latency + 0.1) < 32 * MEBIBYTE:
        # Otherwise the latency would lower the bandwidth.
        assert link.capacity >= int(bandwidth * latency)
