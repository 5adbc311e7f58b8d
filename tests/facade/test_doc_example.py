# SPDX-License-Identifier: Apache-2.0
"""The driver that the documentation shows works as it stands there."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stevedore.extension
from oslo_config import cfg

import glance_store
from glance_store import exceptions, location
from tests.conftest import build_wheel

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "doc" / "source" / "examples"
MIB = 1024 * 1024


@pytest.fixture
def store(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A configured store of the example, imported by its path, with room for 8 MiB."""
    spec = importlib.util.spec_from_file_location("memory_store", EXAMPLES / "memory_store.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "memory_store", module)
    spec.loader.exec_module(module)
    made = module.Store(conf, "scratch")
    conf.set_override("memory_store_limit", 8, group="scratch")
    made.configure(re_raise_bsc=True)
    return made


def image(size: int, *holes: tuple[int, int]) -> bytes:
    """Return the same bytes each time, with zeros from and to the given offsets."""
    data = bytearray(random.Random(size).randbytes(size))
    for start, end in holes:
        data[start:end] = bytes(end - start)
    return bytes(data)


def put(store: Any, image_id: str, data: bytes, size: int | None = None) -> str:
    announced = len(data) if size is None else size
    uri: str = store.add(image_id, io.BytesIO(data), announced, "sha512")[0]
    return uri


def locate(store: Any, uri: str) -> location.Location:
    return location.Location("memory", store.get_store_location_class(), store.conf, uri=uri)


def read(store: Any, uri: str, **bounds: int) -> bytes:
    chunks, size = store.get(locate(store, uri), **bounds)
    data = b"".join(chunks)
    assert size == len(data)
    return data


def is_stored(store: Any, image_id: str) -> bool:
    try:
        store.get_size(locate(store, f"memory://scratch/{image_id}"))
    except exceptions.NotFound:
        return False
    return True


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 7])
def test_round_trip(store: Any, size: int, known: bool) -> None:
    data = image(size)
    result = store.add("one", io.BytesIO(data), size if known else 0, "sha512")
    assert result == (
        "memory://scratch/one",
        size,
        hashlib.md5(data).hexdigest(),
        hashlib.sha512(data).hexdigest(),
        {"store": "scratch"},
    )
    assert read(store, result[0]) == data
    assert store.get_size(locate(store, result[0])) == size
    assert result[0].startswith(store.url_prefix)


@pytest.mark.parametrize(
    "hole", [(0, 5 * MIB), (0, 2 * MIB), (MIB, 3 * MIB), (3 * MIB, 5 * MIB), (100_000, 200_000)]
)
def test_zeros_are_read_back(store: Any, hole: tuple[int, int]) -> None:
    data = image(5 * MIB, hole)
    assert read(store, put(store, "one", data)) == data


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (7, 4 * MIB), (5 * MIB - 1, 10), (5 * MIB, 10), (6 * MIB, 1), (3, 0)],
)
def test_range(store: Any, offset: int, length: int) -> None:
    data = image(5 * MIB)
    uri = put(store, "one", data)
    expected = data[offset : offset + length] if length else data[offset:]
    assert read(store, uri, offset=offset, chunk_size=length) == expected


def test_duplicate_leaves_the_first_image(store: Any) -> None:
    uri = put(store, "one", b"first")
    with pytest.raises(exceptions.Duplicate):
        put(store, "one", b"second")
    assert read(store, uri) == b"first"


def test_of_two_uploads_at_a_time_one_wins(store: Any) -> None:
    def data() -> Iterator[bytes]:
        yield b"late"
        # Another upload of the same id begins later and ends first.
        put(store, "one", b"quick")

    with pytest.raises(exceptions.Duplicate):
        store.add("one", data(), 0, "sha512")
    assert read(store, "memory://scratch/one") == b"quick"


def test_delete(store: Any) -> None:
    uri = put(store, "one", b"data")
    store.delete(locate(store, uri))
    assert not is_stored(store, "one")
    with pytest.raises(exceptions.NotFound):
        store.delete(locate(store, uri))
    put(store, "one", b"again")


@pytest.mark.parametrize("announced", [3 * MIB - 1, 3 * MIB + 1])
def test_wrong_size_leaves_nothing(store: Any, announced: int) -> None:
    with pytest.raises(exceptions.Invalid, match=r"^Size (exceeds|mismatch): expected"):
        put(store, "one", image(3 * MIB), announced)
    assert not is_stored(store, "one")
    put(store, "one", b"the id is free")


def test_failing_source_leaves_nothing(store: Any) -> None:
    def data() -> Iterator[bytes]:
        yield image(3 * MIB)
        raise ConnectionResetError("the client has gone")

    with pytest.raises(ConnectionResetError, match="the client has gone"):
        store.add("one", data(), 0, "sha512")
    assert not is_stored(store, "one")


@pytest.mark.parametrize("known", [True, False])
def test_full_store_leaves_nothing(store: Any, known: bool) -> None:
    put(store, "one", image(5 * MIB))
    data = image(4 * MIB)
    with pytest.raises(exceptions.StorageFull, match="memory_store_limit is 8 MiB"):
        put(store, "two", data, len(data) if known else 0)
    assert not is_stored(store, "two")
    put(store, "two", image(3 * MIB))


@pytest.mark.parametrize("image_id", ["", "a/b"])
def test_id_that_cannot_be_part_of_a_location(store: Any, image_id: str) -> None:
    with pytest.raises(exceptions.Invalid):
        put(store, image_id, b"data")


@pytest.mark.parametrize("uri", ["memory://", "memory://scratch", "memory://scratch/", "file:///a"])
def test_malformed_location(store: Any, uri: str) -> None:
    with pytest.raises(exceptions.BadStoreUri):
        locate(store, uri)


def test_location_of_another_store(store: Any) -> None:
    put(store, "one", b"data")
    with pytest.raises(exceptions.NotFound):
        store.get(locate(store, "memory://elsewhere/one"))


def test_installed_as_a_distribution(
    conf: cfg.ConfigOpts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(build_wheel(EXAMPLES, tmp_path)) as wheel:
        wheel.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    # Entry points are looked up once in a process; here the installed distributions change.
    monkeypatch.setattr(stevedore.extension.ExtensionManager, "ENTRY_POINT_CACHE", {})
    monkeypatch.delitem(sys.modules, "memory_store", raising=False)
    conf.set_override("enabled_backends", {"scratch": "memory"})
    glance_store.register_store_opts(conf)
    conf.set_override("default_backend", "scratch", group="glance_store")
    try:
        assert glance_store.create_multi_stores(conf) == 1
        glance_store.verify_store()
        uri = glance_store.add(conf, "one", io.BytesIO(b"data"), 4, None)[0]
        chunks, size = glance_store.get(uri, "scratch", offset=1)
        assert (b"".join(chunks), size) == (b"ata", 3)
        glance_store.delete(uri, "scratch")
        with pytest.raises(exceptions.NotFound):
            glance_store.get(uri, "scratch")
    finally:
        sys.modules.pop("memory_store", None)


def test_used_as_the_tutorial_does(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(EXAMPLES, tmp_path)) as wheel:
        wheel.extractall(tmp_path / "site")
    run = subprocess.run(
        [sys.executable, EXAMPLES / "use_memory_store.py"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"},
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == ("memory://scratch/first 21 {'store': 'scratch'}\nb'bytes' 5\n")
