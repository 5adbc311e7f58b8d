# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the filesystem driver, with and without holes, with a time limit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from oslo_config import cfg

from glance_store._drivers.filesystem import Store
from glance_store.sharing import of_store
from glance_store.testing import StoreConformance


class TestFile(StoreConformance):
    knows_the_living = True
    finds_killed_uploads = True
    hostile_uris = ("file:///", "file:///dev/zero", "file:///proc/self/mem/..", "filesystem://.")

    @pytest.fixture
    def backend(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "images"

    def make_store(self) -> Store:
        conf = cfg.ConfigOpts()
        store = Store(conf, "files")
        conf.set_override("filesystem_store_datadir", str(self.folder), group="files")
        conf.set_override("filesystem_thin_provisioning", self.holes, group="files")
        store.configure(re_raise_bsc=True)
        return store

    def listing(self) -> list[str]:
        return [str(path) for path in self.folder.rglob("*")]


class TestFileWithHoles(TestFile):
    """Thin provisioning: only the blocks of the files differ."""

    variant = ("layout",)
    holes = True

    def allocated(self, uri: str) -> int:
        return Path(uri.removeprefix("file://")).stat().st_blocks * 512


class TestFileWithSharedReads(TestFile):
    """Downloads that share what they read."""

    variant = ("wire", "locking")

    def make_store(self) -> Store:
        store = super().make_store()
        of_store(store.conf, "files")
        store.conf.set_override(
            "store_shared_reads_dir", str(self.folder.parent / "shared"), group="files"
        )
        store.conf.set_override("store_shared_reads_min_size", 1, group="files")
        return store


class TestFileWithTimeout(TestFile):
    """One thread for calls, and one for clean-up, which is queued."""

    def make_store(self) -> Store:
        store = super().make_store()
        for name, value in {"timeout": 60, "thread_pool_size": 1}.items():
            store.conf.set_override(f"filesystem_store_{name}", value, group="files")
        store.configure(re_raise_bsc=True)
        return store

    def held(self) -> Counter[str]:
        self.store._guard.cleanup(bool, wait=60)
        return super().held()
