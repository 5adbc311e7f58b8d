# SPDX-License-Identifier: Apache-2.0
"""The stores whose data path this release does not carry.

They load, register their options and parse their locations, so that configuration files stay valid
and the other stores of a configuration work. They neither read nor write, and say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from glance_store import capabilities, exceptions
from glance_store.driver import Store
from glance_store.i18n import _

if TYPE_CHECKING:
    from glance_store.location import Location


class PendingStore(Store):
    """Base of a store without a data path.

    A subclass sets `DRIVER`, the name of its entry point, and `SCHEMES`.
    """

    _CAPABILITIES: int = capabilities.BitMasks.DRIVER_REUSABLE

    DRIVER: ClassVar[str]
    SCHEMES: ClassVar[tuple[str, ...]]

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return self.SCHEMES

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
                "this release of glance_store does not carry the data path of the driver "
                "'%(driver)s' yet: its images can be neither read nor written. Remove the store "
                "from enabled_backends (or its driver from stores), or keep the previous release "
                "of glance_store on the hosts that need it"
            )
            % {"driver": self.DRIVER}
        )
