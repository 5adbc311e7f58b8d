# SPDX-License-Identifier: Apache-2.0
"""What the single-tenant and the multi-tenant store have in common."""

from __future__ import annotations

import abc
import sys
import tempfile
from typing import TYPE_CHECKING, Any, cast

from glance_store import capabilities, driver, exceptions
from glance_store._drivers._network import check_authorities, in_words
from glance_store._drivers.swift import auth, containers, deleter, large, references
from glance_store._drivers.swift.client import Account, Client, Connections, Settings
from glance_store._drivers.swift.errors import SwiftDenied
from glance_store._drivers.swift.location import SCHEMES, StoreLocation
from glance_store._drivers.swift.options import OPTIONS
from glance_store._drivers.swift.reader import SwiftReader, find
from glance_store._drivers.swift.streamed import StreamedWriter, whole
from glance_store._drivers.swift.upload import Upload
from glance_store.i18n import _
from glance_store.transfer.memory import Memory
from glance_store.transfer.multipart import (
    MIB,
    EqualParts,
    GrowingParts,
    MultipartWriter,
    Plan,
)
from glance_store.transfer.retry import ResumingStreamingReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glance_store.driver import StoreWriter
    from glance_store.location import Location
    from glance_store.transfer.interface import ImageReader

_PACKAGE = __name__.rpartition(".")[0]
# The unit of the size options, unchanged since earlier releases.
_MB = 1000 * 1024
# Unless the operator sets sizes: images from the first size on are in segments of the second.
_LARGE, _SEGMENT = 64 * MIB, 32 * MIB
# Images up to this size are held in memory, and sent in one request.
_MAX_BUFFERED = 8 * MIB
# The block size of data sent while it comes in. It is small because sources can be slow, and Swift
# ends a request after a minute without data.
_STREAMED_BLOCK = MIB
# The cost of a request hardly depends on its size: ask for 32 MiB, the size of a segment.
_READS_IN_A_RANGE = 8


