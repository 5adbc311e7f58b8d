# SPDX-License-Identifier: Apache-2.0
"""The Cinder store: options and locations; see `glance_store._drivers._pending`."""

from __future__ import annotations

from typing import Any

from glance_store._drivers._pending import PendingStore
from glance_store._drivers.cinder.location import StoreLocation
from glance_store._drivers.cinder.options import OPTIONS

__all__ = ["Store", "StoreLocation"]


class Store(PendingStore):
    """Images as volumes of Cinder."""

    DRIVER = "cinder"
    SCHEMES = ("cinder",)
    OPTIONS = OPTIONS
    EXAMPLE_URL = "cinder://<VOLUME_ID>"

    def is_image_associated_with_store(self, context: Any, volume_id: str) -> bool:
        """Tell whether a volume is one of this store.

        :param context: the request's context
        :param volume_id: id of the volume
        :returns: False, as whenever Cinder cannot be asked: the image service calls this while it
            lists images, and an error would make all of them unreachable
        """
        return False
