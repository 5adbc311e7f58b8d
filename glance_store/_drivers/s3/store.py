# SPDX-License-Identifier: Apache-2.0
"""The S3 store: images are objects of a bucket."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, cast

from glance_store import capabilities, driver, exceptions
from glance_store._drivers.s3 import endpoint
from glance_store._drivers.s3.bucket import Bucket
from glance_store._drivers.s3.client import (
    Client,
    Clients,
    Settings,
    check_credentials,
    load_boto3,
    make_client,
)
from glance_store._drivers.s3.clock import ServiceClock, clock_of
from glance_store._drivers.s3.errors import Answer, TransferInterrupted, guarded
from glance_store._drivers.s3.location import SCHEMES, StoreLocation
from glance_store._drivers.s3.options import OPTIONS
from glance_store._drivers.s3.parts import MAX_PART, MIB, MIN_PART
from glance_store._drivers.s3.reader import S3Reader
from glance_store._drivers.s3.upload import Upload
from glance_store._drivers.s3.writer import S3Writer
from glance_store.i18n import _
from glance_store.transfer.retry import ResumingStreamingReader

if TYPE_CHECKING:
    from glance_store.location import Location
    from glance_store.transfer.interface import ImageReader

__all__ = ["Store", "StoreLocation"]

LOG = logging.getLogger(__name__)

_READ_SIZE = 8 * MIB


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

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return SCHEMES

    # -- configuration

    def configure_add(self) -> None:
        """Check the options; nothing is sent to the service, and nothing is kept open.

        :raises BadStoreConfiguration: boto3 is missing, or an option is missing or wrong
        """
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
        load_boto3()
        settings = Settings.of(options)
        bucket = options.s3_store_bucket
        if not bucket:
            raise exceptions.BadStoreConfiguration(
                _("The option s3_store_bucket is not set: name the bucket for the images")
            )
        self._check_sizes()
        if options.s3_store_bucket_url_format == "virtual" and not endpoint.is_dns_name(bucket):
            raise exceptions.BadStoreConfiguration(
                _(
                    "The bucket %s cannot be a part of a host name: set s3_store_bucket_url_format "
                    "to path, or rename the bucket"
                )
                % bucket
            )
        if settings.authorities and not os.path.exists(settings.authorities):
            raise exceptions.BadStoreConfiguration(
                _("s3_store_cacert names the file %s, which is not there") % settings.authorities
            )
        check_credentials(settings)
        # Tells what is wrong with the options now and not at the first image. It has no connection.
        make_client(settings).s3.close()
        self._clients = Clients(settings)
        self._url_prefix = f"{settings.place.location_scheme}://{settings.place.host}/{bucket}"

    def _check_sizes(self) -> None:
        if self.s3_store_large_object_chunk_size < MIN_PART:
            raise exceptions.BadStoreConfiguration(
                _("s3_store_large_object_chunk_size is %d MiB; S3 wants parts of at least 5 MiB")
                % (self.s3_store_large_object_chunk_size // MIB)
            )
        if self.s3_store_large_object_chunk_size > MAX_PART:
            raise exceptions.BadStoreConfiguration(
                _(
                    "s3_store_large_object_chunk_size is %(size)d MiB; S3 takes parts of at most "
                    "%(limit)d MiB"
                )
                % {
                    "size": self.s3_store_large_object_chunk_size // MIB,
                    "limit": MAX_PART // MIB,
                }
            )
        if self.s3_store_thread_pools <= 0:
            raise exceptions.BadStoreConfiguration(
                _("s3_store_thread_pools is %d; it has to be at least 1")
                % self.s3_store_thread_pools
            )

    def storage_ids(self) -> set[str]:
        """Return the bucket."""
        if self._clients is None:
            return set()
        return {f"{self._clients.settings.place.shown}/{self.store_conf.s3_store_bucket}"}

    def check_health(self) -> str:
        """Look whether the bucket can be reached.

        :returns: the bucket and the address of the service
        :raises GlanceStoreException: it cannot be reached
        """
        return self._bucket.check(self._client())

    def _client(self) -> Client:
        if self._clients is None:
            # A store that cannot write because of an option may still read.
            self._clients = Clients(Settings.of(self.store_conf))
        return self._clients.current()

    # -- images

    def open_writer(self, image_id: str, size: int, context: Any = None) -> S3Writer:
        """Begin to store an image.

        :param image_id: id of the image, which becomes the name of the object
        :param size: bytes, 0 when unknown
        :param context: of no use here
        :returns: the writer, which has sent no image data yet
        :raises Duplicate: there is an object of this name
        :raises Forbidden: the service refuses
        :raises BackendException: there is no bucket, and it may not be created
        """
        client = self._client()
        place = client.settings.place
        location = self._place_for(image_id, place)
        clock = self._check_absence(client, self._bucket.name, image_id)
        self._bucket.ensure(client)
        return S3Writer(
            Upload(client, self._bucket, image_id, clock),
            location.get_uri(),
            size,
            self.s3_store_large_object_size,
            self.s3_store_large_object_chunk_size,
            self.s3_store_thread_pools,
        )

    def _place_for(self, image_id: str, place: endpoint.Endpoint) -> StoreLocation:
        """Return the location of a new image; refuse an id that makes none."""
        specs = {
            "scheme": place.location_scheme,
            "s3serviceurl": place.host,
            "bucket": self.store_conf.s3_store_bucket,
            "key": image_id,
        }
        location = StoreLocation(specs, self.conf, backend_group=self.backend_group)
        parsed = StoreLocation({}, self.conf, backend_group=self.backend_group)
        parsed.parse_uri(location.get_uri())
        if (parsed.bucket, parsed.key) != (location.bucket, location.key):
            raise exceptions.Invalid(
                _("%(image)r cannot be the id of an image in an S3 store"), image=image_id
            )
        return location

    def _check_absence(self, client: Client, bucket: str, key: str) -> ServiceClock | None:
        """Raise Duplicate if there is an object; return the service's time if it says so."""
        import botocore.exceptions

        def look() -> ServiceClock | None:
            asked = time.monotonic()
            try:
                client.s3.head_object(Bucket=bucket, Key=key)
            except botocore.exceptions.ClientError as exc:
                about = exc.response["ResponseMetadata"]
                if Answer.of(exc.response).status == 404:
                    return clock_of(about.get("HTTPHeaders") or {}, asked, time.monotonic())
                raise
            raise exceptions.Duplicate(_("Image %(image)s already exists"), image=key)

        return guarded(look, _("Looking for %(bucket)s/%(key)s") % {"bucket": bucket, "key": key})

    def open_reader(self, location: Location, context: Any = None) -> ImageReader:
        """Open an image.

        :param location: where it is; the host in it is not used, requests go to that of the options
        :param context: of no use here
        :returns: the reader, which resumes what breaks off
        :raises NotFound: there is no such object
        :raises Forbidden: the service refuses
        :raises RemoteServiceUnavailable: the service cannot be reached
        """
        client, place = self._client(), _place(location)
        reader = S3Reader(
            client,
            str(place.bucket),
            str(place.key),
            self.store_conf.s3_store_read_concurrency,
            self.read_size,
        )
        # What fails before there is a body has been tried again by the client.
        return ResumingStreamingReader(
            reader, client.settings.attempts - 1, transient=(TransferInterrupted,)
        )

    @capabilities.check
    def delete(self, location: Location, context: Any = None) -> None:
        """Remove an image.

        :param location: where it is
        :param context: of no use here
        :raises NotFound: there is no such object
        :raises Forbidden: the service refuses
        """
        client, place = self._client(), _place(location)
        name = {"Bucket": place.bucket, "Key": place.key}
        shown = f"{place.bucket}/{place.key}"
        action = _("Deleting %s") % shown
        guarded(lambda: client.s3.head_object(**name), action, shown)
        guarded(lambda: client.s3.delete_object(**name), action, shown)
        LOG.debug("Store %s: deleted %s", self.name, shown)


def _place(location: Location) -> StoreLocation:
    return cast("StoreLocation", location.store_location)
