# SPDX-License-Identifier: Apache-2.0
"""Writes one image to a new volume, whose metadata marks it as incomplete until the end."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers.cinder import errors, volumes
from glance_store._drivers.cinder.attachment import Attachment
from glance_store._drivers.cinder.connector import refuse_encryption
from glance_store._drivers.cinder.volumes import GiB
from glance_store.i18n import _

if TYPE_CHECKING:
    from glance_store._drivers.cinder.client import Api
    from glance_store._drivers.cinder.store import Store

LOG = logging.getLogger(__name__)

# In GiB: below this, a full volume doubles; above, it grows by half, at most by the largest step.
_DOUBLED_UP_TO = 16
_LARGEST_STEP = 64

# Seconds that a rival upload may take for its last steps.
_COMMIT_TIMEOUT = 30.0
_COMMIT_POLL = 0.1


def gigabytes(size: int) -> int:
    """Return the size in GiB of a volume for this many bytes."""
    return max(1, -(-size // GiB))


def grown(current: int, needed: int) -> int:
    """Return the next size in GiB of a full volume, at least `needed`.

    A volume cannot shrink, and every extension takes a while. So small volumes double, and those of
    16 GiB and more grow by half, at most by 64 GiB.
    """
    step = current if current < _DOUBLED_UP_TO else min(current // 2, _LARGEST_STEP)
    return max(current + step, needed)


class CinderWriter:
    """A `StoreWriter` to a new volume.

    `api` has the credentials of the request, and `project` owns the image if it has one.
    """

    @errors.never_missing()
    def __init__(
        self,
        store: Store,
        api: Api,
        image_id: str,
        size: int,
        project: str | None,
    ) -> None:
        self.metadata: dict[str, Any] = {}
        self.block_size = store.WRITE_CHUNKSIZE
        self._store = store
        self._api = api
        self._volumes = volumes.Volumes(api)
        self._image_id = image_id
        self._marks = {
            volumes.IMAGE_ID: image_id,
            volumes.IMAGE_OWNER: str(project or ""),
            volumes.STORE: store.backend_group or "",
            volumes.STATE: volumes.UPLOADING,
            volumes.UPLOAD: str(uuid.uuid4()),
        }
        self._extend_attached = store.store_conf.cinder_do_extend_attached
        self._room = threading.Condition()
        self._writing = 0  # running write() calls
        self._extending = False
        self._attachment: Attachment | None = None
        self._volume: Any = None
        kind = self._volumes.type_name(store.store_conf.cinder_volume_type or None)
        # An incomplete volume may be left of a killed process.
        if volumes.COMPLETE in self._states(kind).values():
            raise exceptions.Duplicate(image=image_id)
        try:
            self._volume = self._create(gigabytes(size), kind)
            # Before anything is attached.
            refuse_encryption(self._volume, {})
            self._volume = self._volumes.wait(
                self._volume.id, "available", ("creating", "downloading")
            )
            self._attach()
        except BaseException:
            try:
                self.abort()
            except Exception as exc:  # noqa: BLE001 - the first error is on its way
                LOG.error("%s", exc)
            raise

    def _states(self, kind: str | None) -> dict[str, str]:
        """Return the states of other volumes of the image in the same store, by id.

        Stores of one configuration may share a project, and each may hold the image. `kind` None
        accepts any volume type.
        """
        own, store = self._volume and self._volume.id, self._marks[volumes.STORE]
        return {
            volume.id: volume.metadata.get(volumes.STATE, volumes.COMPLETE)
            for volume in self._volumes.named(self._image_id)
            if volume.id != own
            and volume.metadata.get(volumes.IMAGE_ID) == self._image_id
            and volume.volume_type == (kind or volume.volume_type)
            and volume.metadata.get(volumes.STORE, store) == store
            and not volume.status.startswith("error")
        }

    def _create(self, size: int, kind: str | None) -> Any:
        try:
            return self._volumes.create(self._image_id, size, kind, self._marks)
        except errors.VolumeNotFound as exc:
            # Only what the request names can be missing.
            raise errors.CinderMisconfigured(
                store_name=self._store.name,
                reason=_("Cinder has no volume type %(kind)s (cinder_volume_type): %(cause)s")
                % {"kind": kind, "cause": exc.msg},
            ) from exc

    @property
    def uri(self) -> str:
        """The location of the image."""
        return self._store.uri(self._volume.id)

    @property
    def _attached(self) -> Attachment:
        if self._attachment is None:
            raise errors.CinderError(
                _("Volume %(volume)s is no longer attached"), volume=self._volume.id
            )
        return self._attachment

    def _attach(self) -> None:
        self._attachment = self._store.attach(self._api, self._volume, writable=True, fresh=True)
        # Cinder may create more than requested, and a format may use part of it.
        device = self._attachment.device
        self._capacity = device.size()
        # Copied, as threads need it even while the volume is detached for extension.
        self.concurrency = device.write_concurrency
        # Only a new volume known to read as zeros may have holes.
        self.holes = device.reads_zeros

    def _detach(self) -> None:
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.detach()

    def _flush_and_detach(self) -> None:
        with errors.device_errors(self._volume.id, writing=True):
            self._attached.device.flush()
        self._detach()
        # Cinder may be at it still, if a balancer has given up waiting.
        self._volumes.wait(self._volume.id, "available", ("in-use", "detaching"))

    # -- writing

    def write(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset, and extend the volume if necessary."""
        self._make_room(offset + len(block))
        try:
            with errors.device_errors(self._volume.id, writing=True):
                self._attached.device.write_at(offset, block)
        finally:
            with self._room:
                self._writing -= 1
                self._room.notify_all()

    def _make_room(self, end: int) -> None:
        """Extend the volume if it is too small, while no write runs; then count a write in."""
        while True:
            with self._room:
                while self._extending or (end > self._capacity and self._writing):
                    self._room.wait()
                if end <= self._capacity:
                    self._writing += 1
                    return
                self._extending = True
            try:
                self._extend(end)
            finally:
                with self._room:
                    self._extending = False
                    self._room.notify_all()

    @errors.never_missing()
    def _extend(self, end: int) -> None:
        wanted = grown(int(self._volume.size), gigabytes(end))
        attached = self._extend_attached and self._attached.grows
        if not attached:
            self._flush_and_detach()
        self._volume = self._volumes.extend(self._volume.id, wanted, attached)
        if attached:
            self._attached.refresh()
            self._capacity = self._attached.device.size()
        else:
            self._attach()
        if end > self._capacity:
            raise exceptions.StorageFull(
                _(
                    "Volume %(volume)s was extended to %(size)d GiB, but its device is not "
                    "large enough"
                ),
                volume=self._volume.id,
                size=wanted,
            )

    # -- the end

    @errors.never_missing()
    def commit(self, size: int) -> None:
        """Flush and detach the volume, make it read-only, and mark it as complete."""
        if size > self._capacity:
            # The image ends in a hole, which was not written.
            self._extend(size)
        self._flush_and_detach()
        marks = {volumes.IMAGE_SIZE: str(size), volumes.STATE: volumes.COMMITTING}
        self._volumes.set_metadata(self._volume.id, marks)
        self._require_first()
        self._volumes.set_read_only(self._volume.id)
        self._volumes.set_metadata(self._volume.id, {volumes.STATE: volumes.COMPLETE})

    def _require_first(self) -> None:
        """Raise Duplicate unless this upload of the image is the first to get here.

        If two see each other, the one with the higher volume id gives way. The other waits, since
        its rival may have looked before this one was visible.
        """
        deadline = time.monotonic() + _COMMIT_TIMEOUT
        while True:
            states = self._states(self._volume.volume_type)
            if any(
                state == volumes.COMPLETE
                or (state == volumes.COMMITTING and rival < self._volume.id)
                for rival, state in states.items()
            ):
                raise exceptions.Duplicate(image=self._image_id)
            if volumes.COMMITTING not in states.values() or time.monotonic() > deadline:
                # A rival that takes longer was killed at its last step.
                return
            time.sleep(_COMMIT_POLL)

    def abort(self) -> None:
        """Detach and delete the volume.

        Raises CinderError if something is left behind; the text says what, and what to do.
        """
        problems = []
        try:
            self._detach()
        except errors.CinderError as exc:
            problems.append(str(exc.msg))
        try:
            # Includes a volume whose creation was never answered.
            own = [self._volume]
            if self._volume is None:
                own = self._volumes.of_upload(self._image_id, self._marks[volumes.UPLOAD])
            for volume in own:
                self._volumes.discard(volume.id)
        except errors.CinderError as exc:
            problems.append(str(exc.msg))
        if problems:
            raise errors.CinderError("; ".join(problems))
