# SPDX-License-Identifier: Apache-2.0
"""Holes: they take no room in the cluster, and are not fetched from it."""

from __future__ import annotations

import os

import pytest

from tests.drivers.rbd.conftest import MIB, Bed, add, locate, read

pytestmark = pytest.mark.services

OBJECTS = 300
# What opening an image costs, and asking which objects it has: counted in the same place.
OVERHEAD = 64 * 1024


def sparse_image() -> tuple[bytes, int]:
    """Return an image with 64 KiB of data in every tenth MiB, and how many bytes of it are data."""
    data = bytearray(OBJECTS * MIB + 11)
    count = 0
    for position in range(3, OBJECTS, 10):
        start = position * MIB + 16 * 1024 * (position % 7)
        data[start : start + 64 * 1024] = os.urandom(64 * 1024)
        count += 1
    return bytes(data), count


@pytest.mark.parametrize("features", ["61", "1"], ids=["object-map", "layering-alone"])
@pytest.mark.parametrize("size", [None, 0], ids=["known-size", "unknown-size"])
def test_holes_take_no_room_and_are_not_fetched(bed: Bed, features: str, size: int | None) -> None:
    conf = bed.ceph.client_conf("features.conf", rbd_default_features=features)
    store = bed.store(rbd_thin_provisioning=True, rbd_store_ceph_conf=str(conf))
    data, count = sparse_image()
    uri = add(store, data, size=size)
    with bed.image(uri.split("/")[-2], "snap") as image:
        prefix = image.block_name_prefix() + "."
    assert sum(item.key.startswith(prefix) for item in bed.pool.list_objects()) == count
    before = bed.served()
    assert read(store, uri) == data
    fetched = bed.served() - before
    assert count * 64 * 1024 <= fetched <= count * 64 * 1024 + OVERHEAD


def test_objects_of_an_erasure_coded_pool(bed: Bed) -> None:
    """There a read fetches all of an object that is there, and nothing of one that is not."""
    store = bed.store(rbd_thin_provisioning=True, rbd_store_data_pool=bed.ceph.data_pool)
    data, count = sparse_image()
    uri = add(store, data)
    before = bed.served()
    assert read(store, uri) == data
    assert bed.served() - before <= count * MIB + OVERHEAD


def test_ranges_of_holes(bed: Bed) -> None:
    store = bed.store(rbd_thin_provisioning=True)
    data, _count = sparse_image()
    uri = add(store, data)
    for start, length in ((0, 5 * MIB), (MIB - 1, 2), (3 * MIB - 7, MIB), (290 * MIB, 20 * MIB)):
        found = read(store, uri, offset=start, chunk_size=length)
        assert found == data[start : start + length]


def test_without_thin_provisioning_zeros_are_stored(bed: Bed) -> None:
    uri = add(bed.store(), bytes(3 * MIB))
    with bed.image(uri.split("/")[-2], "snap") as image:
        prefix = image.block_name_prefix() + "."
    assert sum(item.key.startswith(prefix) for item in bed.pool.list_objects()) == 3
    chunks, size = bed.store().get(locate(bed.store(), uri))
    assert (b"".join(chunks), size) == (bytes(3 * MIB), 3 * MIB)
