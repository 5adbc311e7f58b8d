# SPDX-License-Identifier: Apache-2.0
"""Which way an upload to Swift goes, and into what segments."""

from __future__ import annotations

from typing import Any

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers import swift
from glance_store._drivers.swift import large, streamed, upload
from glance_store.transfer.multipart import MultipartWriter
from tests.drivers.swift.loopback import Account, client_of

MIB = 1024 * 1024
GIB = 1024 * MIB
# The unit of the options.
MB = 1000 * 1024
MOST = 9_999
ACCOUNT = {"auth_address": "http://127.0.0.1:1/v3", "user": "project:user", "key": "canary"}


@pytest.fixture(autouse=True)
def usual_cluster(monkeypatch) -> None:
    """The cluster says nothing of itself."""
    monkeypatch.setattr(large, "cluster_info", lambda _client, _patience: large.USUAL)


def make(**options: Any) -> swift.BaseStore:
    conf = cfg.ConfigOpts()
    swift.Store(conf, "swift")
    for name, value in {**ACCOUNT, **options}.items():
        known = name.startswith("swift")
        conf.set_override(name if known else f"swift_store_{name}", value, group="swift")
    store = swift.Store(conf, "swift")
    store.configure(re_raise_bsc=True)
    return store


def writer_of(store: swift.BaseStore, size: int, renewable: bool = True) -> Any:
    """Return what the store sends an image with."""
    account = Account("http://127.0.0.1:1/v1/AUTH_x", renewable)
    made = upload.Upload(
        client_of(account.url, account), "container", "image", lambda: False, verify=True
    )
    limit, segment = store._sizes(account)
    plan = store._plan(made, size, segment) if not size or size >= limit else None
    return store._writer(made, size, plan)


# -- which way an upload goes


@pytest.mark.parametrize(
    ("options", "size", "kind", "threads"),
    [
        # Options: MB of a segment, threads, MiB of memory. One is filled while others are sent.
        ((32, 4, 256), 10**9, MultipartWriter, 4),
        ((32, 8, 256), 10**9, MultipartWriter, 7),
        ((32, 8, 256), 0, MultipartWriter, 7),
        ((32, 4, 256), 40 * 10**6, MultipartWriter, 2),
        ((64, 4, 256), 10**9, MultipartWriter, 3),
        ((32, 1, 256), 10**9, MultipartWriter, 1),
        ((131, 4, 256), 10**9, MultipartWriter, 1),
        ((132, 4, 256), 10**9, streamed.StreamedWriter, 1),
        ((200, 4, 1300), 10**9, MultipartWriter, 4),
        ((1000, 4, 256), 0, streamed.StreamedWriter, 1),
        # So large that segments have to be larger than configured.
        ((32, 4, 256), 40 * MOST * MB, MultipartWriter, 4),
        ((32, 4, 256), 60 * MOST * MB, MultipartWriter, 3),
        ((32, 4, 256), 200 * MOST * MB, streamed.StreamedWriter, 1),
    ],
)
def test_memory_decides(options, size, kind, threads):
    chunk, wanted, memory = options
    store = make(
        large_object_size=1, large_object_chunk_size=chunk, thread_pool_size=wanted, memory=memory
    )
    made = writer_of(store, size)
    assert type(made) is kind
    assert made.concurrency == threads
    assert store._memory.size == memory * MIB
    # The blocks of others are few, and wait for nobody.
    assert getattr(made, "memory", None) is (store._memory if kind is MultipartWriter else None)
    if kind is MultipartWriter:
        assert (threads + 1) * made.block_size <= memory * MIB or threads == 1


def test_segments_that_go_through_a_file(tmp_path):
    options = {"swift_buffer_on_upload": True, "swift_upload_buffer_dir": str(tmp_path)}
    made = writer_of(make(large_object_size=1, **options), 10**9)
    assert type(made) is streamed.StreamedWriter
    assert made._folder == str(tmp_path)


@pytest.mark.parametrize("memory", [64, 256])
def test_segments_grow_as_far_as_they_can_be_held(memory):
    store = make(large_object_size=1, large_object_chunk_size=32, memory=memory)
    made = writer_of(store, 0)
    if memory == 64:
        assert 2 * 32 * MB <= 64 * MIB
    offset, blocks = 0, []
    while offset < 2 * 10**12 and len(blocks) < MOST:
        blocks.append(made.block_size_at(offset))
        offset += blocks[-1]
    assert blocks[0] == made.block_size == 32 * MB
    assert 2 * max(blocks) == memory * MIB


