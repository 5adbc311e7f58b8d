# SPDX-License-Identifier: Apache-2.0
"""The life of a volume: create, mark, extend, complete, delete.

A volume's metadata records its image and whether the image is complete. Volumes written before
release 6 have no `STATE` and are complete.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import time
from typing import Any

from glance_store import exceptions
from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.client import Api
from glance_store.i18n import _
from glance_store.transfer.retry import looks

LOG = logging.getLogger(__name__)

GiB = 1024**3

# Keys of a volume's metadata.
IMAGE_ID = "glance_image_id"
IMAGE_SIZE = "image_size"
IMAGE_OWNER = "image_owner"
STORE = "glance_store"
STATE = "glance_upload_state"
UPLOAD = "glance_upload_id"

UPLOADING = "uploading"
COMMITTING = "committing"
COMPLETE = "complete"

# The form of Cinder's ids.
_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# Statuses of volumes that are not images any more.
GOING = ("deleting", "managing", "error_managing")
# Statuses that end by themselves, before a volume can be deleted.
_PASSING = ("creating", "downloading", "detaching", "extending")
# Seconds that a replica of Cinder's database may not know a new volume.
_LAG = 5.0
# Seconds until a volume whose status should pass, or refused without a reason, counts as in use.
_DETACHING_LASTS = 10.0


def name_of(image_id: str) -> str:
    """Return the name of an image's volume."""
    return f"image-{image_id}"


@functools.cache
def _warn_of_refusal(cause: str) -> None:
    LOG.warning(
        "Cinder refuses to list volumes by name (%s): a second upload of an image that exists is "
        "not noticed. Allow it in Cinder's policy and resource_filters.json",
        cause,
    )


