# SPDX-License-Identifier: Apache-2.0
"""The store that keeps each image in the account of the project that uploads it."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers.swift import auth, catalogue, containers, references
from glance_store._drivers.swift.base import BaseStore
from glance_store._drivers.swift.client import Account
from glance_store._drivers.swift.location import StoreLocation
from glance_store._drivers.swift.trust import Trust, UserAccount
from glance_store.i18n import _
from glance_store.location import redact

if TYPE_CHECKING:
    from glance_store.location import Location

__all__ = ["MultiTenantStore", "StoreLocation"]

LOG = logging.getLogger(__name__)


class MultiTenantStore(BaseStore):
    """Images in accounts of their owners, each in a container of its own."""

    _owns_container = True

    def __init__(self, conf: Any, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        if self.store_conf.swift_store_config_file:
            raise self._misconfigured(
                _(
                    "swift_store_multi_tenant and swift_store_config_file exclude each other; "
                    "unset one of them"
                )
            )
        scheme = getattr(getattr(conf, "glance_store", None), "default_store", None)
        if backend is None and scheme == "swift+config":
            raise self._misconfigured(
                _(
                    "swift_store_multi_tenant and the default_store swift+config exclude each "
                    "other; use the default_store swift"
                )
            )

    def configure_add(self) -> None:
        """Check what writing needs, and set the prefix of locations."""
        super().configure_add()
        options = self.store_conf
        endpoint = options.swift_store_endpoint
        self._url_prefix = None
        if endpoint:
            # Without it, each project has its own prefix.
            store_location = self._location_at(endpoint)
            store_location.container = f"{options.swift_store_container}_"
            address = f"{redact(endpoint)} of swift_store_endpoint"
            self._url_prefix = self._prefix_of(store_location, address).rstrip("/")
        if options.swift_store_use_trusts and self._service() is None:
            LOG.warning(
                "Store %s: an upload can fail once the token of its user expires, because trusts "
                "need the service's swift_store_auth_address, swift_store_user and "
                "swift_store_key. Set them, or set swift_store_use_trusts to False",
                self.name,
            )

    def storage_ids(self) -> set[str]:
        """Return the containers that only this store may write to."""
        options = self.store_conf
        where = options.swift_store_endpoint or options.swift_store_region or "any region"
        return {f"containers {options.swift_store_container}_* of all projects ({where})"}

    def check_health(self) -> str:
        """Report that nothing can be checked without a user."""
        return "not checked: the accounts belong to users"

    # -- accounts

    def _service(self) -> references.Reference | None:
        found = self._references().get(self.store_conf.default_swift_reference)
        return found if found is not None and found.user else None

    def _container_for(self, image_id: str) -> str:
        return f"{self.store_conf.swift_store_container}_{image_id}"

    def _container_headers(self) -> dict[str, str]:
        admins = self.store_conf.swift_store_admin_tenants
        return containers.acls(False, (), (), admins) if admins else {}

    def _account_for(self, context: Any) -> tuple[Account, StoreLocation]:
        url = self._endpoint(context)
        return self._user_account(context, url), self._location_at(url)

    def _account_of(self, store_location: StoreLocation, context: Any) -> Account:
        if store_location.user is not None or store_location.reference is not None:
            raise exceptions.BadStoreUri(
                _(
                    "The location of the image belongs to a store without "
                    "swift_store_multi_tenant: it has no address of an account"
                )
            )
        self._token(context)
        url = str(store_location.swift_url)
        # Whoever gets the token can act in the projects of its user.
        if not catalogue.is_known(url, self._addresses(context)):
            raise exceptions.BadStoreUri(
                _(
                    "The location of the image names a server that is neither in "
                    "swift_store_endpoint nor an object store in the service catalogue of the "
                    "request; nothing was sent to it"
                )
            )
        return self._user_account(context, url)

    def _addresses(
        self, context: Any, kind: str | None = None, region: str | None = None
    ) -> list[str]:
        """Return the addresses of Swift in the configuration and in the request's catalogue."""
        options = self.store_conf
        found = [str(options.swift_store_endpoint)] if options.swift_store_endpoint else []
        catalog = getattr(context, "service_catalog", None)
        if catalog:
            service = options.swift_store_service_type
            found.extend(catalogue.addresses(catalog, service, kind, region))
        elif not found:
            raise self._misconfigured(
                _(
                    "with swift_store_multi_tenant the request needs a user with a service "
                    "catalogue; without one, set swift_store_endpoint"
                )
            )
        return found

    def _token(self, context: Any) -> str:
        token = getattr(context, "auth_token", None)
        if not token:
            raise self._misconfigured(
                _(
                    "with swift_store_multi_tenant images can be reached only on behalf of a "
                    "user, but the request has no token"
                )
            )
        return str(token)

    def _user_account(self, context: Any, url: str) -> Account:
        token = self._token(context)
        make_trust = None
        service = self._service() if self.store_conf.swift_store_use_trusts else None
        if service is not None:
            make_trust = functools.partial(self._trust, service, token, url)
        connection = self.get_store_connection(token, url)
        return UserAccount(connection, self.store_conf.swift_store_expire_soon_interval, make_trust)

    def _trust(self, service: references.Reference, token: str, url: str) -> Trust:
        return Trust(
            auth.session_for(auth.plugin_for(service), self._settings),
            lambda trust: self._session_account(service, url, trust),
            auth.v3_address(service.auth_address),
            token,
            self._settings.new_patience,
        )

    def _endpoint(self, context: Any) -> str:
        """Return the URL of the account of the request's user."""
        options = self.store_conf
        kind = options.swift_store_endpoint_type
        for url in self._addresses(context, kind, options.swift_store_region):
            return url.rstrip("/")
        raise exceptions.NoServiceEndpoint(
            _(
                "The service catalogue of the request has no %(kind)s of a service %(type)s in "
                "the region %(region)s: check swift_store_endpoint_type, swift_store_service_type "
                "and swift_store_region, or set swift_store_endpoint"
            ),
            kind=kind,
            type=options.swift_store_service_type,
            region=options.swift_store_region or "(any)",
        )

    # -- access control

    def set_acls(
        self,
        location: Location,
        public: bool = False,
        read_tenants: list[str] | None = None,
        write_tenants: list[str] | None = None,
        context: Any = None,
    ) -> None:
        """Set who may read and write an image, besides its owner.

        :param location: where it is
        :param public: every authenticated user may read
        :param read_tenants: projects that may read
        :param write_tenants: projects that may write
        :param context: the request's context
        :raises NotFound: there is no such image
        """
        client, container, _obj = self._image(location, context)
        headers = containers.acls(
            public,
            read_tenants or (),
            write_tenants or (),
            self.store_conf.swift_store_admin_tenants,
        )
        action = _("Setting who may use the container %s") % container
        client.request("POST", container, action=action, headers=headers)
