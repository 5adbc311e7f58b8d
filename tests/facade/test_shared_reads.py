# SPDX-License-Identifier: Apache-2.0
"""Stores whose downloads share what they read, as the image service uses them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from glance_store import backend, multi_backend
from glance_store.sharing import of_store

MIB = 1024 * 1024
DATA = os.urandom(9 * MIB) + bytes(2 * MIB)


def shared(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "shared").glob("*.image"))


def several_stores(tmp_path: Path, group: str) -> None:
    conf = cfg.ConfigOpts()
    conf([])
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    conf.set_override("enabled_backends", {"files": "file", "others": "file"})
    multi_backend.register_store_opts(conf)
    conf.set_override("default_backend", "files", group="glance_store")
    for name in ("files", "others"):
        conf.set_override("filesystem_store_datadir", str(tmp_path / name), group=name)
    of_store(conf, "files")  # has the options in [backend_defaults] as well
    conf.set_override("store_shared_reads_dir", str(tmp_path / "shared"), group=group)
    conf.set_override("store_shared_reads_min_size", 1, group=group)
    multi_backend.create_multi_stores(conf)


@pytest.mark.parametrize("group", ["files", "backend_defaults"])
def test_several_stores(tmp_path: Path, group: str) -> None:
    several_stores(tmp_path, group)
    for name in ("files", "others"):
        uri, *_rest = multi_backend.add(
            None, "an-image", io.BytesIO(DATA), len(DATA), name, verifier=None
        )
        for _time in range(2):
            chunks, size = multi_backend.get(uri, name)
            assert size == len(DATA)
            assert b"".join(chunks) == DATA
    assert len(shared(tmp_path)) == (1 if group == "files" else 2)
    multi_backend.delete(f"file://{tmp_path}/files/an-image", None)
    assert len(shared(tmp_path)) == (0 if group == "files" else 1)


def single_store(tmp_path: Path, folder: str) -> str:
    """Store an image; return its location."""
    conf = cfg.ConfigOpts()
    conf([])
    backend.register_opts(conf)
    options: dict[str, Any] = {
        "stores": ["file"],
        "filesystem_store_datadir": str(tmp_path / "images"),
        "store_shared_reads_dir": folder,
        "store_shared_reads_min_size": 1,
    }
    for name, value in options.items():
        conf.set_override(name, value, group="glance_store")
    backend.create_stores(conf)
    data = io.BytesIO(DATA)
    uri, *_rest = backend.add_to_backend(conf, "an-image", data, len(DATA), "file")
    return str(uri)


def test_a_single_store(tmp_path: Path) -> None:
    uri = single_store(tmp_path, str(tmp_path / "shared"))
    chunks, _size = backend.get_from_backend(uri)
    assert b"".join(chunks) == DATA
    [file] = shared(tmp_path)
    # Bytes that are shared are delivered, not those of the image.
    with open(tmp_path / "images" / "an-image", "r+b") as image:
        before = os.fstat(image.fileno())
        image.write(b"changed")
        image.flush()
        os.utime(image.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
    chunks, _size = backend.get_from_backend(uri)
    assert b"".join(chunks) == DATA
    backend.delete_from_backend(uri)
    assert not file.exists()


def test_a_relative_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = single_store(tmp_path, "shared")
    for _time in range(2):
        assert b"".join(backend.get_from_backend(uri)[0]) == DATA
    assert caplog.text.count("store_shared_reads_dir must be an absolute path") == 1
    assert not shared(tmp_path)