@pytest.mark.parametrize("size", [8 * MIB + 1, GIB])
def test_what_comes_in_is_sent_soon(size):
    """Swift ends a request when nothing comes for a minute: blocks may not be large."""
    store = make(large_object_size=5000)
    made = writer_of(store, size)
    assert type(made) is streamed.StreamedWriter
    assert made.block_size == MIB
    unknown = writer_of(store, 0)
    assert type(unknown) is streamed.StreamedWriter
    assert unknown.block_size == MIB


@pytest.mark.parametrize("size", [1, 8 * MIB])
def test_small_image_is_one_block_and_one_request(size):
    made = writer_of(make(), size)
    assert type(made) is MultipartWriter
    assert made.block_size == size
    assert made.concurrency == 1


# -- sizes: what the operator says, and what is done when he says nothing


def sizes_of(store: swift.BaseStore, size: int, renewable: bool = True) -> int | None:
    """Return the bytes of the first segment of an image; None: it is one object."""
    account = Account("http://127.0.0.1:1/v1/AUTH_x", renewable)
    limit, segment = store._sizes(account)
    return segment if not size or size >= limit else None


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({}, 64 * MIB - 1, None),
        ({}, 64 * MIB, 32 * MIB),
        ({}, 10 * GIB, 32 * MIB),
        ({}, 0, 32 * MIB),
        # One of both is enough: the other one is what it always was.
        ({"large_object_size": 5120}, 4 * GIB, None),
        ({"large_object_size": 5120}, 5 * 1024 * MB, 200 * MB),
        ({"large_object_size": 10}, 10 * MB - 1, None),
        ({"large_object_size": 10}, 10 * MB, 200 * MB),
        ({"large_object_chunk_size": 200}, 4 * GIB, None),
        ({"large_object_chunk_size": 200}, 5 * 1024 * MB, 200 * MB),
        ({"large_object_chunk_size": 50}, 0, 50 * MB),
        ({"large_object_size": 100, "large_object_chunk_size": 7}, 100 * MB, 7 * MB),
    ],
)
def test_sizes(options, size, expected):
    assert sizes_of(make(**options), size) == expected


@pytest.mark.parametrize("size", [10, 64 * MIB, 4 * GIB])
def test_image_is_one_object_where_the_token_cannot_be_renewed(size):
    """It has to be good at the beginning of each request."""
    assert sizes_of(make(), size, renewable=False) is None


def configured(tmp_path, text: str, backend: str | None) -> swift.BaseStore:
    file = tmp_path / "service.conf"
    file.write_text(text)
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(file)], project="x", prog="x")
    return swift.Store(conf, backend)


@pytest.mark.parametrize("name", ["size = 5120", "chunk_size = 200"])
@pytest.mark.parametrize(
    ("group", "backend"),
    [("glance_store", None), ("swift1", "swift1"), ("backend_defaults", "swift1")],
)
def test_values_in_a_file_count_as_set(tmp_path, group, backend, name):
    """Also the value that is the default."""
    text = f"[{group}]\nswift_store_large_object_{name}\n"
    assert sizes_of(configured(tmp_path, text, backend), GIB) is None


@pytest.mark.parametrize("backend", [None, "swift1"])
def test_values_elsewhere_do_not(tmp_path, backend):
    text = (
        "[another]\nswift_store_large_object_size = 5120\nswift_store_large_object_chunk_size=1\n"
    )
    assert sizes_of(configured(tmp_path, text, backend), GIB) == 32 * MIB


def test_known_size_that_is_too_large():
    store = make(large_object_size=1, large_object_chunk_size=200)
    with pytest.raises(exceptions.StorageFull, match="9999 parts"):
        writer_of(store, 5 * GIB * MOST + 1)


def test_no_segment_is_larger_than_an_object(monkeypatch):
    said = large.USUAL._replace(largest=GIB)
    monkeypatch.setattr(large, "cluster_info", lambda _client, _patience: said)
    store = make(large_object_size=1, large_object_chunk_size=2000, memory=8000)
    for size in (0, 10**10):
        assert writer_of(store, size).block_size == GIB
