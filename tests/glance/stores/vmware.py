# SPDX-License-Identifier: Apache-2.0
"""Stores of files on a vCenter's datastores, looked at in the directories that these are."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from ..images import MIB
from .base import StoreUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.services.vcenter import VCenter

# The driver begins to send when it has 4 MiB.
_SENT = 9 * MIB


class VMwareStore(StoreUnderTest):
    """A store on one datastore.

    :param server: the vCenter
    :param datastore: its name
    """

    driver = "vmware"
    sent_bytes = _SENT
    announced_bytes = _SENT + MIB

    def __init__(self, name: str, server: VCenter, datastore: str) -> None:
        self._directory = f"glance-{name}"
        self._server = server
        self._datastore = datastore
        options = {
            **server.store_options(),
            "vmware_datastores": f"{server.datacenter}:{datastore}",
            "vmware_store_image_dir": f"/{self._directory}",
        }
        super().__init__(name, options)

    @property
    def properties(self) -> dict[str, object]:
        return {}

    def location(self, image_id: str) -> str:
        path = f"folder/{self._directory}/{image_id}"
        query = {"dsName": self._datastore, "dcPath": self._server.datacenter}
        return f"vsphere://{self._server.host}/{path}?{urllib.parse.urlencode(query)}"

    @property
    def _folder(self) -> Path:
        return self._server.folder_of(self._datastore) / self._directory

    def has(self, image_id: str) -> bool:
        return (self._folder / image_id).exists()

    def read(self, image_id: str) -> bytes:
        return (self._folder / image_id).read_bytes()

    def remove(self, image_id: str) -> None:
        (self._folder / image_id).unlink()

    def everything(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("*"))

    def is_writing(self, image_id: str) -> bool:
        return any(self._folder.glob(f".{image_id}.*"))

    def put_in_the_way(self, image_id: str) -> Callable[[], bool]:
        content = b"not Glance's"
        self._folder.mkdir(exist_ok=True)
        stray = self._folder / image_id
        stray.write_bytes(content)

        def untouched() -> bool:
            found = stray.read_bytes()
            stray.unlink()
            return found == content

        return untouched