class BaseStore(driver.Store):
    """Images as objects of Swift containers; a subclass chooses the account."""

    _CAPABILITIES: int = (
        capabilities.BitMasks.READ_RANDOM
        | capabilities.BitMasks.WRITE_ACCESS
        | capabilities.BitMasks.DRIVER_REUSABLE
    )
    OPTIONS = OPTIONS
    EXAMPLE_URL = "swift+https://<USER>:<KEY>@<AUTH_ADDRESS>/<CONTAINER>/<OBJECT>"

    def __init__(self, conf: Any, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self.store_location_class = StoreLocation
        self._connections = Connections()
        self._memory = Memory(self.store_conf.swift_store_memory * MIB)
        # In bytes. Other programs read these attributes.
        self.large_object_size = 5 * 1024 * _MB
        self.large_object_chunk_size = 200 * _MB

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return SCHEMES

    @property
    def read_size(self) -> int:
        """Bytes per request to Swift while several requests are in flight."""
        return _READS_IN_A_RANGE * self.READ_CHUNKSIZE

    # -- configuration

    def configure(self, re_raise_bsc: bool = False) -> None:
        """Read the options and make the store ready for use.

        Raises BadStoreConfiguration if the client library is missing or the buffer directory cannot
        be used, and with `re_raise_bsc` also for what makes the store read-only.
        """
        options = self.store_conf
        self.large_object_size = options.swift_store_large_object_size * _MB
        self.large_object_chunk_size = options.swift_store_large_object_chunk_size * _MB
        self._memory = Memory(options.swift_store_memory * MIB)
        try:
            self._check_environment()
        except exceptions.BadStoreConfiguration as exc:
            self.disable_writes(str(exc.msg))
            raise
        super().configure(re_raise_bsc)

    def _check_environment(self) -> None:
        if self._swiftclient() is None:
            raise self._misconfigured(
                _(
                    "the library swiftclient is missing: install python-swiftclient and "
                    "keystoneauth1, for example with pip install 'glance_store[swift]'"
                )
            )
        authorities = self._settings.verify
        if isinstance(authorities, str):
            try:
                check_authorities(authorities)
            except OSError as exc:
                raise self._misconfigured(
                    _(
                        "swift_store_cacert names %(path)s, which does not exist or holds no "
                        "certificates: %(cause)s"
                    )
                    % {"path": authorities, "cause": in_words(exc)}
                ) from exc
        if not self.store_conf.swift_buffer_on_upload:
            return
        folder = self.store_conf.swift_upload_buffer_dir
        if not folder:
            raise self._misconfigured(
                _("swift_buffer_on_upload needs a directory in swift_upload_buffer_dir")
            )
        try:
            with tempfile.TemporaryFile(dir=folder):
                return
        except OSError:
            raise self._misconfigured(
                _(
                    "the directory %s of swift_upload_buffer_dir does not exist, or this process "
                    "cannot write to it"
                )
                % folder
            ) from None

    def _misconfigured(self, reason: str) -> exceptions.BadStoreConfiguration:
        return exceptions.BadStoreConfiguration(store_name=self.name, reason=reason)

    @staticmethod
    def _swiftclient() -> Any:
        """Return the client library, or None if it is not installed."""
        # Looked up in the package, where other programs replace it.
        return getattr(sys.modules[_PACKAGE], "swiftclient", None)

    # -- accounts

    @property
    def _settings(self) -> Settings:
        return Settings.of(self.store_conf)

    def get_store_connection(self, auth: Any, storage_url: str | None = None) -> Any:
        """Return a swiftclient connection to an account; every request starts from it."""
        options = self.store_conf
        settings = self._settings
        common = {
            "auth_version": "3",
            "insecure": settings.insecure,
            "cacert": settings.cacert,
            "timeout": settings.timeout,
            "ssl_compression": options.swift_store_ssl_compression,
            # The engine does all retries: limited in seconds, and stopped with the transfer.
            "retries": 0,
            "os_options": {
                "service_type": options.swift_store_service_type,
                "endpoint_type": options.swift_store_endpoint_type,
                "region_name": options.swift_store_region,
                "object_storage_url": storage_url,
            },
        }
        connection = self._swiftclient().Connection
        if isinstance(auth, str):
            return connection(preauthurl=storage_url, preauthtoken=auth, **common)
        return connection(session=auth, **common)

    def _session_account(
        self, reference: references.Reference, url: str | None, trust: str = ""
    ) -> auth.SessionAccount:
        """Return an account with the credentials of a reference; `trust` is the id of a trust."""
        options, settings = self.store_conf, self._settings
        session = auth.session_for(auth.plugin_for(reference, trust), settings)
        connection = self.get_store_connection(session, url)
        return auth.SessionAccount(
            connection, session, options.swift_store_expire_soon_interval, settings.new_patience
        )

    def _references(self) -> Mapping[str, references.Reference]:
        return references.load(self.conf, self.backend_group)

    @abc.abstractmethod
    def _account_of(self, store_location: StoreLocation, context: Any) -> Account:
        """Return the account that holds an image."""

    @abc.abstractmethod
    def _account_for(self, context: Any) -> tuple[Account, StoreLocation]:
        """Return the account for a new image, and the beginning of its location."""

    @abc.abstractmethod
    def _container_for(self, image_id: str) -> str:
        """Return the container for a new image."""

    def _location_at(self, url: str) -> StoreLocation:
        """Return the beginning of a location with the URL of an account or of Keystone."""
        store_location = StoreLocation({}, self.conf, self.backend_group)
        plain = url.lower().startswith("http://")
        store_location.scheme = "swift+http" if plain else "swift+https"
        store_location.ssl_enabled = not plain
        store_location.auth_or_store_url = references.without_scheme(url)
        return store_location

    def _is_configured(self, store_location: StoreLocation) -> bool:
        """Tell whether the configuration names the server of a location."""
        return True

    def _client(self, store_location: StoreLocation, context: Any) -> Client:
        if not self._swiftclient():
            self._check_environment()
        if not store_location.container or not store_location.obj:
            raise exceptions.BadStoreUri(
                _("The location of an image in Swift must name a container and an object")
            )
        given = isinstance(context, Account)
        account = context if given else self._account_of(store_location, context)
        return Client(self._connections, self._settings, account)

    def _image(self, location: Location, context: Any) -> tuple[Client, str, str]:
        """Return the client of an image, and the names of its container and object."""
        store_location = cast("StoreLocation", location.store_location)
        client = self._client(store_location, context)
        return client, str(store_location.container), str(store_location.obj)

    # -- reading

    @capabilities.check
    def get(
        self,
        location: Location,
        offset: int = 0,
        chunk_size: int | None = None,
        context: Any = None,
        connection: Any = None,
    ) -> tuple[Any, int]:
        """Read an image or a range of it."""
        if connection is not None:
            context = auth.GivenAccount(connection)
        return super().get(location, offset=offset, chunk_size=chunk_size, context=context)

    def open_reader(self, location: Location, context: Any = None) -> ImageReader:
        """Open an image; a multi-tenant store takes the token from the context."""
        client, container, obj = self._image(location, context)
        patience = client.patience()
        try:
            reader = SwiftReader(
                client,
                container,
                obj,
                concurrency=self.store_conf.swift_store_read_concurrency,
                range_size=self.read_size,
                memory=self._memory,
                patience=patience,
            )
        except BaseException:
            client.account.close()
            raise
        return ResumingStreamingReader(reader, patience)

    def get_size(self, location: Location, context: Any = None) -> int:
        """Return the size of an image in bytes.

        Raises BadStoreUri where the caller may be at fault: if the account may not read the image,
        or if only the location names the account or its address, and that does not work. The image
        service asks for the size of locations that users make up, and reports this error as the
        user's mistake.
        """
        client, container, obj = self._image(location, context)
        action = _("Asking for the size of image %s") % obj
        try:
            return find(client, container, obj, action, client.patience()).size
        except exceptions.BackendException as exc:
            if isinstance(exc, SwiftDenied) or not self._is_configured(
                cast("StoreLocation", location.store_location)
            ):
                raise exceptions.BadStoreUri(str(exc)) from exc
            raise

    # -- writing

    def open_writer(self, image_id: str, size: int, context: Any = None) -> StoreWriter:
        """Begin to store an image; its id becomes the name of the object."""
        account, store_location = self._account_for(context)
        try:
            upload = self._upload(image_id, account, store_location)
            if not 0 < size < min(_MAX_BUFFERED, self.large_object_size):
                # The token must stay valid until a little after the last byte.
                account.prepare()
            # Refuse what does not fit before creating anything for it.
            large_size, segment = self._sizes(account)
            if size > _MAX_BUFFERED:
                # An image larger than the largest object is in segments, whatever the options say.
                cluster = large.cluster_info(upload.client, upload.patience)
                large_size = min(large_size, cluster.largest + 1)
            plan = self._plan(upload, size, segment) if not size or size >= large_size else None
            upload.ensure_container()
            return self._writer(upload, size, plan)
        except BaseException:
            account.close()
            raise

    def _upload(self, image_id: str, account: Account, store_location: StoreLocation) -> Upload:
        """Return a new upload; raise Duplicate if the image exists."""
        store_location.container, store_location.obj = self._container_for(image_id), image_id
        container = store_location.container
        client = Client(self._connections, self._settings, account)
        upload = Upload(
            client,
            container,
            image_id,
            lambda: self._ensure(client, container) and self._owns_container,
            verify=self.store_conf.swift_store_verify_segments,
            uri=self._checked_uri(store_location),
        )
        upload.check_free()
        return upload

    def _sizes(self, account: Account) -> tuple[int, int]:
        """Return the size from which images are in segments, and the size of a segment."""
        set_by_operator = any(
            self._is_set(f"swift_store_large_object_{name}") for name in ("size", "chunk_size")
        )
        if set_by_operator or not account.renewable:
            # A single request needs a valid token only at its start.
            return self.large_object_size, self.large_object_chunk_size
        return _LARGE, _SEGMENT

    # Whether each image has a container of its own.
    _owns_container = False

    def _container_headers(self) -> dict[str, str]:
        return {}

    def _ensure(self, client: Client, container: str) -> bool:
        create = self.store_conf.swift_store_create_container_on_put
        return containers.ensure(client, container, create, self._container_headers())

    def _uri(self, store_location: StoreLocation) -> str:
        return store_location.get_uri()

    def _checked_uri(self, store_location: StoreLocation) -> str:
        """Return a location that parses back; raise Invalid if the image id cannot be in one."""
        uri = self._uri(store_location)
        found = StoreLocation({}, self.conf, self.backend_group)
        try:
            found.parse_uri(uri)
        except exceptions.BadStoreUri:
            found.obj = None
        if (found.container, found.obj) != (store_location.container, store_location.obj):
            raise exceptions.Invalid(
                _("The image id %(image)r, or the address, cannot be part of a location in Swift"),
                image=store_location.obj,
            )
        return uri

    def _prefix_of(self, store_location: StoreLocation, address: str) -> str:
        """Return how the locations in a container begin.

        Raises BadStoreConfiguration if images could be stored but not found by location.
        """
        store_location.obj = "image"
        try:
            return self._checked_uri(store_location).removesuffix("image")
        except exceptions.GlanceStoreException:
            raise self._misconfigured(
                _(
                    "no location can name the container %(container)s of swift_store_container "
                    "at %(address)s"
                )
                % {"container": store_location.container, "address": address}
            ) from None

    def _plan(self, upload: Upload, size: int, segment: int) -> Plan:
        cluster = large.cluster_info(upload.client, upload.patience)
        limits = cluster.limits(upload.names, segment)
        if size:
            return EqualParts(segment, limits, size)
        if 2 * segment <= self._memory.size:
            # Let them grow only as far as memory can hold them.
            limits = limits._replace(largest=min(limits.largest, self._memory.size // 2))
        return GrowingParts(segment, limits)

    def _writer(self, upload: Upload, size: int, plan: Plan | None) -> StoreWriter:
        options, memory = self.store_conf, self._memory
        block = min(self.WRITE_CHUNKSIZE, _STREAMED_BLOCK)
        if plan is None:
            if size <= _MAX_BUFFERED:
                return MultipartWriter(upload, whole(size), upload.uri, size, size + 1, 1, memory)
            return StreamedWriter(upload, size, block, None, memory)
        folder = options.swift_upload_buffer_dir if options.swift_buffer_on_upload else None
        if folder or not memory.has(2 * plan.size_at(0)):
            # There is never that much memory, or others have it now, and may be slow to give it
            # back.
            return StreamedWriter(upload, size, block, plan, memory, folder)
        threads = options.swift_store_thread_pool_size
        return MultipartWriter(upload, plan, upload.uri, size, 0, threads, memory)

    @capabilities.check
    def delete(self, location: Location, context: Any = None) -> None:
        """Remove an image and all of its segments."""
        client, container, obj = self._image(location, context)
        try:
            deleter.remove(client, container, obj)
            if self._owns_container:
                containers.remove_if_empty(client, container)
        finally:
            client.account.close()
