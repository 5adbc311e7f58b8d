# SPDX-License-Identifier: Apache-2.0
"""The Cinder store."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from glance_store import capabilities, driver, exceptions
from glance_store._drivers._network import check_authorities, in_words
from glance_store._drivers.cinder import errors, holdings, host, volumes
from glance_store._drivers.cinder.attachment import Attachment
from glance_store._drivers.cinder.client import ATTACHMENTS, Api, Clients, library
from glance_store._drivers.cinder.location import StoreLocation
from glance_store._drivers.cinder.options import OPTIONS
from glance_store._drivers.cinder.reader import CinderReader
from glance_store._drivers.cinder.writer import CinderWriter
from glance_store.i18n import _
from glance_store.transfer.download import clip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glance_store.inventory import Leftover, StoredImage
    from glance_store.location import Location

__all__ = ["Store", "StoreLocation"]

LOG = logging.getLogger(__name__)

_ANY_VERSION = "3.0"


class Store(driver.Store):
    """Stores images as Cinder volumes, attached to this host while they are written or read."""

    _CAPABILITIES: int = (
        capabilities.BitMasks.READ_RANDOM
        | capabilities.BitMasks.WRITE_ACCESS
        | capabilities.BitMasks.DRIVER_REUSABLE
    )
    OPTIONS = OPTIONS
    EXAMPLE_URL = "cinder://<VOLUME_ID>"

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return ("cinder",)

    # -- configuration

    def configure(self, re_raise_bsc: bool = False) -> None:
        """Read the options again and prepare the store.

        :param re_raise_bsc: also raise the error that makes the store read-only
        :raises BadStoreConfiguration: writing is impossible, and `re_raise_bsc` is set
        """
        for made in ("_clients", "_host"):
            vars(self).pop(made, None)
        super().configure(re_raise_bsc)

    def configure_add(self) -> None:
        """Check that the libraries are installed and that Cinder has the volume type.

        :raises BadStoreConfiguration: a library is missing
        """
        self._url_prefix = f"cinder://{self.backend_group or ''}"
        self._require_library()
        self._host = host.prepare(self.conf, self.store_conf, self.name)
        self._check_authorities()
        if self._clients.has_credentials and self.store_conf.cinder_volume_type:
            self._clients = self._new_clients(hurried=True)
            try:
                self._look_for_type(self.store_conf.cinder_volume_type)
            finally:
                self._clients = self._new_clients()

    def _require_library(self) -> None:
        if library() is None:
            raise exceptions.BadStoreConfiguration(
                store_name=self.name,
                reason=_("cinderclient is missing: pip install 'glance_store[cinder]'"),
            )

    def _check_authorities(self) -> None:
        authorities = self._clients.settings.verify
        if not isinstance(authorities, str):
            return
        try:
            check_authorities(authorities)
        except OSError as exc:
            # Later this would look like an outage.
            raise exceptions.BadStoreConfiguration(
                store_name=self.name,
                reason=_(
                    "cinder_ca_certificates_file names %(path)s, which holds no certificates: "
                    "%(cause)s"
                )
                % {"path": authorities, "cause": in_words(exc)},
            ) from exc

    def _look_for_type(self, wanted: str) -> None:
        """Warn early that uploads will fail. Cinder may be down now and come back."""
        api = self._api(None)
        action = _("Looking for volume type %s") % wanted
        try:
            types = api.call(action, lambda client: list(client.volume_types.list()))
        except errors.CinderError as exc:
            LOG.warning("Store %s: the volume type cannot be checked: %s", self.name, exc.msg)
            return
        if wanted not in [name for kind in types for name in (kind.name, kind.id)]:
            LOG.warning(
                "Store %s: Cinder has no volume type %s, so uploads will fail: create it, or "
                "correct cinder_volume_type",
                self.name,
                wanted,
            )

    @functools.cached_property
    def _clients(self) -> Clients:
        return self._new_clients()

    def _new_clients(self, hurried: bool = False) -> Clients:
        counted = self._is_set("cinder_http_retries")
        return Clients(self.store_conf, self.name, counted, hurried)

    @functools.cached_property
    def _host(self) -> host.Host:
        return host.prepare(self.conf, self.store_conf, self.name)

    def get_cinderclient(self, context: Any = None, version: str = _ANY_VERSION) -> Any:
        """Return a client of cinderclient.

        :param context: the request's context; required unless the store has its own credentials
        :param version: microversion of Cinder's API
        :raises BadStoreConfiguration: there are no credentials, or no address of Cinder
        """
        self._require_library()
        return self._clients.make(context, version)

    def _api(self, context: Any, version: str = _ANY_VERSION) -> Api:
        return Api(self.get_cinderclient(context, version=version), self._clients.settings)

    def attach(self, api: Api, volume: Any, *, writable: bool, fresh: bool) -> Attachment:
        """Attach a volume to this host.

        :param api: Cinder's API, of the same request
        :param volume: the volume, as cinderclient represents it
        :param writable: to write the image, otherwise to read it
        :param fresh: nobody else can know of the volume yet
        :raises CinderError: the volume cannot be attached
        """
        attempts = self.store_conf.cinder_attachment_retry_attempts
        return Attachment(
            api, self._host, volume, writable=writable, attempts=attempts, fresh=fresh
        )

    def uri(self, volume_id: str) -> str:
        """Return the location of the image on a volume."""
        specs = {"volume_id": volume_id}
        return StoreLocation(specs, self.conf, backend_group=self.backend_group).get_uri()

    def check_health(self) -> str:
        """Check that Cinder answers.

        :returns: the state in a few words
        :raises StorageFull: the quota of the project is used up
        :raises CinderError: Cinder does not answer
        """
        if not self._clients.has_credentials:
            return "ok, as far as can be told without a request's credentials"
        action = _("Asking Cinder for the limits of the project")
        try:
            limits = self._api(None).call(action, lambda client: client.limits.get().to_dict())
        except errors.CinderForbids:
            # It answers, and knows the user, who may store images all the same.
            limits = {}
        found = limits.get("absolute") or {}
        room, used = found.get("maxTotalVolumeGigabytes"), found.get("totalGigabytesUsed")
        if used is None:
            return "ok"
        of_all = "" if room is None or room < 0 else f" of {room}"
        if of_all and used >= room:
            raise errors.QuotaExceeded(
                _("All %(room)d GiB of the project's quota are used"), room=room
            )
        return f"ok, {used}{of_all} GiB of the quota used"

    def _own_api(self) -> Api:
        """Return the API with the store's credentials."""
        if not self._clients.has_credentials:
            raise exceptions.UnsupportedBackend(
                f"Store {self.name} cannot list its images: it has no credentials of its own "
                "(cinder_store_user_name)"
            )
        return self._api(None, ATTACHMENTS)

    def images(self) -> Iterator[StoredImage]:
        """Yield the volumes that hold images in the project of the store's user."""
        return holdings.images(self._own_api(), self.backend_group or "", self.uri)

    def leftovers(self, older_than: float) -> Iterator[Leftover]:
        """Yield volumes of interrupted uploads, and attachments left by killed processes.

        What killed processes of another host left attached is found on that host.

        :param older_than: seconds since Cinder last changed the volume's record
        """
        return holdings.leftovers(self._own_api(), self._host, self.backend_group or "", older_than)

    # -- images

    def open_writer(self, image_id: str, size: int, context: Any = None) -> CinderWriter:
        """Begin to store an image on a new volume.

        :param image_id: the image's id
        :param size: bytes, 0 if unknown
        :param context: the request's context, whose project owns the image; needed unless the store
            has credentials of its own
        :raises BadStoreConfiguration: there are no credentials, or no address of Cinder
        :raises Duplicate: the image already exists
        :raises StorageFull: there is no space, or the quota is used up
        :raises CinderError: Cinder or this host failed
        """
        api = self._api(context, ATTACHMENTS)
        return CinderWriter(self, api, str(image_id), size, getattr(context, "project_id", None))

    def open_reader(self, location: Location, context: Any = None) -> CinderReader:
        """Open an image by attaching its volume.

        :param location: the image's location
        :param context: the request's context; required unless the store has its own credentials
        :returns: the reader, which detaches the volume when closed
        :raises NotFound: there is no such volume, or it holds only part of an image
        :raises CinderError: the volume cannot be attached
        """
        return self.open_range(location, 0, None, context)

    def open_range(
        self, location: Location, offset: int, length: int | None, context: Any = None
    ) -> CinderReader:
        """Open a range of an image, as `open_reader` does; for an empty one, nothing is attached.

        :param location: the image's location
        :param offset: first byte to read
        :param length: maximum number of bytes to read; None: up to the end
        :param context: the request's context
        """
        api = self._api(context, ATTACHMENTS)
        volume = volumes.Volumes(api).image(_volume_id(location))
        size, attachment = volumes.image_bytes(volume), None
        if clip(size, offset, length):
            attachment = self.attach(api, volume, writable=False, fresh=False)
        return CinderReader(volume.id, size, attachment)

    def get_size(self, location: Location, context: Any = None) -> int:
        """Return the size of an image, without attaching its volume.

        :param location: the image's location
        :param context: the request's context; required unless the store has its own credentials
        :raises NotFound: there is no such volume, or it holds only part of an image
        :raises CinderError: Cinder does not say
        """
        found = volumes.Volumes(self._api(context)).image(_volume_id(location))
        return volumes.image_bytes(found)

    @capabilities.check
    def delete(self, location: Location, context: Any = None) -> None:
        """Start deleting an image's volume; Cinder finishes after the call.

        :param location: the image's location
        :param context: the request's context; required unless the store has its own credentials
        :raises NotFound: there is no such volume
        :raises InUseByStore: it is attached, for example because the image is being read
        :raises HasSnapshot: it has snapshots
        :raises CinderError: Cinder refuses
        """
        volumes.Volumes(self._api(context)).delete(_volume_id(location))

    def is_image_associated_with_store(self, context: Any, volume_id: str) -> bool:
        """Tell whether a volume belongs to this store.

        :param context: the request's context
        :param volume_id: the volume's id
        :returns: whether it has the type of this store's volumes; False if Cinder cannot be asked,
            because the image service calls this while listing images, and an error would make all
            of them unreachable
        """
        try:
            api = self._api(context)
            volume = volumes.Volumes(api).get(volume_id)
            wanted = volumes.Volumes(api).type_name(self.store_conf.cinder_volume_type)
            if not wanted:
                action = _("Looking for the default volume type")
                default = api.call(action, lambda client: client.volume_types.default())
                wanted = default.name if default else None
        except Exception as exc:  # noqa: BLE001 - see the docstring
            LOG.warning("Store %s: %s", self.name, errors.text_of(exc))
            return False
        return bool(wanted and volume.volume_type == wanted)


def _volume_id(location: Location) -> str:
    volume_id: str = location.store_location.volume_id  # type: ignore[attr-defined]
    return volume_id
