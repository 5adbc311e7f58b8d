# SPDX-License-Identifier: Apache-2.0
"""Stores on real file systems."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

import glance_store
from glance_store import location, registry
from glance_store._drivers.filesystem import Store
from tests.services.base import Unavailable
from tests.services.environments import debian_packages
from tests.services.fixtures import unavailable

MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Return a function that makes a configured store; keywords are options of the driver."""

    def make(configure: bool = True, **options: Any) -> Store:
        conf = cfg.ConfigOpts()
        store = Store(conf, "files")
        if "datadirs" in options:
            options.setdefault("datadir", "")
        options.setdefault("datadir", str(tmp_path / "images"))
        for name, value in options.items():
            full = name if name.startswith("filesystem_") else f"filesystem_store_{name}"
            conf.set_override(full, value, group="files")
        if configure:
            store.configure(re_raise_bsc=True)
        return store

    return make


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store()


def locate(store: Store, uri: str) -> location.Location:
    return location.Location("file", store.get_store_location_class(), store.conf, uri=uri)


def put(store: Store, image_id: str, data: bytes, size: int | None = None) -> str:
    """Store an image and return its location."""
    announced = len(data) if size is None else size
    return store.add(image_id, io.BytesIO(data), announced, "sha256")[0]


def fetch(store: Store, uri: str, **bounds: Any) -> bytes:
    chunks, _size = store.get(locate(store, uri), **bounds)
    return b"".join(chunks)


def listing(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def need(tool: str, package: str) -> str:
    """Return the path of a tool, installed if need be; else skip on a laptop and fail in CI."""
    try:
        debian_packages(package, probe=[tool])
    except Unavailable as exc:
        unavailable(str(exc))
    return str(shutil.which(tool))


@contextlib.contextmanager
def mounted(*command: str, at: Path) -> Iterator[Path]:
    """Mount something for the time of a test."""
    at.mkdir(exist_ok=True)
    done = subprocess.run([*command, str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"this user cannot mount file systems: {done.stderr.strip()}")
    try:
        yield at
    finally:
        # Without a look first: a bind mount does not show, and a test may have unmounted it.
        subprocess.run(["umount", "--lazy", str(at)], capture_output=True, check=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with mounted("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", at=tmp_path / "small") as path:
        yield path


@pytest.fixture
def without_tmpfile(tmp_path: Path) -> Iterator[Path]:
    """A file system that, like NFS, knows no files without a name."""
    need("bindfs", "bindfs")
    (tmp_path / "below").mkdir()
    with mounted("bindfs", str(tmp_path / "below"), at=tmp_path / "named") as path:
        with pytest.raises(OSError, match="supported"):
            os.open(path, os.O_TMPFILE | os.O_WRONLY)
        yield path


@pytest.fixture
def multi(tmp_path: Path) -> Callable[..., cfg.ConfigOpts]:
    """Return a function that creates several stores: {identifier: {option: value}}."""

    def create(**stores: dict[str, Any]) -> cfg.ConfigOpts:
        conf = cfg.ConfigOpts()
        conf.register_opt(cfg.DictOpt("enabled_backends"))
        conf.set_override("enabled_backends", dict.fromkeys(stores, "file"))
        glance_store.register_store_opts(conf)
        for identifier, options in stores.items():
            options.setdefault("filesystem_store_datadir", str(tmp_path / identifier))
            for name, value in options.items():
                conf.set_override(name, value, group=identifier)
        assert glance_store.create_multi_stores(conf) == 2 * len(stores)
        assert registry.failures() == {}
        return conf

    return create
