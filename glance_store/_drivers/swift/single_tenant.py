# SPDX-License-Identifier: Apache-2.0
"""The store that keeps all images in accounts of the service."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from glance_store import capabilities, exceptions
from glance_store._drivers.swift import auth, containers, holdings, large, references
from glance_store._drivers.swift.base import BaseStore
from glance_store._drivers.swift.client import Account, Client
from glance_store._drivers.swift.copies import Original, copy
from glance_store._drivers.swift.location import StoreLocation
from glance_store._drivers.swift.reader import find
from glance_store.i18n import _
from glance_store.location import redact
from glance_store.transfer.retry import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glance_store._drivers.swift.references import Reference
    from glance_store.driver import Store
    from glance_store.inventory import Leftover, StoredImage
    from glance_store.location import Location

__all__ = ["SingleTenantStore", "StoreLocation"]


class SingleTenantStore(BaseStore):
    """Images in an account whose credentials are in the configuration or in the location."""

    def __init__(self, conf: Any, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self.container: str = self.store_conf.swift_store_container
        self._sessions = auth.Sessions()

    def configure_add(self) -> None:
        """Check the account for new images, and set the prefix of their locations."""
        super().configure_add()
        options = self.store_conf
        self.container = options.swift_store_container
        name = options.default_swift_reference
        if self._references().get(name) is None:
            raise self._misconfigured(
                _(
                    "there is no account for new images: swift_store_config_file needs a valid "
                    "section [%s] (default_swift_reference)"
                )
                % name
                if options.swift_store_config_file
                else _(
                    "there is no account for new images: set swift_store_auth_address and either "
                    "swift_store_user (<project>:<user>) and swift_store_key, or "
                    "swift_store_application_credential_id and _secret"
                )
            )
        store_location = self._new_location()
        store_location.container = self.container
        prefix = self._prefix_of(
            store_location,
            f"[{name}] of default_swift_reference"
            if options.swift_store_config_file
            else f"{redact(store_location.swift_url)} of swift_store_auth_address",
        )
        if options.swift_store_multiple_containers_seed:
            prefix = f"{prefix.rstrip('/')}_"
        self._url_prefix = prefix

    def _default(self) -> Reference:
        name = self.store_conf.default_swift_reference
        found = self._references().get(name)
        if found is None:
            raise self._misconfigured(_("there is no account '%s' for new images") % name)
        return found

    def _new_location(self) -> StoreLocation:
        """Return the location of new images, without container and object."""
        account = self._default()
        store_location = self._location_at(account.auth_address)
        store_location.user, store_location.key = account.user, account.key
        return store_location

    def _uri(self, store_location: StoreLocation) -> str:
        # A location cannot hold an application credential.
        named = bool(self.store_conf.swift_store_config_file) or not store_location.user
        return store_location.get_uri(credentials_included=not named)

    def storage_ids(self) -> set[str]:
        """Return the containers that only this store may write to."""
        account = self._references().get(self.store_conf.default_swift_reference)
        if account is None:
            return set()
        options = self.store_conf
        owner = account.user or f"application credential {account.application_credential_id}"
        where = options.swift_store_endpoint or options.swift_store_region or "any region"
        address = references.without_scheme(auth.v3_address(account.auth_address))
        seeded = "_*" if options.swift_store_multiple_containers_seed else ""
        container = options.swift_store_container
        return {f"container {container}{seeded} of {owner} at {address} ({where})"}

    def check_health(self) -> str:
        """Authenticate, and look for the container; report on large objects."""
        client, _store_location, _containers = self._holder()
        if not self.store_conf.swift_store_multiple_containers_seed:
            create = self.store_conf.swift_store_create_container_on_put
            allow = (404,) if create else ()
            action = _("Looking for the container %s") % self.container
            client.request("HEAD", self.container, action=action, patience=Patience(0), allow=allow)
        static = large.cluster_info(client, Patience(0)).static
        kind = "dynamic" if static is None else f"static (up to {static.segments} segments)"
        return f"large objects: {kind}"

    def images(self) -> Iterator[StoredImage]:
        """Yield the images of the account's containers."""
        client, store_location, containers_of = self._holder()

        def uri_of(container: str, name: str) -> str:
            store_location.container, store_location.obj = container, name
            return self._uri(store_location)

        for container in containers_of:
            yield from holdings.images(client, container, uri_of)

    def leftovers(self, older_than: float) -> Iterator[Leftover]:
        """Yield segments of no image whose upload has stored nothing for `older_than` seconds.

        Swift cannot tell whether an upload is alive: one that waits longer than that for its source
        looks like a dead one.
        """
        client, _store_location, containers_of = self._holder()
        for container in containers_of:
            yield from holdings.leftovers(client, container, older_than)

    def _holder(self) -> tuple[Client, StoreLocation, Iterator[str]]:
        account, store_location = self._account_for(None)
        client = Client(self._connections, self._settings, account)
        seeded = self.store_conf.swift_store_multiple_containers_seed > 0
        return client, store_location, holdings.names(client, self.container, seeded)

    # -- copies

    @capabilities.check
    def copy_from(
        self,
        source: Store,
        location: Location,
        image_id: str,
        progress: Callable[[int], None],
    ) -> tuple[str, int, dict[str, Any]] | None:
        """Have Swift copy an image of another store with the same account."""
        if not isinstance(source, SingleTenantStore):
            return None
        original = source.original(location)
        account, store_location = self._account_for(None)
        if original is None or original.account != account.url:
            return None
        upload = self._upload(image_id, account, store_location)
        plan = self._plan(upload, original.size, self._sizes(account)[1])
        upload.ensure_container()
        threads = self.store_conf.swift_store_thread_pool_size
        return self._fill(
            upload, lambda: copy(upload, original, plan, threads, progress), original.size
        )

    def original(self, location: Location) -> Original | None:
        """Return the image to copy; None if it is not one object to its readers."""
        client, container, obj = self._image(location, None)
        found = find(client, container, obj, _("Looking for image %s") % obj, client.patience())
        if len(found) != 1 or not found.size:
            return None
        piece, _begin, _length = found.part(0, found.size, found.size)
        etag = None if found.in_segments else piece.etag or None
        return Original(client.account.url, container, obj, found.size, etag)

    # -- accounts

    def _container_for(self, image_id: str) -> str:
        seed = self.store_conf.swift_store_multiple_containers_seed
        return containers.seeded(self.container, image_id, seed)

    def _account_for(self, context: Any) -> tuple[Account, StoreLocation]:
        store_location = self._new_location()
        return self._account(self._default(), store_location, True), store_location

    def _account_of(self, store_location: StoreLocation, context: Any) -> Account:
        configured = self._configured(store_location)
        if configured is not None:
            # Its password may have changed since the image was stored.
            return self._account(configured, store_location, True)
        if store_location.user is None:
            raise exceptions.BadStoreUri(
                _(
                    "The location of the image has no user and key, and its address is not "
                    "configured: it comes from a store with swift_store_multi_tenant, or somebody "
                    "made it up"
                )
            )
        reference = references.Reference("")
        with contextlib.suppress(exceptions.BadStoreConfiguration):
            default = self._references().get(self.store_conf.default_swift_reference)
            if default is not None and _is_at(default, store_location):
                # Another user in the same domains, which a location cannot name.
                reference = default
        reference = reference.of_user(store_location.user, store_location.key)
        return self._account(reference, store_location, False)

    def _configured(self, store_location: StoreLocation) -> Reference | None:
        """Return the configured account that a location belongs to, in any of its forms."""
        if store_location.reference is not None:
            return self._references().get(store_location.reference)
        # A location that has everything works without the configuration.
        with contextlib.suppress(exceptions.BadStoreConfiguration):
            accounts, default = self._references(), self.store_conf.default_swift_reference
            for name in sorted(accounts, key=lambda name: name != default):
                account = accounts[name]
                # A location without a user comes from an application credential, which it cannot
                # hold.
                if _is_at(account, store_location) and store_location.user in (None, account.user):
                    return account
        return None

    def _is_configured(self, store_location: StoreLocation) -> bool:
        """Tell whether a location names a configured account."""
        return self._configured(store_location) is not None

    def _account(
        self, reference: Reference, store_location: StoreLocation, configured: bool
    ) -> Account:
        # Locations have other forms for the address of the same account.
        address = auth.v3_address(str(store_location.swift_url))
        reference = dataclasses.replace(reference, auth_address=address)

        def make() -> auth.SessionAccount:
            return self._session_account(reference, self.store_conf.swift_store_endpoint)

        return self._sessions.get((self._settings, reference), configured, make)


def _is_at(account: Reference, store_location: StoreLocation) -> bool:
    """Tell whether an account is at the address of a location."""
    return auth.v3_address(account.auth_address) == auth.v3_address(str(store_location.swift_url))
