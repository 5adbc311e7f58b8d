# SPDX-License-Identifier: Apache-2.0
"""The life of a volume: created, marked, extended, completed, deleted.

The metadata of a volume say whose image it is, and whether it is all there. Volumes of releases
before 6 have no `STATE`: they are complete.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.client import Api
from glance_store.i18n import _

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

# The form that the ids of Cinder have.
_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GOING = ("deleting", "managing", "error_managing")
_FIRST_POLL = 0.1
_LONGEST_POLL = 5.0
_DELETE_TRIES = 6
# Seconds after which a volume that is being detached, or refused for no reason, counts as in use.
_DETACHING_LASTS = 10.0


def name_of(image_id: str) -> str:
    """Return the name of the volume of an image.

    :param image_id: id of the image
    """
    return f"image-{image_id}"


def pauses(seconds: float) -> Iterator[None]:
    """Yield at once and then after waits that grow, as long as the time lasts.

    :param seconds: the time
    """
    pause, deadline = _FIRST_POLL, time.monotonic() + seconds
    yield
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(1.6 * pause, _LONGEST_POLL)
        yield


class Volumes:
    """What is done to volumes through the API.

    :param api: who asks
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def get(self, volume_id: str) -> Any:
        """Return a volume.

        :param volume_id: its id
        :raises VolumeNotFound: there is none
        """
        action = _("Looking up volume %s") % volume_id
        return self._api.call(action, lambda client: client.volumes.get(volume_id))

    def image(self, volume_id: str) -> Any:
        """Return a volume that holds a complete image.

        :param volume_id: its id
        :raises VolumeNotFound: there is none, it is being deleted, or it holds a part of an image
        """
        volume = self.get(volume_id)
        if volume.status in _GOING:
            raise errors.VolumeNotFound(
                _("Volume %(volume)s holds no image: it is %(status)s"),
                volume=volume_id,
                status=volume.status,
            )
        state = volume.metadata.get(STATE, COMPLETE)
        if state != COMPLETE:
            raise errors.VolumeNotFound(
                _(
                    "Volume %(volume)s holds a part of an image only: its upload is %(state)s, or "
                    "was broken off"
                ),
                volume=volume_id,
                state=state,
            )
        return volume

    def named(self, image_id: str) -> list[Any]:
        """Return the volumes that have the name of an image and are not being deleted.

        :param image_id: id of the image
        """
        name = name_of(image_id)
        found = self._api.call(
            _("Looking for volumes of image %s") % image_id,
            lambda client: client.volumes.list(search_opts={"name": name}),
        )
        return [volume for volume in found if volume.name == name and volume.status not in _GOING]

    def create(
        self, image_id: str, gigabytes: int, kind: str | None, metadata: dict[str, str]
    ) -> Any:
        """Ask for a new volume; it is not available yet.

        :param image_id: id of the image
        :param gigabytes: size
        :param kind: volume type, None for Cinder's default
        :param metadata: of the volume, with an `UPLOAD` of this very upload
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
        """Return the name of a volume type that is given by its name or its id.

        :param wanted: name or id; None and nothing stay as they are
        :returns: the name; what was given, where Cinder knows no type of that id
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
        """Return the volumes that an upload has created.

        :param image_id: id of the image
        :param upload: the value of `UPLOAD`
        """
        return [volume for volume in self.named(image_id) if volume.metadata.get(UPLOAD) == upload]

    def wait(
        self,
        volume_id: str,
        wanted: str,
        passing: tuple[str, ...],
        reached: Callable[[Any], bool] = lambda _volume: True,
    ) -> Any:
        """Wait for a status.

        :param volume_id: id of the volume
        :param wanted: the status
        :param passing: what the status may be on the way there
        :param reached: what else has to be true of the volume
        :returns: the volume
        :raises CinderError: the volume has gone another way
        :raises CinderTimeout: it takes longer than the option allows
        """
        seconds = self._api.settings.state_timeout
        status = None
        for _poll in pauses(seconds):
            volume = self.get(volume_id)
            status = volume.status
            if status == wanted and reached(volume):
                return volume
            if status not in (*passing, wanted):
                raise errors.CinderError(
                    _("Volume %(volume)s should have become %(wanted)s, and is %(status)s"),
                    volume=volume_id,
                    wanted=wanted,
                    status=status,
                )
        raise errors.CinderTimeout(
            _(
                "Volume %(volume)s is %(status)s, and did not become %(wanted)s within %(timeout)s "
                "seconds (cinder_state_transition_timeout)"
            ),
            volume=volume_id,
            status=status,
            wanted=wanted,
            timeout=seconds,
        )

    def extend(self, volume_id: str, gigabytes: int, attached: bool) -> Any:
        """Make a volume larger, and wait until it is.

        :param volume_id: id of the volume
        :param gigabytes: its new size
        :param attached: whether it is attached meanwhile
        :returns: the volume
        :raises StorageFull: Cinder cannot
        """
        status = "in-use" if attached else "available"
        action = _("Extending volume %(volume)s to %(size)d GiB") % {
            "volume": volume_id,
            "size": gigabytes,
        }
        try:
            self._ask_to_extend(action, volume_id, gigabytes)
            return self.wait(
                volume_id,
                status,
                ("extending",),
                # Cinder goes back to the status from before when it fails.
                lambda volume: volume.size >= gigabytes or self._cannot_extend(volume, gigabytes),
            )
        except (exceptions.StorageFull, errors.CinderTimeout, errors.CinderUnavailable):
            raise
        except errors.CinderError as exc:
            raise errors.QuotaExceeded(
                _("%(action)s has failed: %(cause)s"), action=action, cause=exc.msg
            ) from exc

    def _ask_to_extend(self, action: str, volume_id: str, gigabytes: int) -> None:
        def extends() -> bool | None:
            volume = self.get(volume_id)
            return volume.status == "extending" or volume.size >= gigabytes or None

        self._api.settle(
            action, lambda client: bool(client.volumes.extend(volume_id, gigabytes)), extends
        )

    @staticmethod
    def _cannot_extend(volume: Any, gigabytes: int) -> bool:
        raise errors.CinderError(
            _("volume %(volume)s has %(size)d GiB still, and not %(wanted)d"),
            volume=volume.id,
            size=volume.size,
            wanted=gigabytes,
        )

    def set_metadata(self, volume_id: str, metadata: dict[str, str]) -> None:
        """Add to the metadata of a volume.

        :param volume_id: id of the volume
        :param metadata: keys and values
        """
        action = _("Setting metadata of volume %s") % volume_id
        self._api.call(action, lambda client: client.volumes.set_metadata(volume_id, metadata))

    def set_read_only(self, volume_id: str) -> None:
        """Have a volume attached for reading only from now on.

        :param volume_id: id of the volume
        """
        action = _("Making volume %s read-only") % volume_id
        self._api.call(action, lambda client: client.volumes.update_readonly_flag(volume_id, True))

    def delete(self, volume_id: str) -> None:
        """Have a volume deleted. Cinder goes on with it after the call.

        :param volume_id: id of the volume
        :raises VolumeNotFound: there is none
        :raises VolumeInUse: it is attached, or something else is done with it
        :raises VolumeHasSnapshots: it has snapshots
        """
        action = _("Deleting volume %s") % volume_id
        for _pause in pauses(_DETACHING_LASTS):
            try:
                self._api.call(action, lambda client: client.volumes.delete(volume_id))
                return
            except errors.CinderError as exc:
                if errors.status_of(exc.__cause__ or exc) not in (400, 409):
                    raise
                volume = self.get(volume_id)
                reason = self._why_not_deleted(volume, exc)
                # A download that has just ended lets go of the volume in a moment.
                if not isinstance(reason, errors.VolumeBusy) and volume.status != "detaching":
                    raise reason from exc
        raise reason

    def _why_not_deleted(self, volume: Any, exc: errors.CinderError) -> errors.CinderError:
        values = {"volume": volume.id, "status": volume.status}
        if volume.status in _GOING:
            # Somebody was quicker.
            return errors.VolumeNotFound(_("Volume %(volume)s is %(status)s already"), **values)
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
                _("Volume %(volume)s has snapshots, which have to be deleted first"), **values
            )
        if volume.status != "available":
            return exc
        # It is moved, belongs to a group, or the reason has just passed.
        return errors.VolumeBusy(exc.msg)

    def discard(self, volume_id: str) -> None:
        """Delete the volume of a failed upload, with all means there are.

        :param volume_id: id of the volume
        :raises CinderError: it is still there; the text says what to do
        """
        action = _("Deleting volume %s of a failed upload") % volume_id
        problem: errors.CinderError | None = None
        for attempt, _pause in enumerate(pauses(self._api.settings.state_timeout)):
            try:
                self._api.call(action, lambda client: client.volumes.delete(volume_id))
                return
            except errors.VolumeNotFound:
                return
            except errors.CinderError as exc:
                problem = exc
                # Still being created, or not quite detached.
                if errors.status_of(exc.__cause__ or exc) not in (400, 409):
                    break
            if attempt >= _DELETE_TRIES:
                break
            self._release(volume_id)
        try:
            self._api.call(action, lambda client: client.volumes.force_delete(volume_id))
        except errors.VolumeNotFound:
            return
        except errors.CinderError as exc:
            LOG.debug("Forced deletion of volume %s has failed, too: %s", volume_id, exc.msg)
        else:
            return
        raise errors.CinderError(
            _(
                "Volume %(volume)s of a failed upload is left behind and has to be deleted by an "
                "operator: %(cause)s"
            ),
            volume=volume_id,
            cause=problem.msg if problem else "",
        )

    def _release(self, volume_id: str) -> None:
        """Delete attachments that a failed upload does not know of: their answers were lost."""
        action = _("Detaching volume %s of a failed upload") % volume_id
        try:
            found = self._api.call(
                action,
                lambda client: client.attachments.list(search_opts={"volume_id": volume_id}),
            )
            self._api.call(
                action, lambda client: [client.attachments.delete(one.id) for one in found]
            )
        except errors.CinderError as exc:
            # What counts is whether the volume goes, which is tried again.
            LOG.debug("%s", exc.msg)


def image_bytes(volume: Any) -> int:
    """Return the bytes of the image on a volume.

    :param volume: of cinderclient
    """
    try:
        size = int(volume.metadata[IMAGE_SIZE])
    except (KeyError, TypeError, ValueError):
        size = -1
    # Where nobody has noted it, the image is all of the volume.
    return size if size >= 0 else int(volume.size) * GiB
