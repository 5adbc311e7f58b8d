# SPDX-License-Identifier: Apache-2.0
"""How images are cut into parts."""

from __future__ import annotations

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.s3 import Store
from glance_store._drivers.s3.parts import GIB, MAX_PARTS, MIB, EqualParts, GrowingParts

TIB = 1024 * GIB


@pytest.mark.parametrize("chunk", [5 * MIB, 10 * MIB, 64 * MIB, 1000 * MIB, 5 * GIB])
def test_r215_growing_parts_reach_5_tib(chunk: int) -> None:
    plan = GrowingParts(chunk)
    offset = count = previous = 0
    while offset < 5 * TIB:
        size = plan.size_at(offset)
        assert previous <= size <= max(chunk, GIB)
        offset, count, previous = offset + size, count + 1, size
    assert count <= MAX_PARTS


def test_growing_parts_stay_small_for_usual_images() -> None:
    plan = GrowingParts(10 * MIB)
    assert {plan.size_at(number * 10 * MIB) for number in range(800)} == {10 * MIB}


def test_growing_parts_are_numbered_in_any_order() -> None:
    plan = GrowingParts(5 * MIB)
    offsets = [0]
    for _number in range(2000):
        offsets.append(offsets[-1] + plan.size_at(offsets[-1]))
    other = GrowingParts(5 * MIB)
    for number in (1500, 0, 1999, 7):
        assert other.number_at(offsets[number]) == number + 1


@pytest.mark.parametrize("size", [1, 10 * MIB, 98 * GIB, 5 * TIB, 5 * TIB - 1])
def test_equal_parts_suffice(size: int) -> None:
    plan = EqualParts(size, 10 * MIB)
    part = plan.size_at(0)
    assert part >= 10 * MIB
    assert -(-size // part) <= MAX_PARTS
    assert plan.number_at(0) == 1
    assert plan.number_at(3 * part) == 4


def configured_with(chunk: int) -> Store:
    conf = cfg.ConfigOpts()
    store = Store(conf, "objects")
    options = {
        "s3_store_host": "http://127.0.0.1",
        "s3_store_access_key": "access",
        "s3_store_secret_key": "secret",
        "s3_store_bucket": "images",
        "s3_store_large_object_chunk_size": chunk,
    }
    for name, value in options.items():
        conf.set_override(name, value, group="objects")
    store.configure(re_raise_bsc=True)
    return store


def test_largest_part_may_be_configured() -> None:
    pytest.importorskip("boto3")
    assert configured_with(5120).s3_store_large_object_chunk_size == 5 * GIB


@pytest.mark.parametrize("chunk", [5121, 1_000_000])
def test_part_that_no_service_takes_may_not(chunk: int) -> None:
    """It would fail at the first large image."""
    with pytest.raises(exceptions.BadStoreConfiguration, match=f"{chunk} MiB.*at most 5120 MiB"):
        configured_with(chunk)
