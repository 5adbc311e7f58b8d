# SPDX-License-Identifier: Apache-2.0
"""Writes one image: under a hidden name until it is complete, then under its own.

The file server overwrites an existing file, truncates what is longer than announced, and keeps what
it has when the connection breaks. So an image is sent under a unique name, its size is checked, and
a move that refuses to overwrite gives it its name.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import uuid
from collections.abc import Iterable
from typing import Any

import requests

from glance_store import exceptions
from glance_store._drivers.vmware_datastore import errors
from glance_store._drivers.vmware_datastore.datastores import (
    Datastore,
    Inventory,
    remove,
    state_of,
)
from glance_store._drivers.vmware_datastore.files import File, Files, read_out
from glance_store.i18n import _
from glance_store.transfer.multipart import MIB
from glance_store.transfer.pipe import Feed, Pipe

LOG = logging.getLogger(__name__)

_BLOCK_SIZE = 4 * MIB


def part_name(image_id: str) -> str:
    """Return a unique name for an incomplete image."""
    return f".{image_id}.{uuid.uuid4().hex}.part"


class _Contested(errors.DatastoreUnavailable):
    """Another upload stored the image in another datastore, and may yet withdraw it."""


class DatastoreWriter:
    """One image on its way to a datastore.

    `others` are the files that would be the same image in other datastores.
    """

    concurrency = 1
    holes = False
    block_size = _BLOCK_SIZE

    def __init__(
        self,
        files: Files,
        inventory: Inventory,
        datastore: Datastore,
        file: File,
        size: int,
        uri: str,
        others: Iterable[File] = (),
    ) -> None:
        self.uri = uri
        self.metadata: dict[str, Any] = {}
        self._files = files
        self._inventory = inventory
        self._session = inventory.session
        self._datastore = datastore
        self._directory, self._image_id = posixpath.split(file.path)
        self._size = size
        self._file = file
        self._others = sorted(others, key=_rank)
        # Each data request uses a new name: the server may still be busy with an interrupted one.
        self._parts: list[File] = []
        self._action = _("Storing image %s") % self._image_id
        self._patience = self._session.settings.new_patience()
        self._renewed = False
        self._no_directory = ""  # why it could not be created
        self._pipe: Pipe[requests.Response] | None = None
        self._sent = 0  # bytes, at least
        # Whether the image is known to have its name.
        self._published = False
        self._unclear = False

    # -- the data

    def write(self, offset: int, block: memoryview) -> None:
        """Send a block. If the request of the first block fails, that block is sent again."""
        self._sent = offset
        if offset == 0:
            self._patience.call(lambda: self._send_first(block), self._is_curable)
        elif self._pipe is None or not self._pipe.feed(block):
            raise self._ended_early()

    def _send_first(self, block: memoryview) -> None:
        self._begin()
        if self._pipe is None or not self._pipe.feed(block):
            raise self._ended_early()
        if len(block) == self._size:
            # A small image is complete, and its data exists only during this call.
            self._finish(self._size)

    def _begin(self) -> None:
        """Start the one request that carries the data."""
        # This also renews an expired session. A 401 answer to the data would come after some of it
        # was sent, and that cannot be read again.
        self._ensure_directory()
        path = posixpath.join(self._directory, part_name(self._image_id))
        part = self._file._replace(path=path)
        self._parts.append(part)
        headers = {"Content-Type": "application/octet-stream"}

        def put(feed: Feed) -> requests.Response:
            return self._files.request("PUT", part, self._action, headers, feed)

        self._pipe = Pipe(put, self._size or None, "glance_store-vmware")

    def _ensure_directory(self) -> None:
        if not self._directory:
            self._inventory.state(self._datastore)
            return
        name = f"[{self._datastore.name}] {self._directory}"
        datacenter = self._inventory.datacenter(self._datastore.datacenter)
        try:
            self._session.call(
                lambda vim: vim.MakeDirectory(
                    vim.service_content.fileManager,
                    name=name,
                    datacenter=datacenter,
                    createParentDirectories=True,
                ),
                _("Creating directory %s") % name,
            )
        except exceptions.Duplicate:
            LOG.debug("The directory %s exists", name)
        except exceptions.GlanceStoreException as exc:
            if isinstance(exc, exceptions.BackendUnavailable | exceptions.StorageFull):
                raise
            # Somebody else may have to create it, as on vSAN. If it is missing, the upload fails.
            self._no_directory = str(exc.msg)

    def _ended_early(self) -> Exception:
        """Return why the request ended before it had all of the data."""
        pipe, self._pipe = self._pipe, None
        assert pipe is not None
        try:
            with pipe.finish():
                return errors.DatastoreUnavailable(
                    _("%s: the server answered before it had all of the data") % self._action
                )
        except (exceptions.GlanceStoreException, exceptions.BackendException) as exc:
            return self._explained(exc)

    def _is_curable(self, error: Exception) -> bool:
        """Tell whether sending the first block again may help."""
        if isinstance(error, errors.SessionExpired):
            # There is a new session by now.
            self._renewed = True
            return True
        return isinstance(error, exceptions.BackendUnavailable)

    def _explained(self, error: Exception) -> Exception:
        """Add what the file server does not say: datastore full, or no such directory."""
        if isinstance(error, errors.SessionExpired) and self._renewed:
            return errors.DatastoreDenied(str(error.msg))
        if isinstance(error, exceptions.NotFound):
            return errors.DatastoreError(
                _(
                    "%(error)s: there is no directory %(directory)s in the datastore %(name)s, "
                    "or the user of vmware_server_username may not write to it%(cause)s"
                ),
                error=error.msg,
                directory=self._directory,
                name=self._datastore,
                cause=self._no_directory and f" ({self._no_directory})",
            )
        if not isinstance(error, errors.DatastoreError | errors.DatastoreUnavailable):
            return error
        try:
            free = self._inventory.state(self._datastore).free
        except exceptions.GlanceStoreException as exc:
            LOG.debug("Cannot get the free space of %s: %s", self._datastore, exc)
            return error
        if free >= max(self._size - self._sent, MIB):
            return error
        return exceptions.StorageFull(
            _("%(action)s: the datastore %(name)s is full, with %(free)d bytes free"),
            action=self._action,
            name=self._datastore,
            free=free,
        )

    # -- the end

    def commit(self, size: int) -> None:
        """Check what has arrived, and give the image its name."""
        self._size = size
        if not self._parts:
            self._patience.call(self._begin)
        part = self._parts[-1]
        if self._pipe is not None:
            self._finish(size)
        self._patience.call(lambda: self._check_size(part, size))
        self._patience.call(lambda: self._publish(part, size))
        self._published = True
        self._look_elsewhere()

    def _finish(self, size: int) -> None:
        pipe, self._pipe = self._pipe, None
        assert pipe is not None
        try:
            read_out(pipe.finish(), self._action)
        except errors.DatastoreUnavailable as exc:
            # Perhaps only the answer was lost.
            if exc.status or not self._has(self._parts[-1], size):
                raise self._explained(exc) from None
            LOG.info("%s; all of the data has arrived nevertheless", exc)
        except (errors.DatastoreError, exceptions.NotFound) as exc:
            raise self._explained(exc) from None

    def _has(self, file: File, size: int) -> bool:
        """Tell whether a file exists with this size."""
        action = _("Looking for %s") % file.name
        try:
            return self._patience.call(lambda: self._files.size(file, action))[0] == size
        except exceptions.NotFound:
            return False

    def _check_size(self, part: File, size: int) -> None:
        found: int | None = None
        with contextlib.suppress(exceptions.NotFound):
            found, _about = self._files.size(part, self._action)
        if found != size:
            raise errors.DatastoreError(
                _("%(action)s: the server has stored %(found)d of %(size)d bytes"),
                action=self._action,
                found=found or 0,
                size=size,
            )

    def _publish(self, part: File, size: int) -> None:
        """Move a part to the image's name; if the outcome is unclear, look.

        Nobody else knows the part's name. If the part is gone, it was moved, by this request or by
        an earlier one whose answer was lost.
        """
        try:
            self._move(part)
        except (exceptions.Duplicate, exceptions.NotFound, errors.DatastoreUnavailable) as exc:
            self._unclear |= isinstance(exc, errors.DatastoreUnavailable)
            taken = isinstance(exc, exceptions.Duplicate)
            there = self._is_there(part)
            if there and taken and not self._is_there(self._file):
                # On NFS, a host may still see a name that another host has removed.
                raise errors.DatastoreUnavailable(str(exc.msg)) from None
            if there or not self._has(self._file, size):
                if taken:
                    raise exceptions.Duplicate(image=self._image_id) from None
                if isinstance(exc, exceptions.NotFound):
                    raise errors.DatastoreError(str(exc.msg)) from None
                raise
            LOG.info("%s; the image has its name nevertheless", exc)

    def _move(self, part: File) -> None:
        datacenter = self._inventory.datacenter(self._datastore.datacenter)
        self._session.task(
            lambda vim: vim.MoveDatastoreFile_Task(
                vim.service_content.fileManager,
                sourceName=part.name,
                sourceDatacenter=datacenter,
                destinationName=self._file.name,
                destinationDatacenter=datacenter,
                force=False,
            ),
            self._action,
            self._patience,
        )

    def _look_elsewhere(self) -> None:
        """Withdraw the image if another upload has stored it in another datastore meanwhile.

        If two uploads see each other, the one with the later rank withdraws. The one with the
        earlier rank waits for that; if the other image stays, it was complete first, and this one
        withdraws. Each looks after moving its own image, so two never stay. None stays only if the
        other upload takes longer to withdraw than this one waits.
        """
        try:
            self._patience.call(self._look_once, lambda exc: isinstance(exc, _Contested))
        except _Contested:
            raise exceptions.Duplicate(image=self._image_id) from None

    def _look_once(self) -> None:
        for file in self._others:
            if self._may_be_there(file):
                if _rank(file) < _rank(self._file):
                    raise exceptions.Duplicate(image=self._image_id)
                raise _Contested(_("%s exists as well") % file.name)

    def _may_be_there(self, file: File) -> bool:
        """Tell whether a file exists; no, if its datastore is out of use."""
        try:
            return self._is_there(file)
        except errors.DatastoreUnavailable as exc:
            datastore = Datastore(file.datacenter or "", file.datastore, 0)
            if not state_of(self._inventory, datastore).problem:
                raise
            LOG.warning("%s: cannot tell whether %s exists: %s", self._action, file.name, exc)
            return False

    def _is_there(self, file: File) -> bool:
        action = _("Looking for %s") % file.name
        try:
            self._patience.call(lambda: self._files.size(file, action))
        except exceptions.NotFound:
            return False
        return True

    def interrupt(self) -> None:
        """End waits between retries."""
        self._patience.stop()

    def abort(self) -> None:
        """Break off the request, and delete what has arrived."""
        self._patience.stop()
        if self._no_directory:
            LOG.warning("%s: %s", self._action, self._no_directory)
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.cancel()
        error: Exception | None = None
        for part in self._parts:
            try:
                self._remove(part)
            except exceptions.GlanceStoreException as exc:
                error = exc
        if error is not None:
            raise error

    def _remove(self, part: File) -> None:
        try:
            remove(self._inventory, part, unfinished=True)
        except exceptions.NotFound:
            if part is not self._parts[-1]:
                return
            # It may have been moved, whatever the server said.
            if self._published or (self._unclear and self._has(self._file, self._size)):
                remove(self._inventory, self._file)


def _rank(file: File) -> tuple[str, str]:
    """Return a sort key that orders the datastores alike in all processes."""
    return file.datacenter or "", file.datastore
