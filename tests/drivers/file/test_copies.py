# SPDX-License-Identifier: Apache-2.0
"""The kernel copies an image file to another store, all of it or nothing."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from glance_store import exceptions

from .conftest import fetch, locate, put

MIB = 1024 * 1024


@pytest.fixture
def stores(make_store, tmp_path):
    """Return a function that makes two stores, the second one with these options."""

    def make(**options):
        return make_store(), make_store(datadir=str(tmp_path / "copies"), **options)

    return make


def sparse_file(path: Path, size: int) -> bytes:
    """Write a file with a megabyte of data at each end and one in the middle."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        for offset in (0, size // 2, size - MIB):
            file.seek(offset)
            file.write(random.Random(offset).randbytes(MIB))
    return path.read_bytes()


def copy(source, target, image_id="image", progress=None):
    location = locate(source, f"file://{source.datadir}/image")
    return target.copy_from(source, location, image_id, progress or [].append)


@pytest.mark.parametrize(
    "options",
    [
        {"filesystem_thin_provisioning": True},
        {"filesystem_thin_provisioning": True, "timeout": 30},
        {},
        {"fsync": False, "timeout": 30},
    ],
)
def test_all_bytes_and_holes(stores, tmp_path, options):
    """Holes stay, unless space is set aside; progress counts all bytes."""
    source, target = stores(**options)
    data = sparse_file(tmp_path / "images" / "image", 40 * MIB)
    steps = []
    uri, size, metadata = copy(source, target, progress=steps.append)
    assert (uri, size) == (f"file://{tmp_path}/copies/image", len(data))
    assert metadata == {"store": "files"}
    assert sum(steps) == size
    assert fetch(target, uri) == data
    used = (tmp_path / "copies" / "image").stat().st_blocks * 512
    assert (used < 10 * MIB) is target.thin_provisioning
    assert os.listdir(tmp_path / "copies") == ["image"]


@pytest.mark.parametrize("data", [b"", b"x", bytes(MIB)])
def test_small_ones(stores, data):
    source, target = stores()
    put(source, "image", data)
    uri, size, _metadata = copy(source, target)
    assert size == len(data)
    assert fetch(target, uri) == data


def test_no_image_is_overwritten(stores):
    source, target = stores()
    put(source, "image", b"data")
    uri = put(target, "image", b"other")
    with pytest.raises(exceptions.Duplicate):
        copy(source, target)
    with pytest.raises(exceptions.Duplicate):
        copy(source, source)
    assert fetch(target, uri) == b"other"


def test_no_image(stores, tmp_path):
    source, target = stores()
    with pytest.raises(exceptions.NotFound):
        copy(source, target)
    assert os.listdir(tmp_path / "copies") == []


def test_a_store_that_is_read_only(stores):
    source, target = stores()
    put(source, "image", b"data")
    target.disable_writes("so it is")
    with pytest.raises(exceptions.StoreAddDisabled):
        copy(source, target)


@pytest.mark.parametrize("timeout", [0, 30])
def test_what_ends_it_leaves_nothing(stores, tmp_path, timeout):
    source, target = stores(timeout=timeout)
    put(source, "image", bytes(3 * MIB))

    def stop(_length):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(source, target, progress=stop)
    assert os.listdir(tmp_path / "copies") == []


@pytest.mark.parametrize(
    "number", [errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO, 524, 0]
)
def test_a_kernel_that_cannot(stores, tmp_path, monkeypatch, number):
    """Also when it says so in the middle, or copies nothing and gives no reason."""
    source, target = stores(filesystem_thin_provisioning=True)
    sparse_file(tmp_path / "images" / "image", 40 * MIB)
    really = os.copy_file_range
    calls = []

    def copy_file_range(*args):
        calls.append(args)
        if len(calls) == 1:
            return really(*args)
        if number:
            raise OSError(number, os.strerror(number))
        return 0

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    assert copy(source, target) is None
    assert len(calls) == 2
    assert os.listdir(tmp_path / "copies") == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, exceptions.StorageFull), (errno.ESTALE, exceptions.BackendUnavailable)],
)
def test_a_failure_is_one(stores, tmp_path, monkeypatch, number, kind):
    source, target = stores()
    put(source, "image", b"data")

    def copy_file_range(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    with pytest.raises(kind):
        copy(source, target)
    assert os.listdir(tmp_path / "copies") == []
