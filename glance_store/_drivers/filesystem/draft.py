# SPDX-License-Identifier: Apache-2.0
"""A file on its way to the name of an image: somebody always removes it, or it gets the name.

A call that is stuck may outlive the upload, and the upload may be interrupted at any point, be
collected by any thread, or be copied into a forked process. So what removes a file is queued as
clean-up, which may be done more than once, and a call that comes back late looks after it itself.
"""

from __future__ import annotations

import logging
import os

from glance_store._drivers.filesystem.claim import Claim
from glance_store._drivers.filesystem.datadirs import DataDir, DataDirs
from glance_store._drivers.filesystem.openfile import DirectFile, GuardedFile, exclusive_file
from glance_store.transfer.threads import Calls

LOG = logging.getLogger(__name__)

# Before there is any file.
_CLOSED = DirectFile(-1)


class Draft:
    """An open file in an open data directory, and the claim to its name.

    :param calls: bounds the time of calls
    :param datadir: where the image goes
    :param name: of the image's file
    """

    _settled = True  # whether nothing is to be removed; before all else: __del__ looks at it

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
        """Create the file.

        :param unnamed: without a name where that is possible
        :raises StorageWriteDenied: the file system of the directory is gone
        :raises TimeoutError: the file system does not answer
        :raises OSError: the directory or the file cannot be opened
        """
        self._settled = False
        if self._calls.timeout:
            # While this hangs, uploads to other directories do not wait for this one.
            self._calls.call(self._datadir.owing, self._create, unnamed)
        else:
            self._create(unnamed)

    def _create(self, unnamed: bool) -> None:
        created = self._claim.create(unnamed)
        self.directory = exclusive_file(self._calls, created.directory)
        self.file = exclusive_file(self._calls, created.file)
        # First this, then the look: give_up() sees the file, or this call sees give_up().
        self._opened = True
        if self._given_up:
            self._discard()

    def publish(self, datadirs: DataDirs) -> None:
        """Give the file its name.

        :param datadirs: all of the store's, to which the name must be new
        :raises Duplicate: another file of another directory has the name
        :raises FileExistsError: another file of this directory has the name
        :raises UnlinkableError: this file can get no name, one that has a name can
        :raises TimeoutError: the file system does not answer
        :raises OSError: the file has not got its name
        """
        self.file.call(self._publish, datadirs)

    def _publish(self, file: int, datadirs: DataDirs) -> None:
        # One call, so that the directory stays open until all of it is done, however late.
        self.directory.run(self._publish_in, file, datadirs)

    def _publish_in(self, directory: int, file: int, datadirs: DataDirs) -> None:
        try:
            if len(datadirs.all) == 1:
                # Within one directory the file system itself sees to it that the name is new.
                self._claim.publish(directory, file)
            else:
                with datadirs.publishing(self._name):
                    self._claim.publish(directory, file, locked=True)
        finally:
            if self._given_up:
                # The answer came after its timeout: the upload has been reported as failed.
                self._claim.withdraw(directory)

    def keep(self) -> None:
        """Let go of the directory: the image is stored. `give_up` removes it all the same."""
        self.directory.drop()
        self._settled = True

    def give_up(self, wait: bool = True) -> None:
        """Remove the file, under whatever name it has, and close it; soon, if a call is stuck.

        :param wait: until it is done, where the file system is known to answer
        :raises OSError: it cannot be removed; with a timeout that is logged
        """
        # First of all: should an interrupt come now, __del__ does it.
        self._settled = False
        self._given_up = True
        stuck = not self._opened or self.file.late or self.directory.late
        seconds = self._calls.timeout if wait and not stuck else 0
        self._calls.cleanup(self._discard, wait=seconds)

    def __del__(self) -> None:
        # An interrupt came before anybody had it, or while it was given up.
        if not self._settled:
            try:
                self.give_up(wait=False)
            except OSError as exc:
                LOG.warning("What is left of %s could not be removed: %s", self._path, exc)

    def _discard(self) -> None:
        """Remove and close; a call that comes back later does so for itself."""
        if self._calls.timeout and not self._opened:
            # The call that creates the file looks after it. No interrupt reaches its thread.
            return
        try:
            self._withdraw()
        except Exception:
            self._settled = True
            raise
        except BaseException:
            # A second interrupt: what has been begun is finished all the same.
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
            # The upload is that of the parent.
            return
        try:
            self.directory.run(self._claim.withdraw)
        except (OSError, ValueError):
            # The directory is not open yet, or no more, or its handle is stale.
            self._claim.withdraw(None)
