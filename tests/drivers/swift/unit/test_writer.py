# SPDX-License-Identifier: Apache-2.0
"""Which way an upload to Swift goes, into what segments, and in which order."""

from __future__ import annotations

import itertools
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers import swift
from glance_store._drivers.swift import manifest, publish, segments, sizes, writer

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
GIB = 1024 * MIB
# The unit of the options.
MB = 1000 * 1024
MOST = 9_999


def make(**options: Any) -> swift.BaseStore:
    conf = cfg.ConfigOpts()
    swift.Store(conf, "swift")
    values = {"auth_address": "http://127.0.0.1:1/v3", "user": "project:user", "key": "canary"}
    for name, value in {**values, "large_object_size": 1, **options}.items():
        conf.set_override(f"swift_store_{name}", value, group="swift")
    store = swift.Store(conf, "swift")
    store.configure(re_raise_bsc=True)
    return store


def name_of(image: str = "image", container: str = "container") -> publish.Name:
    account = types.SimpleNamespace(url="http://swift/v1/AUTH_x")
    return publish.Name(types.SimpleNamespace(account=account), container, image)


def shared() -> tuple[Any, ...]:
    return name_of(), "uri", False, lambda: None


def segmented(store: swift.BaseStore, size: int) -> Any:
    plan = store._plan(name_of(), size, manifest.USUAL)
    return store._segmented(shared(), size, plan)


# -- which way an upload goes


