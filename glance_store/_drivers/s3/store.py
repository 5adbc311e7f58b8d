# SPDX-License-Identifier: Apache-2.0
"""The S3 store: images are objects of a bucket."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from glance_store import capabilities, driver, exceptions
from glance_store._drivers._network import check_option
from glance_store._drivers._objects.errors import ERRORS
from glance_store._drivers._objects.ranges import bare_etag
from glance_store._drivers.s3 import endpoint, holdings
from glance_store._drivers.s3.bucket import Bucket
from glance_store._drivers.s3.client import (
    Client,
    Clients,
    Settings,
    make_client,
)
from glance_store._drivers.s3.copies import Copy, Original
from glance_store._drivers.s3.errors import guarded
from glance_store._drivers.s3.location import SCHEMES, StoreLocation
from glance_store._drivers.s3.options import OPTIONS
from glance_store._drivers.s3.reader import S3Reader
from glance_store._drivers.s3.session import check_credentials, load_boto3
from glance_store._drivers.s3.upload import Upload
from glance_store.i18n import _
from glance_store.inventory import Leftover, StoredImage
from glance_store.transfer.memory import Memory
from glance_store.transfer.multipart import MIB, EqualParts, GrowingParts, MultipartWriter
from glance_store.transfer.retry import Patience, ResumingStreamingReader

if TYPE_CHECKING:
    from glance_store.location import Location
    from glance_store.transfer.interface import ImageReader

__all__ = ["Store", "StoreLocation"]

LOG = logging.getLogger(__name__)

_READ_SIZE = 8 * MIB
MIN_PART = 5 * MIB
MAX_PART = 5 * 1024 * MIB


class _Limits(NamedTuple):
    """S3's limits: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html."""

    most: int
    largest: int


_LIMITS = _Limits(10_000, MAX_PART)
# Parts of an image of unknown size grow no further than this. Starting at 5 MiB, 5 TiB take 9,931
# parts; starting larger, they take fewer.
_GROWING = _Limits(10_000, 1024 * MIB)


