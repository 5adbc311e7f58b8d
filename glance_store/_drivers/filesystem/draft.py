# SPDX-License-Identifier: Apache-2.0
"""A new file on its way to an image's name: either it gets the name, or somebody removes it.

A call that hangs may outlive the upload. The upload may be interrupted at any point, collected by
any thread, or copied into a forked process. So removal is queued as clean-up and may run twice, and
a call that returns late cleans up after itself.
"""

from __future__ import annotations

import logging
import os

from glance_store._drivers.filesystem.claim import Claim
from glance_store._drivers.filesystem.datadirs import DataDir, DataDirs
from glance_store._drivers.filesystem.openfile import DirectFile, GuardedFile, exclusive_file
from glance_store.transfer.threads import Calls

LOG = logging.getLogger(__name__)

# Stands in until the file is open.
_CLOSED = DirectFile(-1)


class Draft:
    """An open file in an open data directory, and the claim to its name."""

    _settled = True  # nothing is left to remove; on the class, for an early __del__

    def __init__(self, calls: Calls, datadir: DataDir, name: str) -> None:
        self._calls = calls
        self._datadir = datadir
        self._name = name
        self._path = datadir.file(name)
        self._claim = Claim(datadir, name)
        self._process = os.getpid()
        self._opened = False
        self._given_up = False
        self.directory: GuardedFile | DirectFile = _CLOSED
        self.file: GuardedFile | DirectFile = _CLOSED

    def open(self, unnamed: bool = True) -> None:
        """Create the file, without a name if possible."""
        self._settled = False
        if self._calls.timeout:
            # While this hangs, uploads to other directories do not wait for this one.
            self._calls.call(self._datadir.tracked, self._create, unnamed)
        else:
            self._create(unnamed)

    def _create(self, unnamed: bool) -> None:
        created = self._claim.create(unnamed)
        self.directory = exclusive_file(self._calls, created.directory)
        self.file = exclusive_file(self._calls, created.file)
        # In this order, either give_up() sees the file, or this call sees give_up().
        self._opened = True
        if self._given_up:
            self._discard()

    def publish(self, datadirs: DataDirs) -> None:
        """Give the file its name, which must be new to all of the store's directories.

        UnlinkableError: only a file that already has a name can get this one.
        """
        self.file.call(self._publish, datadirs)

    def _publish(self, file: int, datadirs: DataDirs) -> None:
        # One call keeps the directory open until all of it is done, however late.
        self.directory.run(self._publish_in, file, datadirs)

    def _publish_in(self, directory: int, file: int, datadirs: DataDirs) -> None:
        try:
            if len(datadirs.all) == 1:
                # Within one directory the file system itself ensures that the name is new.
                self._claim.publish(directory, file)
            else:
                with datadirs.publishing(self._name):
                    self._claim.publish(directory, file, locked=True)
        finally:
            if self._given_up:
                # The call returned after its timeout: the upload was reported as failed.
                self._claim.withdraw(directory)

    def keep(self) -> None:
        """Let go of the directory: the image is stored. `give_up` still removes it."""
        self.directory.drop()
        self._settled = True

    def give_up(self, wait: bool = True) -> None:
        """Remove and close the file, whatever its name; in the background if a call hangs."""
        # Set first: if an interrupt comes now, __del__ does the rest.
        self._settled = False
        self._given_up = True
        stuck = not self._opened or self.file.late or self.directory.late
        seconds = self._calls.timeout if wait and not stuck else 0
        self._calls.cleanup(self._discard, wait=seconds)

    def __del__(self) -> None:
        # An interrupt came before anybody owned the file, or while it was being given up.
        if not self._settled:
            try:
                self.give_up(wait=False)
            except OSError as exc:
                LOG.warning("What is left of %s could not be removed: %s", self._path, exc)

    def _discard(self) -> None:
        """Remove and close the file; a call that returns later does so itself."""
        if self._calls.timeout and not self._opened:
            # The call that creates the file cleans up. No interrupt reaches its thread.
            return
        try:
            self._withdraw()
        except Exception:
            self._settled = True
            raise
        except BaseException:
            # A second interrupt: finish the removal all the same.
            self._withdraw()
            self._settled = True
            raise
        else:
            self._settled = True
        finally:
            try:
                self.file.release()
            finally:
                self.directory.release()

    def _withdraw(self) -> None:
        if self._process != os.getpid():
            # The upload belongs to the parent process.
            return
        try:
            self.directory.run(self._claim.withdraw)
        except (OSError, ValueError):
            # The directory is not open yet, is closed already, or its handle is stale.
            self._claim.withdraw(None)