@pytest.mark.parametrize(
    ("options", "size", "kind", "threads"),
    [
        # Options: MB of a segment, threads, MiB of memory.
        ((32, 4, 256), 10**9, writer.SegmentedWriter, 4),
        ((32, 8, 256), 10**9, writer.SegmentedWriter, 6),
        ((32, 8, 256), 0, writer.SegmentedWriter, 6),
        ((32, 4, 256), 40 * 10**6, writer.SegmentedWriter, 2),
        ((64, 4, 256), 10**9, writer.SegmentedWriter, 2),
        ((32, 1, 256), 10**9, writer.SegmentedWriter, 1),
        ((200, 4, 256), 10**9, writer.StreamedSegmentsWriter, 1),
        ((200, 4, 1300), 10**9, writer.SegmentedWriter, 4),
        ((1000, 4, 256), 0, writer.StreamedSegmentsWriter, 1),
        # So large that segments have to be larger than configured.
        ((32, 4, 256), 40 * MOST * MB, writer.SegmentedWriter, 4),
        ((32, 4, 256), 60 * MOST * MB, writer.SegmentedWriter, 2),
        ((32, 4, 256), 200 * MOST * MB, writer.StreamedSegmentsWriter, 1),
    ],
)
def test_memory_decides(options, size, kind, threads):
    chunk, wanted, memory = options
    store = make(large_object_chunk_size=chunk, thread_pool_size=wanted, upload_memory=memory)
    made = segmented(store, size)
    assert type(made) is kind
    if isinstance(made, writer.SegmentedWriter):
        assert made.blocks_held == threads + 2
        assert made.concurrency == (threads + 2 if threads > 1 else 1)
        assert made.blocks_held * made.block_size <= memory * MIB
    else:
        assert made.concurrency == 1
        segment = max(chunk * MB, -(-size // MOST))
        assert made._in_order.keeps(segment) == (segment + 8 * MIB <= memory * MIB)


@pytest.mark.parametrize("threads", [1, 4])
def test_grown_segments_are_held_only_where_they_fit(threads):
    store = make(large_object_chunk_size=32, thread_pool_size=threads, upload_memory=256)
    made = segmented(store, 0)
    offset, blocks = 0, []
    while offset < 3 * 10**12:
        blocks.append(made.block_size_at(offset))
        offset += blocks[-1]
    assert blocks[0] == made.block_size == 32 * MB
    assert max(blocks) == 64 * MB
    # Three of the largest fit; the engine counts their bytes, and lets one pass alone if need be.
    assert 3 * max(blocks) <= 256 * MIB
    # Behind them segments are larger, and come in blocks as at first.
    assert blocks[-1] == 32 * MB
    assert made._first_large() == sum(blocks[: blocks.index(64 * MB)]) + 64 * MB * blocks.count(
        64 * MB
    )


@pytest.mark.parametrize("size", [8 * MIB + 1, GIB])
def test_what_comes_in_is_sent_soon(size):
    """Swift ends a request when nothing comes for a minute: blocks may not be large."""
    store = make(large_object_size=5000)
    assert store._single(shared(), size).block_size == MIB
    assert segmented(store, 0).block_size == MIB


# -- sizes of segments


def cut(plan: sizes.Plan, size: int) -> Iterator[int]:
    """Yield the sizes of the segments of an image, and check their numbers."""
    offset = number = 0
    while offset < size:
        number += 1
        assert plan.number_at(offset) == number
        yield plan.size_at(offset)
        offset += plan.size_at(offset)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, 200 * MB),
        (200 * MB * MOST, 200 * MB),
        (200 * MB * MOST + 1, 200 * MB + 1),
        (5 * GIB * MOST, 5 * GIB),
    ],
)
def test_known_sizes(size, expected):
    plan = sizes.plan(size, 200 * MB, MOST, 5 * GIB)
    assert plan.size_at(0) == plan.size_at(expected) == expected
    assert plan.number_at(expected) == 2
    assert -(-size // expected) <= MOST


def test_known_size_that_is_too_large():
    with pytest.raises(exceptions.StorageFull, match="9999 segments"):
        sizes.plan(5 * GIB * MOST + 1, 200 * MB, MOST, 5 * GIB)


@pytest.mark.parametrize("chunk", [MB, 32 * MB, 200 * MB, 5 * GIB])
@pytest.mark.parametrize("most", [2, 8, 999, MOST])
def test_unknown_sizes(chunk, most):
    plan = sizes.plan(0, chunk, most, 5 * GIB)
    every = list(itertools.islice(cut(plan, 10**18), most))
    with pytest.raises(exceptions.StorageFull):
        plan.number_at(sum(every))
    assert set(every[: most // 2]) == {chunk}
    assert every == sorted(every)
    assert max(every) <= 5 * GIB
    if most == MOST:
        # More than anybody stores without knowing how much it is.
        assert sum(every) > 4 * 1024 * GIB
        # A segment is never much of the image.
        assert max(every[number] / sum(every[: number + 1]) for number in range(100, most)) < 0.01


def test_numbers_in_any_order():
    plan = sizes.plan(0, 10, 40, 1000)
    offsets = [0]
    for size in cut(plan, 2000):
        offsets.append(offsets[-1] + size)
    again = sizes.plan(0, 10, 40, 1000)
    for number in (30, 3, 25, 1):
        assert again.number_at(offsets[number - 1]) == number


def test_no_segment_is_larger_than_an_object():
    for size in (0, 10**9):
        assert sizes.plan(size, 2 * GIB, MOST, GIB).size_at(0) == GIB


# -- how many segments


LIMITS = manifest.Limits(1000, 2 * MIB, 1)


@pytest.mark.parametrize(
    ("cluster", "segment", "expected"),
    [
        (manifest.USUAL, MB, 9_999),
        (manifest.Cluster(LIMITS, 10_000, GIB), MB, 9_999),
        (manifest.Cluster(LIMITS, 500, GIB), MB, 1000),
        (manifest.Cluster(LIMITS._replace(smallest_segment=MB + 1), 500, GIB), MB, 499),
        (manifest.Cluster(LIMITS._replace(segments=20_000), 10_000, GIB), MB, 13_025),
    ],
)
def test_number_of_segments(cluster, segment, expected):
    """As many as one of both kinds of large objects takes, also by the size of the manifest."""
    assert cluster.most(name_of("i" * 36, "c" * 10), segment) == expected


def test_entries_of_a_manifest_are_not_longer_than_expected(monkeypatch):
    monkeypatch.setattr(manifest, "_CLUSTERS", {})
    name = name_of('a "name" with \u00e4', "con\u00fctainer")
    found = manifest.Manifest(name)
    for number in range(1, 5):
        found.attempt(number)
        found.stored(number, "f" * 32, 5 * GIB)
    whole = found._stored[1], found._stored[2], found._stored[3], found._stored[4]
    name.client.info = lambda: types.SimpleNamespace(status=200, data=b'{"slo": {}}')
    body = found._static(list(whole))
    assert body is not None
    assert len(body) <= 4 * manifest._entry_bytes(name) + 2


# -- blocks in order


class Segments(segments.InOrder):
    """Notes what it gets, and fails at an offset."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.offsets: list[int] = []
        self._fails_at = fails_at

    def write(self, offset: int, block: memoryview) -> None:
        if offset == self._fails_at:
            raise exceptions.StorageFull
        self.offsets.append(offset)


@pytest.mark.parametrize("fails_at", [None, 100, 130])
def test_blocks_are_handed_on_in_order(fails_at):
    """Whoever waits behind one that fails gets its error, and does not wait for ever."""
    found = Segments(fails_at)
    in_turn = segments.InTurn(found, lambda: 100)
    errors: dict[int, BaseException] = {}

    def write(offset: int) -> None:
        try:
            in_turn.write(offset, memoryview(bytes(10)))
        except exceptions.StorageFull as exc:
            errors[offset] = exc

    offsets = [100, 110, 120, 130, 140]
    threads = [threading.Thread(target=write, args=(offset,)) for offset in reversed(offsets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    before = [offset for offset in offsets if fails_at is None or offset < fails_at]
    assert found.offsets == before
    assert sorted(errors) == [offset for offset in offsets if offset not in before]
    assert len(set(map(id, errors.values()))) <= 1
