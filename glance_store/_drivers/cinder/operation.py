# SPDX-License-Identifier: Apache-2.0
"""What one upload, download or deletion needs: who asks Cinder, and the host to attach to."""

from __future__ import annotations

import dataclasses
from typing import Any

from glance_store._drivers.cinder.attachment import Attachment
from glance_store._drivers.cinder.brick import Host
from glance_store._drivers.cinder.client import Api
from glance_store._drivers.cinder.volumes import Volumes


@dataclasses.dataclass(frozen=True)
class Operation:
    """The means of one operation.

    :param api: who asks Cinder
    :param host: this host
    :param attempts: how often a busy volume is tried
    :param prefix: of the store's locations
    :param name: of the store, for texts
    """

    api: Api
    host: Host
    attempts: int
    prefix: str
    name: str

    @property
    def volumes(self) -> Volumes:
        """What can be done to volumes."""
        return Volumes(self.api)

    def attach(self, volume: Any, *, writable: bool, fresh: bool) -> Attachment:
        """Attach a volume to this host.

        :param volume: of cinderclient
        :param writable: whether it will be written
        :param fresh: whether nobody else can know of it
        """
        return Attachment(
            self.api, self.host, volume, writable=writable, attempts=self.attempts, fresh=fresh
        )

    def uri(self, volume_id: str) -> str:
        """Return the location of an image.

        :param volume_id: id of its volume
        """
        separator = "" if self.prefix.endswith("/") else "/"
        return f"{self.prefix}{separator}{volume_id}"
