# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the filesystem driver, with and without holes."""

from __future__ import annotations

from pathlib import Path

import pytest
from oslo_config import cfg

from glance_store._drivers.filesystem import Store
from glance_store.testing import StoreConformance


class TestFile(StoreConformance):
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
