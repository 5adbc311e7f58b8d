# SPDX-License-Identifier: Apache-2.0
"""The VMware datastore store: its options and locations, without a data path.

It loads, registers its options and parses its locations, so that configuration files stay valid and
the other stores of a configuration work. It neither reads nor writes, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glance_store import capabilities, driver, exceptions
from glance_store._drivers.vmware_datastore.location import StoreLocation
from glance_store._drivers.vmware_datastore.options import OPTIONS
from glance_store.i18n import _

if TYPE_CHECKING:
    from glance_store.location import Location

__all__ = ["Store", "StoreLocation"]


class Store(driver.Store):
    """Images as files of a VMware datastore: none can be read or written yet."""

    _CAPABILITIES: int = capabilities.BitMasks.DRIVER_REUSABLE
    OPTIONS = OPTIONS

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return ("vsphere",)

    def configure_add(self) -> None:
        """Refuse: there is nothing to write with.

        :raises BadStoreConfiguration: always; the text says what to do
        """
        raise exceptions.BadStoreConfiguration(store_name=self.name, reason=self._reason())

    def get_size(self, location: Location, context: Any = None) -> int:
        """Refuse: there is nothing to read with.

        :param location: where the image is
        :param context: the request's context
        :raises StoreGetNotSupported: always; the text says what to do
        """
        raise exceptions.StoreGetNotSupported(self._reason())

    def _reason(self) -> str:
        return str(
            _(
                "this release of glance_store does not carry the data path of the driver 'vmware' "
                "yet: its images can be neither read nor written. Remove the store from "
                "enabled_backends (or its driver from stores), or keep the previous release of "
                "glance_store on the hosts that need it"
            )
        )
