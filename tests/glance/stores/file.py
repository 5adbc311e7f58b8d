# SPDX-License-Identifier: Apache-2.0
"""Stores of files, each in the state folder of its Glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..images import file_url
from .base import StoreUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..server import GlanceServer


class FileStore(StoreUnderTest):
    """A store of files.

    :param name: `fast` or `slow`
    :param glance: whose store it is
    """

    driver = "file"

    def __init__(self, name: str, glance: GlanceServer) -> None:
        super().__init__(name, {})
        self._glance = glance
        self.thin = name == "slow"

    @property
    def properties(self) -> dict[str, object]:
        return {
            "data_dir": str(self._glance.datadir(self.name)),
            "chunk_size": 131072 if self.thin else 65536,
            "thin_provisioning": self.thin,
        }

    def location(self, image_id: str) -> str:
        return file_url(self._glance, self.name, image_id)

    def has(self, image_id: str) -> bool:
        return image_id in self._glance.stored(self.name)

    def read(self, image_id: str) -> bytes:
        return (self._glance.datadir(self.name) / image_id).read_bytes()

    def remove(self, image_id: str) -> None:
        (self._glance.datadir(self.name) / image_id).unlink()

    def everything(self) -> list[str]:
        return sorted(self._glance.stored(self.name) + self._glance.open_files(self.name))

    def is_writing(self, image_id: str) -> bool:
        # Files that are being written have no name.
        return bool(self._glance.open_files(self.name))

    def put_in_the_way(self, image_id: str) -> Callable[[], bool]:
        stray = self._glance.datadir(self.name) / image_id
        stray.write_bytes(b"not Glance's")

        def untouched() -> bool:
            content = stray.read_bytes()
            stray.unlink()
            return content == b"not Glance's"

        return untouched

    def used_bytes(self, image_id: str) -> int:
        return (self._glance.datadir(self.name) / image_id).stat().st_blocks * 512
