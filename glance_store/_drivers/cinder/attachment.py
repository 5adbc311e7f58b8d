# SPDX-License-Identifier: Apache-2.0
"""Attachments: a volume reserved, brought to this host, opened; and all of that undone, once."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from typing import Any

from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.brick import Host
from glance_store._drivers.cinder.client import Api
from glance_store._drivers.cinder.connector import Connector, ScaleIOConnector
from glance_store._drivers.cinder.device import Device
from glance_store._drivers.cinder.nfs import NFSConnector
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# Cinder's words when a volume is busy: another operation will end, others of its refusals will not.
_BUSY = re.compile(r"status must be .*(available|in-use|downloading).* to reserve", re.DOTALL)
_LONGEST_PAUSE = 10.0
_POLL = (0.05, 0.4)
_DELETE_TRIES = 5
# How long a process may take from a reservation to the next step; one that takes longer has died.
_RESERVATION_LASTS = 5.0

_CONNECTORS: dict[str, type[Connector]] = {"nfs": NFSConnector, "scaleio": ScaleIOConnector}


class Attachment:
    """One volume at this host, from the constructor to `detach`.

    :param api: who asks Cinder
    :param host: this host
    :param volume: of cinderclient
    :param writable: whether it will be written
    :param attempts: how often a busy volume is tried
    :param fresh: whether nobody else can know of the volume
    :raises CinderError: it cannot be attached; nothing of it is left
    """

    def __init__(
        self, api: Api, host: Host, volume: Any, *, writable: bool, attempts: int, fresh: bool
    ) -> None:
        self._api = api
        self._host = host
        self.volume = volume
        self._writable = writable
        self._fresh = fresh
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._connector: Connector | None = None
        self._detached = False
        self.device: Device
        # What so many attempts with growing pauses would wait in all.
        self._patience = sum(min(2.0**number, _LONGEST_PAUSE) for number in range(attempts - 1))
        self._deadline: float | None = None
        while True:
            self._id = self._reserve()
            try:
                self._connect()
            except BaseException as exc:
                self._give_back()
                if _is_conflict(exc) and self._wait():
                    # Another host was quicker after both had reserved the volume.
                    continue
                raise
            return

    @property
    def grows(self) -> bool:
        """Whether the volume can be extended while it is attached."""
        return self._connector is not None and self._connector.grows

    def refresh(self) -> None:
        """Have this host notice that the volume was extended."""
        assert self._connector is not None
        with errors.device_errors(self._what(), writing=True):
            self._connector.extend()

    def detach(self) -> None:
        """Close the volume, and give it back; only the first call does anything.

        :raises CinderError: something is left; the text says what, and what to do
        """
        if os.getpid() != self._process:
            # A copy in a forked child, thrown away there: the volume is the parent's.
            return
        with self._lock:
            if self._detached:
                return
            self._detached = True
        problems = self._release()
        if problems:
            raise errors.CinderError("; ".join(problems))

    def _what(self) -> str:
        return str(_("volume %s") % self.volume.id)

    # -- reserving

    def _reserve(self) -> str:
        action = _("Attaching volume %s") % self.volume.id
        mode = "rw" if self._writable else "ro"
        tries_left = self._api.settings.retries
        while True:
            try:
                created = self._api.call(
                    action,
                    lambda client: client.attachments.create(self.volume.id, None, mode=mode),
                    again=False,
                )
                return str(created["id"])
            except errors.CinderUnavailable:
                left = self._left_reservation()
                if left is not None:
                    return left
                if tries_left <= 0:
                    raise
                tries_left -= 1
            except errors.CinderError as exc:
                if not _is_busy(exc):
                    raise
                if not self._wait():
                    raise errors.CinderError(
                        _(
                            "Volume %(volume)s is busy, and was not free for another attachment in "
                            "time (cinder_attachment_retry_attempts; a multiattach volume type "
                            "lets several read at once): %(cause)s"
                        ),
                        volume=self.volume.id,
                        cause=exc.msg,
                    ) from exc

    def _left_reservation(self) -> str | None:
        """Return what a request has reserved whose answer was lost."""
        found = self._reservations()
        if found and not self._fresh:
            # Somebody else's goes on to the next step soon; nobody but us can come back to ours.
            deadline = time.monotonic() + _RESERVATION_LASTS
            while found and time.monotonic() < deadline:
                time.sleep(max(_POLL))
                found &= self._reservations()
        return min(found, default=None)

    def _reservations(self) -> set[str]:
        action = _("Looking for attachments of volume %s") % self.volume.id
        found = self._api.call(
            action,
            lambda client: client.attachments.list(search_opts={"volume_id": self.volume.id}),
        )
        return {str(one.id) for one in found if one.status == "reserved"}

    def _wait(self) -> bool:
        """Wait until the volume looks free; False: there is no more time."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._patience
        if now >= self._deadline:
            return False
        action = _("Looking up volume %s") % self.volume.id
        while (left := self._deadline - time.monotonic()) > 0:
            # Not in step with others that wait for the same volume.
            time.sleep(min(random.uniform(*_POLL), left))  # noqa: S311 - nothing secret
            found = self._api.call(action, lambda client: client.volumes.get(self.volume.id))
            if found.status == "available" or (found.multiattach and found.status == "in-use"):
                break
        return True

    # -- connecting

    def _connect(self) -> None:
        properties = self._host.properties()
        action = _("Attaching volume %s") % self.volume.id
        updated = self._api.call(
            action, lambda client: client.attachments.update(self._id, properties)
        )
        info = dict(updated.connection_info)
        kind = _CONNECTORS.get(str(info.get("driver_volume_type", "")).lower(), Connector)
        connector = kind(self._host, info, self.volume, self._id)
        self.device = connector.connect(self._writable)
        self._connector = connector
        self._api.call(action, lambda client: client.attachments.complete(self._id))

    # -- giving back

    def _give_back(self) -> None:
        for problem in self._release():
            # The error that led here goes to the caller.
            LOG.error("%s", problem)

    def _release(self) -> list[str]:
        problems = []
        if self._connector is not None:
            connector, self._connector = self._connector, None
            try:
                connector.disconnect(self.device)
            except errors.CinderError as exc:
                problems.append(str(exc.msg))
        try:
            self._delete()
        except errors.VolumeNotFound:
            # Gone together with its volume.
            pass
        except errors.CinderError as exc:
            problems.append(str(exc.msg))
        return problems

    def _delete(self) -> None:
        action = _("Detaching volume %s") % self.volume.id
        pause = 0.1
        for attempt in range(_DELETE_TRIES):
            try:
                self._api.call(
                    action, lambda client: client.attachments.delete(self._id), again=False
                )
                return
            except errors.VolumeNotFound:
                return
            except errors.CinderUnavailable as exc:
                problem = exc
            if attempt + 1 < _DELETE_TRIES:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            # The older way to the same end, through another part of the API.
            self._api.call(
                action, lambda client: client.volumes.detach(self.volume.id, self._id), again=False
            )
        except errors.VolumeNotFound:
            return
        except errors.CinderError as exc:
            LOG.debug("The older way to detach volume %s has failed: %s", self.volume.id, exc.msg)
        else:
            return
        raise errors.CinderError(
            _(
                "Volume %(volume)s keeps the attachment %(attachment)s, which an operator has to "
                "delete: %(cause)s"
            ),
            volume=self.volume.id,
            attachment=self._id,
            cause=problem.msg,
        ) from problem


def _is_busy(exc: errors.CinderError) -> bool:
    cause = exc.__cause__
    if cause is None:
        return False
    return errors.status_of(cause) == 400 and bool(_BUSY.search(str(cause)))


def _is_conflict(exc: BaseException) -> bool:
    cause = exc.__cause__
    return isinstance(exc, errors.CinderError) and (
        cause is not None and errors.status_of(cause) == 409
    )