class Volumes:
    """Requests to Cinder about volumes."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def get(self, volume_id: str) -> Any:
        """Return a volume. Raises VolumeNotFound."""
        action = _("Looking up volume %s") % volume_id
        return self._api.call(action, lambda client: client.volumes.get(volume_id))

    def attachments(self, volume_id: str) -> list[Any]:
        """Return the attachments of a volume, to whatever host."""
        action = _("Looking for attachments of volume %s") % volume_id
        own = {"volume_id": volume_id}
        return list(self._api.call(action, lambda client: client.attachments.list(search_opts=own)))

    def detach(self, volume_id: str, attachment_id: str) -> None:
        """Delete an attachment, unless it or its volume is gone."""
        action = _("Detaching volume %s") % volume_id
        with contextlib.suppress(errors.VolumeNotFound):
            try:
                self._api.call(action, lambda client: client.attachments.delete(attachment_id))
            except errors.CinderUnavailable as exc:
                if isinstance(exc, errors.CinderTimeout):
                    raise
                LOG.debug("Sending the older request for the same thing: %s", exc.msg)
                self._api.call(
                    action,
                    lambda client: client.volumes.detach(volume_id, attachment_id),
                    again=False,
                )

    def image(self, volume_id: str) -> Any:
        """Return a volume that holds a complete image.

        Raises VolumeNotFound if there is none, it is going, or its image is incomplete.
        """
        volume = self.get(volume_id)
        state = volume.metadata.get(STATE, COMPLETE)
        if volume.status in GOING or state != COMPLETE:
            raise errors.VolumeNotFound(
                _(
                    "Volume %(volume)s holds part of an image, or none: its status is %(status)s, "
                    "its upload is %(state)s, or was interrupted"
                ),
                volume=volume_id,
                status=volume.status,
                state=state,
            )
        return volume

    def named(self, image_id: str) -> list[Any]:
        """Return the volumes with an image's name, except those being deleted.

        Returns none if Cinder refuses to list them: releases before 6 needed no right to do that.
        """
        name = name_of(image_id)
        try:
            found = self._api.call(
                _("Looking for volumes of image %s") % image_id,
                lambda client: client.volumes.list(search_opts={"name": name}),
            )
        except errors.CinderError as exc:
            if errors.status_of(exc.__cause__ or exc) not in (400, 403):
                raise
            _warn_of_refusal(errors.text_of(exc.__cause__ or exc))
            return []
        return [volume for volume in found if volume.name == name and volume.status not in GOING]

    def create(
        self, image_id: str, gigabytes: int, kind: str | None, metadata: dict[str, str]
    ) -> Any:
        """Request a new volume, which is not available yet.

        `kind` None means Cinder's default type; `metadata` must have the upload's own `UPLOAD`.
        """
        action = _("Creating a volume for image %s") % image_id

        def created() -> Any:
            return next(iter(self.of_upload(image_id, metadata[UPLOAD])), None)

        return self._api.settle(
            action,
            lambda client: client.volumes.create(
                gigabytes, name=name_of(image_id), volume_type=kind, metadata=metadata
            ),
            created,
        )

    def type_name(self, wanted: str | None) -> str | None:
        """Return a volume type's name, given its name or id.

        An id that Cinder does not know is returned unchanged, and so is None.
        """
        if not wanted or not _ID.fullmatch(wanted):
            return wanted
        action = _("Looking for volume type %s") % wanted
        try:
            kind = self._api.call(action, lambda client: client.volume_types.get(wanted))
        except (errors.VolumeNotFound, errors.CinderForbids):
            return wanted
        return str(kind.name)

    def of_upload(self, image_id: str, upload: str) -> list[Any]:
        """Return the volumes that one upload has created."""
        return [volume for volume in self.named(image_id) if volume.metadata.get(UPLOAD) == upload]

    def wait(self, volume_id: str, wanted: str, passing: tuple[str, ...]) -> Any:
        """Wait for a status, passing through others; return the volume.

        Raises CinderError if the volume takes another status, and CinderTimeout.
        """
        seconds = self._api.settings.state_timeout
        status = None
        lags_until = time.monotonic() + _LAG
        for _look in looks(seconds):
            try:
                volume = self.get(volume_id)
            except errors.VolumeNotFound:
                if time.monotonic() > lags_until:
                    raise
                continue
            status = volume.status
            if status == wanted:
                return volume
            if status not in passing:
                raise errors.CinderError(
                    _("Volume %(volume)s should have become %(wanted)s, but is %(status)s"),
                    volume=volume_id,
                    wanted=wanted,
                    status=status,
                )
        raise errors.CinderTimeout(
            _(
                "Volume %(volume)s is %(status)s; it did not become %(wanted)s within "
                "%(timeout)s seconds (cinder_state_transition_timeout)"
            ),
            volume=volume_id,
            status=status,
            wanted=wanted,
            timeout=seconds,
        )

    def extend(self, volume_id: str, gigabytes: int, attached: bool) -> Any:
        """Extend a volume and wait until it is larger; return it. Raises StorageFull."""
        status = "in-use" if attached else "available"
        action = _("Extending volume %(volume)s to %(size)d GiB") % {
            "volume": volume_id,
            "size": gigabytes,
        }

        def extends() -> bool | None:
            found = self.get(volume_id)
            return found.status == "extending" or found.size >= gigabytes or None

        try:
            self._api.settle(
                action, lambda client: bool(client.volumes.extend(volume_id, gigabytes)), extends
            )
            volume = self.wait(volume_id, status, ("extending",))
        except (exceptions.StorageFull, errors.CinderUnavailable):
            raise
        except errors.CinderError as exc:
            raise errors.QuotaExceeded(
                _("%(action)s failed: %(cause)s"), action=action, cause=exc.msg
            ) from exc
        if volume.size < gigabytes:
            # If extending fails, Cinder restores the previous status.
            raise errors.QuotaExceeded(
                _("%(action)s failed: it still has %(size)d GiB"), action=action, size=volume.size
            )
        return volume

    def set_metadata(self, volume_id: str, metadata: dict[str, str]) -> None:
        """Add to a volume's metadata."""
        action = _("Setting metadata of volume %s") % volume_id
        self._api.call(action, lambda client: client.volumes.set_metadata(volume_id, metadata))

    def set_read_only(self, volume_id: str) -> None:
        """Allow a volume to be attached only for reading from now on."""
        action = _("Making volume %s read-only") % volume_id
        self._api.call(action, lambda client: client.volumes.update_readonly_flag(volume_id, True))

    def delete(self, volume_id: str) -> None:
        """Start deleting a volume; Cinder finishes after the call.

        Raises VolumeNotFound, VolumeHasSnapshots, or VolumeInUse if it is attached or busy.
        """
        action = _("Deleting volume %s") % volume_id

        def gone() -> bool | None:
            try:
                return self.get(volume_id).status == "deleting" or None
            except errors.VolumeNotFound:
                return True

        for _look in looks(_DETACHING_LASTS):
            try:
                self._api.settle(
                    action, lambda client: bool(client.volumes.delete(volume_id)), gone
                )
                return
            except errors.CinderError as exc:
                if errors.status_of(exc.__cause__ or exc) not in (400, 409):
                    raise
                volume = self.get(volume_id)
                reason = self._why_not_deleted(volume, exc)
                # A download that has just ended releases the volume in a moment.
                if not isinstance(reason, errors.VolumeBusy) and volume.status not in _PASSING:
                    raise reason from exc
        raise reason

    def _why_not_deleted(self, volume: Any, exc: errors.CinderError) -> errors.CinderError:
        values = {"volume": volume.id, "status": volume.status}
        if volume.status in GOING:
            # Somebody else deleted it first.
            return errors.VolumeNotFound(_("Volume %(volume)s is already %(status)s"), **values)
        if volume.attachments or not volume.status.startswith(("available", "error")):
            return errors.VolumeInUse(
                _("Volume %(volume)s is in use (its status is %(status)s)"), **values
            )
        snapshots = self._api.call(
            _("Looking for snapshots of volume %s") % volume.id,
            lambda client: client.volume_snapshots.list(search_opts={"volume_id": volume.id}),
        )
        if snapshots:
            return errors.VolumeHasSnapshots(
                _("Volume %(volume)s has snapshots; delete them first"), **values
            )
        if volume.status != "available":
            return exc
        # It is being migrated, belongs to a group, or the reason has just passed.
        return errors.VolumeBusy(exc.msg)

    def discard(self, volume_id: str) -> None:
        """Delete the volume of a failed upload by all available means.

        Raises CinderError if it is still there; the text says what to do.
        """
        action = _("Deleting volume %s of a failed upload") % volume_id
        # Not by `delete`: what fails here may be looking at the volume.
        for _look in looks(_DETACHING_LASTS):
            try:
                self._api.call(action, lambda client: client.volumes.delete(volume_id))
                return
            except errors.VolumeNotFound:
                return
            except errors.CinderError as exc:
                problem = exc
                if errors.status_of(exc.__cause__ or exc) not in (400, 409):
                    break
            # It is still being created, or attached by requests whose answers were lost.
            try:
                for attachment in self.attachments(volume_id):
                    self.detach(volume_id, attachment.id)
            except errors.CinderError as exc:
                LOG.debug("%s", exc.msg)
        try:
            self._api.call(action, lambda client: client.volumes.force_delete(volume_id))
        except errors.VolumeNotFound:
            return
        except errors.CinderError as exc:
            LOG.debug("Forced deletion of volume %s failed too: %s", volume_id, exc.msg)
            raise errors.CinderError(
                _(
                    "Volume %(volume)s of a failed upload is left behind; an operator must delete "
                    "it: %(cause)s"
                ),
                volume=volume_id,
                cause=problem.msg,
            ) from problem


def image_bytes(volume: Any) -> int:
    """Return the size in bytes of the image on a volume."""
    try:
        size = int(volume.metadata[IMAGE_SIZE])
    except (KeyError, TypeError, ValueError):
        size = -1
    # Without a recorded size, the image is the whole volume.
    return size if size >= 0 else int(volume.size) * GiB
