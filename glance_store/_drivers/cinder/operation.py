# SPDX-License-Identifier: Apache-2.0
"""What one upload, download or deletion needs: access to Cinder and a host to attach to."""

from __future__ import annotations

import dataclasses
from typing import Any

from glance_store._drivers.cinder.attachment import Attachment
from glance_store._drivers.cinder.client import Api
from glance_store._drivers.cinder.host import Host
from glance_store._drivers.cinder.volumes import Volumes


@dataclasses.dataclass(frozen=True)
class Operation:
    """What one operation needs."""

    api: Api
    host: Host
    attempts: int  # attachment attempts while a volume is busy
    prefix: str  # of the store's locations
    name: str  # of the store, for messages

    @property
    def volumes(self) -> Volumes:
        """The volume requests."""
        return Volumes(self.api)

    def attach(self, volume: Any, *, writable: bool, fresh: bool) -> Attachment:
        """Attach a volume to this host; `fresh`: nobody else can know of it yet."""
        return Attachment(
            self.api, self.host, volume, writable=writable, attempts=self.attempts, fresh=fresh
        )

    def uri(self, volume_id: str) -> str:
        """Return the location of the image on a volume."""
        separator = "" if self.prefix.endswith("/") else "/"
        return f"{self.prefix}{separator}{volume_id}"
