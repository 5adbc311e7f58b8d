# SPDX-License-Identifier: Apache-2.0
"""The kit on stores whose downloads share what they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from glance_store.transfer.shared_folder import Folder
from glance_store.transfer.shared_reads import SharedReads

if TYPE_CHECKING:
    from pathlib import Path


class SharingReads:
    """Stands before the class of a driver's kit; all images are shared, however small."""

    variant = ("locking",)

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = Folder(str(tmp_path / "shared"), 1 << 30)

    def make_store(self) -> Any:
        store = super().make_store()  # type: ignore[misc]
        store.shared_reads = SharedReads(self.folder, 1)
        return store