class Store(driver.Store):
    """Images as objects of an S3 bucket.

    Attributes after `configure`: `s3_store_large_object_size` and
    `s3_store_large_object_chunk_size` in bytes, `s3_store_thread_pools`.
    """

    _CAPABILITIES: int = (
        capabilities.BitMasks.READ_RANDOM
        | capabilities.BitMasks.WRITE_ACCESS
        | capabilities.BitMasks.DRIVER_REUSABLE
    )
    OPTIONS = OPTIONS
    EXAMPLE_URL = "s3+https://<HOST>/<BUCKET>/<OBJECT>"
    READ_CHUNKSIZE = _READ_SIZE

    def __init__(self, conf: Any, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self._clients: Clients | None = None
        self._bucket = Bucket("", may_create=False)
        self._memory = Memory(self.store_conf.s3_store_memory * MIB)

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return SCHEMES

    # -- configuration

    def configure_add(self) -> None:
        """Check the options, without sending a request or keeping anything open."""
        try:
            self._configure()
        except exceptions.BadStoreConfiguration as exc:
            problem = str(exc.msg)
        else:
            return
        raise exceptions.BadStoreConfiguration(store_name=self.name, reason=problem)

    def _configure(self) -> None:
        options = self.store_conf
        self._clients = None
        self._bucket = Bucket(
            options.s3_store_bucket or "", may_create=options.s3_store_create_bucket_on_put
        )
        self.s3_store_large_object_size = options.s3_store_large_object_size * MIB
        self.s3_store_large_object_chunk_size = options.s3_store_large_object_chunk_size * MIB
        self.s3_store_thread_pools = options.s3_store_thread_pools
        self._memory = Memory(options.s3_store_memory * MIB)
        load_boto3()
        settings = Settings.of(options)
        bucket = options.s3_store_bucket
        if not bucket:
            raise exceptions.BadStoreConfiguration(
                _("The option s3_store_bucket is not set: name the bucket for the images")
            )
        if not endpoint.is_bucket_name(bucket):
            raise exceptions.BadStoreConfiguration(
                _(
                    "s3_store_bucket is %s, which is not the name of a bucket: use letters, digits "
                    "and .-_ only, and no path"
                )
                % bucket
            )
        self._check_sizes()
        if options.s3_store_bucket_url_format == "virtual" and not endpoint.is_dns_name(bucket):
            raise exceptions.BadStoreConfiguration(
                _(
                    "The bucket %s cannot be part of a host name: set s3_store_bucket_url_format "
                    "to path, or rename the bucket"
                )
                % bucket
            )
        if settings.authorities and settings.endpoint.secure:
            check_option("s3_store_cacert", settings.authorities, directories=False)
        check_credentials(settings)
        # Report wrong options now, not at the first image. This opens no connection.
        make_client(settings).s3.close()
        self._clients = Clients(settings)
        self._url_prefix = (
            f"{settings.endpoint.location_scheme}://{settings.endpoint.host}/{bucket}"
        )

    def _check_sizes(self) -> None:
        if self.s3_store_large_object_chunk_size < MIN_PART:
            raise exceptions.BadStoreConfiguration(
                _("s3_store_large_object_chunk_size is %d MiB; S3 requires parts of at least 5 MiB")
                % (self.s3_store_large_object_chunk_size // MIB)
            )
        if self.s3_store_large_object_chunk_size > MAX_PART:
            raise exceptions.BadStoreConfiguration(
                _(
                    "s3_store_large_object_chunk_size is %(size)d MiB; S3 accepts parts of at "
                    "most %(limit)d MiB"
                )
                % {
                    "size": self.s3_store_large_object_chunk_size // MIB,
                    "limit": MAX_PART // MIB,
                }
            )
        if self.s3_store_thread_pools <= 0:
            raise exceptions.BadStoreConfiguration(
                _("s3_store_thread_pools is %d; it must be at least 1") % self.s3_store_thread_pools
            )

    def storage_ids(self) -> set[str]:
        """Return the bucket and its service."""
        if self._clients is None:
            return set()
        return {f"{self._clients.settings.endpoint.shown}/{self.store_conf.s3_store_bucket}"}

    def check_health(self) -> str:
        """Check that the bucket can be reached; return in words where it is."""
        return self._bucket.check(self._client(), Patience(0))

    def images(self) -> Iterator[StoredImage]:
        """Yield all objects of the bucket, in pages of a thousand."""
        client = self._client()
        service = client.settings.endpoint

        def uri_of(key: str) -> str | None:
            try:
                return self._location_for(key, service).get_uri()
            except (exceptions.Invalid, exceptions.BadStoreUri):
                # The location of a key with a slash names another object.
                return None

        return holdings.images(
            client, self.store_conf.s3_store_bucket, uri_of, client.settings.new_patience()
        )

    def leftovers(self, older_than: float) -> Iterator[Leftover]:
        """Yield multipart uploads that have received no part for `older_than` seconds.

        S3 cannot tell whether an upload is alive: one that waits longer than that for its source
        looks like a dead one.
        """
        client = self._client()
        return holdings.leftovers(
            client, self.store_conf.s3_store_bucket, older_than, client.settings.new_patience()
        )

    def _client(self) -> Client:
        if self._clients is None:
            # A store that cannot write because of an option may still read.
            self._clients = Clients(Settings.of(self.store_conf))
        return self._clients.current()

    # -- images

    def open_writer(self, image_id: str, size: int, context: Any = None) -> MultipartWriter:
        """Begin to store an image; its id becomes the name of the object."""
        client = self._client()
        location = self._location_for(image_id, client.settings.endpoint)
        upload = Upload(client, self._bucket, image_id)
        upload.check_free()
        self._bucket.ensure(client, upload.patience)
        chunk = self.s3_store_large_object_chunk_size
        return MultipartWriter(
            upload,
            EqualParts(chunk, _LIMITS, size)
            if size or self.store_conf.s3_store_equal_parts
            else GrowingParts(chunk, _GROWING),
            location.get_uri(),
            size,
            min(self.s3_store_large_object_size, MAX_PART),
            self.s3_store_thread_pools,
            self._memory,
        )

    @capabilities.check
    def copy_from(
        self,
        source: driver.Store,
        location: Location,
        image_id: str,
        progress: Callable[[int], None],
    ) -> tuple[str, int, dict[str, Any]] | None:
        """Have the service copy an image of another store that uses it with the same key."""
        if not isinstance(source, Store):
            return None
        client = self._client()
        if not client.settings.reaches_the_same(source.settings):
            return None
        try:
            original = source.original(location)
        except (exceptions.NotFound, exceptions.BackendUnavailable):
            raise
        except ERRORS as exc:
            # Reading the image needs fewer requests, and may work.
            LOG.debug("The service cannot copy the image: %s", exc)
            return None
        if not original.size:
            # A part has at least one byte.
            return None
        uri = self._location_for(image_id, client.settings.endpoint).get_uri()
        copy = Copy(client, self._bucket, image_id, uri, original)
        copy.check_free()
        self._bucket.ensure(client, copy.patience)
        return self._fill(
            copy,
            lambda: copy.copy(_LIMITS, self.s3_store_thread_pools, progress),
            original.size,
        )

    @property
    def settings(self) -> Settings:
        """The options that requests use."""
        return self._client().settings

    def original(self, location: Location) -> Original:
        """Return the object of an image to copy."""
        client, store_location = self._client(), _store_location(location)
        shown = f"{store_location.bucket}/{store_location.key}"
        name = {"Bucket": store_location.bucket, "Key": store_location.key}
        about = client.settings.new_patience().call(
            lambda: guarded(
                lambda: client.s3.head_object(**name), _("Looking for %s") % shown, shown
            )
        )
        size = int(about.get("ContentLength") or 0)
        return Original(
            str(store_location.bucket), str(store_location.key), bare_etag(about.get("ETag")), size
        )

    def _location_for(self, image_id: str, service: endpoint.Endpoint) -> StoreLocation:
        """Return the location of a new image; raise Invalid for an id that cannot be in one."""
        location = self._location_of(image_id, service)
        parsed = StoreLocation({}, self.conf, backend_group=self.backend_group)
        parsed.parse_uri(location.get_uri())
        if (parsed.bucket, parsed.key) != (location.bucket, location.key):
            raise exceptions.Invalid(
                _("%(image)r cannot be the id of an image in an S3 store"), image=image_id
            )
        return location

    def _location_of(self, key: str, service: endpoint.Endpoint) -> StoreLocation:
        specs = {
            "scheme": service.location_scheme,
            "s3serviceurl": service.host,
            "bucket": self.store_conf.s3_store_bucket,
            "key": key,
        }
        return StoreLocation(specs, self.conf, backend_group=self.backend_group)

    def open_reader(self, location: Location, context: Any = None) -> ImageReader:
        """Open an image. Requests go to the configured host, not to the one in the location."""
        reader, patience = self._reader(location)
        reader.check_archive()
        return ResumingStreamingReader(reader, patience)

    def get_size(self, location: Location, context: Any = None) -> int:
        """Return the size of an image, also of an archived one.

        :param location: the image's location
        :param context: not used
        :returns: bytes
        :raises NotFound: there is no such object
        """
        return int(self._reader(location)[0].size)

    def _reader(self, location: Location) -> tuple[S3Reader, Patience]:
        client, store_location = self._client(), _store_location(location)
        patience = client.settings.new_patience()
        reader = S3Reader(
            client,
            str(store_location.bucket),
            str(store_location.key),
            concurrency=self.store_conf.s3_store_read_concurrency,
            range_size=self.read_size,
            memory=self._memory,
            patience=patience,
        )
        return reader, patience

    @capabilities.check
    def delete(self, location: Location, context: Any = None) -> None:
        """Remove an image."""
        client, store_location = self._client(), _store_location(location)
        name = {"Bucket": store_location.bucket, "Key": store_location.key}
        shown = f"{store_location.bucket}/{store_location.key}"
        action = _("Deleting %s") % shown
        patience = client.settings.new_patience()
        begun = False

        def remove() -> None:
            nonlocal begun
            again, begun = begun, True
            try:
                guarded(lambda: client.s3.delete_object(**name), action, shown)
            except exceptions.NotFound:
                # An earlier try removed it, and its response was lost.
                if not again:
                    raise

        try:
            self.open_reader(location).close()
        except (exceptions.NotFound, exceptions.BackendUnavailable):
            raise
        except ERRORS as exc:
            # Looking needs another right than removing. Without the right to list the bucket, the
            # service also refuses to say that an object is missing.
            LOG.debug("Cannot see whether the object exists: %s", exc)
        patience.call(remove)
        LOG.debug("Store %s: deleted %s", self.name, shown)


def _store_location(location: Location) -> StoreLocation:
    return cast("StoreLocation", location.store_location)
