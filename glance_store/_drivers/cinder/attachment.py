# SPDX-License-Identifier: Apache-2.0
"""Attachments: reserve a volume in Cinder, connect it to this host, open it, and undo all that."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from typing import Any

from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.client import Api
from glance_store._drivers.cinder.connector import (
    Connector,
    ScaleIOConnector,
    refuse_encryption,
)
from glance_store._drivers.cinder.device import Device
from glance_store._drivers.cinder.host import Host
from glance_store._drivers.cinder.locks import holds_a_lock
from glance_store._drivers.cinder.nfs import NFSConnector
from glance_store._drivers.cinder.volumes import GOING, Volumes
from glance_store.i18n import _
from glance_store.transfer.threads import Workers

LOG = logging.getLogger(__name__)

# Cinder's text when another operation keeps a volume busy. That passes; its other refusals do not.
_BUSY = re.compile(r"status must be .*(available|in-use|downloading).* to reserve", re.DOTALL)
_FREE = ("available", "in-use")
_LONGEST_PAUSE = 10.0
_POLL = (0.05, 0.4)
# Seconds a host needs at most between reserving a volume and its next request.
_RESERVATION_LASTS = 10.0
# Detaches volumes for threads that cannot wait.
_LATER = Workers(2, "glance_store-cinder-detach")

_CONNECTORS: dict[str, type[Connector]] = {"nfs": NFSConnector, "scaleio": ScaleIOConnector}


def connector_class(info: dict[str, Any]) -> type[Connector]:
    """Return the class that connects volumes of a protocol.

    :param info: what Cinder says about the connection
    """
    return _CONNECTORS.get(str(info.get("driver_volume_type", "")).lower(), Connector)


class Attachment:
    """One volume attached to this host, from the constructor to `detach`.

    `fresh` says that nobody else can know of the volume yet. Raises CinderError if the volume
    cannot be attached; nothing is left of it then.
    """

    def __init__(
        self, api: Api, host: Host, volume: Any, *, writable: bool, attempts: int, fresh: bool
    ) -> None:
        self._api = api
        self._volumes = Volumes(api)
        self._host = host
        self.volume = volume
        self._writable = writable
        self._fresh = fresh
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._connector: Connector | None = None
        self._detached = False
        self.device: Device
        # The total wait of that many attempts with growing pauses.
        self._busy_timeout = sum(min(2.0**number, _LONGEST_PAUSE) for number in range(attempts - 1))
        self._deadline: float | None = None
        # Whether nobody held a reservation at the last look.
        self._was_free = volume.status in _FREE
        while True:
            self._id = self._reserve()
            try:
                self._connect()
            except BaseException as exc:
                self._give_back()
                # Another host may win after both have reserved the volume.
                if not _is_busy(exc):
                    raise
                self._wait(exc)
                continue
            return

    @property
    def grows(self) -> bool:
        """Whether the volume can be extended while attached."""
        return self._connector is not None and self._connector.grows

    def refresh(self) -> None:
        """Make this host notice that the volume was extended."""
        assert self._connector is not None
        with errors.device_errors(self.volume.id, writing=True):
            self._connector.extend()

    def detach(self) -> None:
        """Close and release the volume; further calls do nothing.

        Raises CinderError if something is left behind; the text says what, and what to do.
        """
        if os.getpid() != self._process:
            # A copy in a forked child: the volume belongs to the parent.
            return
        with self._lock:
            if self._detached:
                return
            self._detached = True
        if holds_a_lock():
            # Garbage-collected while this thread connects a volume, perhaps this one.
            _LATER.put(self._give_back)
            return
        problems = self._release()
        if problems:
            # One outage among several problems makes the whole an outage.
            lost = [one for one in problems if isinstance(one, errors.CinderUnavailable)]
            kind = errors.CinderUnavailable if lost else errors.CinderError
            raise kind("; ".join(str(one.msg) for one in problems))

    # -- reserving

    def _reserve(self) -> str:
        action = _("Attaching volume %s") % self.volume.id
        mode = "rw" if self._writable else "ro"

        def reserve(client: Any) -> str:
            return str(client.attachments.create(self.volume.id, None, mode=mode)["id"])

        while True:
            try:
                return self._api.settle(action, reserve, self._left_reservation)
            except errors.CinderError as exc:
                if not _is_busy(exc):
                    raise
                self._wait(exc)

    def _left_reservation(self) -> str | None:
        """Return the reservation of a request whose answer was lost, if it must be ours."""
        found = self._reservations()
        if not found or self._fresh:
            return min(found, default=None)
        # Our reservation looks like any other host's, but theirs moves on soon.
        deadline = time.monotonic() + _RESERVATION_LASTS
        while found and time.monotonic() < deadline:
            time.sleep(max(_POLL))
            found &= self._reservations()
        if len(found) == 1 and self._was_free:
            # If its owner does come back, it gets an error. If we took it over, both would use it.
            left = found.pop()
            LOG.warning(
                "Removing the reservation of volume %s by attachment %s: nobody uses it, so it is "
                "left of a request whose answer was lost",
                self.volume.id,
                left,
            )
            self._volumes.detach(self.volume.id, left)
        elif found:
            LOG.warning(
                "Volume %s has reserved attachments %s; one may be left of a request whose "
                "answer was lost. If it stays, run: openstack volume attachment delete ID",
                self.volume.id,
                ", ".join(sorted(found)),
            )
        return None

    def _reservations(self) -> set[str]:
        found = self._volumes.attachments(self.volume.id)
        return {str(one.id) for one in found if one.status == "reserved"}

    def _wait(self, refusal: BaseException) -> None:
        """Wait until the volume looks free; raise CinderTimeout when time is up."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._busy_timeout
        if now >= self._deadline:
            # An outage, for image services: 503, not 500.
            raise errors.CinderTimeout(
                _(
                    "Volume %(volume)s stayed busy for as long as "
                    "cinder_attachment_retry_attempts allows (with a multiattach volume "
                    "type, several readers can attach at once): %(cause)s"
                ),
                volume=self.volume.id,
                cause=getattr(refusal, "msg", refusal),
            ) from refusal
        while (left := self._deadline - time.monotonic()) > 0:
            # Random, so that waiters do not poll in step.
            time.sleep(min(random.uniform(*_POLL), left))  # noqa: S311 - nothing secret
            found = self._volumes.get(self.volume.id)
            if found.status in GOING or found.status.startswith("error"):
                raise (errors.VolumeNotFound if found.status in GOING else errors.CinderError)(
                    _("Volume %(volume)s cannot be attached: its status is %(status)s"),
                    volume=self.volume.id,
                    status=found.status,
                )
            self._was_free = found.status in _FREE
            if found.status == "available" or (found.multiattach and found.status == "in-use"):
                return

    # -- connecting

    def _connect(self) -> None:
        properties = self._host.properties()
        action = _("Attaching volume %s") % self.volume.id
        info = self._api.call(
            action,
            lambda client: dict(client.attachments.update(self._id, properties).connection_info),
        )
        if self._writable:
            refuse_encryption(self.volume, info)
        kind = connector_class(info)
        connector = kind(self._host, info, self.volume, self._id, self._has_others_here)
        self.device = connector.connect(self._writable)
        self._connector = connector
        self._api.call(action, lambda client: client.attachments.complete(self._id))

    def _has_others_here(self) -> bool | None:
        """Tell whether Cinder lists other attachments of the volume to this host; None: unknown."""
        if not getattr(self.volume, "multiattach", False):
            return False
        try:
            found = self._volumes.get(self.volume.id)
        except errors.VolumeNotFound:
            return False
        except errors.CinderError as exc:
            LOG.debug("%s", exc.msg)
            return None
        hosts = [
            one.get("host_name")
            for one in found.attachments
            if one.get("attachment_id") != self._id
        ]
        if self._host.name in hosts:
            return True
        # Cinder shows host names only to administrators.
        return None if None in hosts else False

    # -- giving back

    def _give_back(self) -> None:
        for problem in self._release():
            # The caller gets the error that led here.
            LOG.error("%s", problem.msg)

    def _release(self) -> list[errors.CinderError]:
        problems: list[errors.CinderError] = []
        if self._connector is not None:
            connector, self._connector = self._connector, None
            try:
                connector.disconnect(self.device)
            except errors.CinderError as exc:
                problems.append(exc)
        try:
            self._volumes.detach(self.volume.id, self._id)
        except errors.CinderError as exc:
            exc.msg = _(
                "Could not delete attachment %(attachment)s of volume %(volume)s; an operator "
                "must delete it: %(cause)s"
            ) % {"attachment": self._id, "volume": self.volume.id, "cause": exc.msg}
            problems.append(exc)
        return problems


def _is_busy(exc: BaseException) -> bool:
    """Tell whether Cinder refused because of another operation, or as another host was faster."""
    cause = exc.__cause__ or exc
    status = errors.status_of(cause) if isinstance(exc, errors.CinderError) else 0
    return status == 409 or (status == 400 and bool(_BUSY.search(str(cause))))
