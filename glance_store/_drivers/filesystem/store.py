# SPDX-License-Identifier: Apache-2.0
"""The file system store."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from oslo_config import cfg

from glance_store import capabilities, exceptions
from glance_store import driver as store_driver
from glance_store._drivers.filesystem import datadirs, holdings, metadata, syscalls
from glance_store._drivers.filesystem.claim import PARTIAL_SUFFIX, prove_room, prove_writable
from glance_store._drivers.filesystem.location import SCHEMES, StoreLocation, is_encodable
from glance_store._drivers.filesystem.mounts import is_within
from glance_store._drivers.filesystem.options import OPTIONS
from glance_store._drivers.filesystem.reader import FileReader, check_is_file
from glance_store._drivers.filesystem.writer import FileWriter, WriteSettings
from glance_store.i18n import _
from glance_store.inventory import Capacity, Leftover, StoredImage
from glance_store.location import Location
from glance_store.store_options import DEFAULT_GROUP
from glance_store.transfer.threads import Calls

__all__ = ["Store", "StoreLocation"]

LOG = logging.getLogger(__name__)

# In smaller steps, thread switches and system calls cost more than the bytes: a smaller
# filesystem_store_chunk_size is rounded up.
_SMALLEST_BLOCK = 1024 * 1024
_SMALLEST_READ = 512 * 1024


class NotThere(exceptions.BackendUnavailable, exceptions.BadStoreConfiguration):
    """A data directory's file system is out of reach; it may come back."""

    message = exceptions.BadStoreConfiguration.message


class Store(store_driver.Store):
    """Stores images as files in one or more directories."""

    OPTIONS: list[cfg.Opt] | None = OPTIONS
    _CAPABILITIES: int = (
        capabilities.BitMasks.READ_RANDOM
        | capabilities.BitMasks.WRITE_ACCESS
        | capabilities.BitMasks.DRIVER_REUSABLE
    )

    chunk_size: int = 64 * 1024
    thin_provisioning: bool = False
    datadir: str | None = None

    def __init__(self, conf: cfg.ConfigOpts, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self._datadirs: datadirs.DataDirs | None = None
        self._metadata: list[metadata.Entry] = []
        self._file_perm = 0
        self._fsync = True
        self._call_guard: Calls | None = None

    def get_schemes(self) -> tuple[str, ...]:
        return SCHEMES

    # -- configuration

    @property
    def _guard(self) -> Calls:
        if self._call_guard is None:
            options = self.store_conf
            threads = options.filesystem_store_thread_pool_size
            busy = threads * options.filesystem_store_threadpool_threshold / 100
            self._call_guard = Calls(
                options.filesystem_store_timeout,
                threads,
                "glance_store-file",
                functools.partial(_warn_when_busy, self.name, threads, busy),
            )
        return self._call_guard

    def configure(self, re_raise_bsc: bool = False) -> None:
        """Read the options again and make the store ready for use."""
        if self._call_guard is not None:
            self._call_guard.close()
            self._call_guard = None
        super().configure(re_raise_bsc)

    def configure_add(self) -> None:
        """Check the options and prepare the data directories."""
        options = self.store_conf
        self.chunk_size = options.filesystem_store_chunk_size
        self.READ_CHUNKSIZE = self.chunk_size
        self.WRITE_CHUNKSIZE = self.chunk_size
        self.thin_provisioning = options.filesystem_thin_provisioning
        self._fsync = options.filesystem_store_fsync
        self._file_perm = self._permissions(options.filesystem_store_file_perm)
        directories = self._directories()
        metadata_file = options.filesystem_store_metadata_file
        try:
            self._metadata = self._guard.call(metadata.load, metadata_file) if metadata_file else []
        except ValueError as exc:
            raise self._misconfigured(str(exc)) from exc
        except exceptions.TimeoutError as exc:
            raise NotThere(store_name=self.name, reason=str(exc)) from exc
        except OSError as exc:
            passing = exc.errno in syscalls.UNAVAILABLE
            kind = NotThere if passing else exceptions.BadStoreConfiguration
            reason = f"filesystem_store_metadata_file {metadata_file}: {exc.strerror}"
            raise kind(store_name=self.name, reason=reason) from exc
        self._datadirs = self._prepared(directories, options.filesystem_store_require_mount)
        self._url_prefix = f"file://{self._datadirs.all[0].path}"
        if len(self._datadirs.all) > 1:
            self._url_prefix = f"file://{self._emptiest(self._datadirs)}"

    def _emptiest(self, directories: datadirs.DataDirs) -> str:
        try:
            return directories.candidates(0)[0].path
        except (OSError, exceptions.GlanceStoreException):
            return directories.all[0].path

    def _misconfigured(self, reason: str) -> exceptions.BadStoreConfiguration:
        return exceptions.BadStoreConfiguration(store_name=self.name, reason=reason)

    def _permissions(self, digits: int) -> int:
        """Return the mode that an option's digits spell in octal; 0 for none."""
        if digits <= 0:
            return 0
        try:
            bits = int(str(digits), 8)
        except ValueError:
            raise self._misconfigured(
                f"filesystem_store_file_perm {digits} is not an octal number"
            ) from None
        if not bits & 0o400:
            raise self._misconfigured(
                f"filesystem_store_file_perm {digits} would not let the service read its own images"
            )
        return bits

    def _directories(self) -> dict[str, int]:
        single = self.store_conf.filesystem_store_datadir
        several = self.store_conf.filesystem_store_datadirs
        if bool(single) == bool(several):
            problem = "both are set: set filesystem_store_datadir to an empty value to use several"
            if not single:
                problem = "neither is set"
            raise self._misconfigured(
                "One of filesystem_store_datadir and filesystem_store_datadirs must be set; "
                + problem
            )
        self.datadir = single or None
        try:
            if not single:
                return datadirs.parse(several)
            datadirs.check_path("filesystem_store_datadir", single)
        except ValueError as exc:
            group = self.backend_group or DEFAULT_GROUP
            raise self._misconfigured(f"[{group}] {exc}") from exc
        return {single: 0}

    def _prepared(self, directories: dict[str, int], require_mount: bool) -> datadirs.DataDirs:
        """Prepare the directories; raise if none of them can be used."""
        each = [
            datadirs.DataDir(path, priority, require_mount, self._file_perm)
            for path, priority in directories.items()
        ]
        problems = []
        passing = True
        for directory in each:
            try:
                self._guard.call(directory.prepare)
                self._guard.call(prove_writable, directory)
            except OSError as exc:
                if exc.errno in syscalls.FULL:
                    # A full disk will pass, and its images can be read and deleted.
                    continue
                problem = (
                    f"Data directory {directory.path} cannot be created or written to by this "
                    f"process: {exc.strerror or exc}"
                )
                passing = passing and exc.errno in syscalls.UNAVAILABLE
            except exceptions.GlanceStoreException as exc:
                # The file server does not respond, or nothing is mounted.
                problem = str(exc)
            else:
                continue
            problems.append(problem)
            if len(each) > 1:
                directory.take_out(problem)
        if len(problems) == len(each):
            kind = NotThere if passing else exceptions.BadStoreConfiguration
            raise kind(store_name=self.name, reason="; ".join(problems))
        return datadirs.DataDirs(each, self._guard)

    def _configured(self) -> datadirs.DataDirs:
        if self._datadirs is None:
            # Used without configure(): configure now.
            self.configure(re_raise_bsc=True)
        if self._datadirs is None:
            raise exceptions.StoreAddDisabled
        return self._datadirs

    def storage_ids(self) -> set[str]:
        """Return the data directories by real path, and by device and inode."""
        ids = set()
        for directory in self._datadirs.all if self._datadirs else []:
            try:
                ids |= self._guard.call(_ids_of, directory.path)
            except (OSError, exceptions.TimeoutError):
                # A directory that is out of use does not hide the others.
                ids.add(f"directory {directory.path}")
        return ids

    def check_health(self) -> str:
        """Write a block to each data directory and remove it; return the free space."""
        directories = self._configured().all
        good, full, broken = [], [], []
        for directory in directories:
            try:
                good.append(self._guard.call(_health_of, directory))
            except exceptions.StorageFull as exc:
                full.append(exc)
            except exceptions.GlanceStoreException as exc:
                broken.append(exc)
        if not broken and (good or not full):
            return "ok, " + ", ".join([*good, *map(str, full)])
        if len(directories) == 1 or not (broken and good):
            raise (broken or full)[0]
        raise exceptions.StorageWriteDenied(
            _("%(problems)s; other directories still take images: %(good)s"),
            problems="; ".join(map(str, broken)),
            good=", ".join(good),
        )

    def images(self) -> Iterator[StoredImage]:
        """Yield everything in the data directories."""
        for directory in self._configured().all:
            yield from holdings.images(directory, self._guard)

    def leftovers(self, older_than: float) -> Iterator[Leftover]:
        """Yield the files of unfinished uploads; a running upload holds its file locked."""
        for directory in self._configured().all:
            yield from holdings.leftovers(directory, self._guard, older_than)

    def capacity(self) -> Capacity | None:
        """Return the space of the file systems, each counted once."""
        return holdings.capacity(self._configured().all, self._guard)

    # -- images

    @property
    def read_size(self) -> int:
        """Bytes in each chunk that `get` delivers."""
        return max(self.READ_CHUNKSIZE, _SMALLEST_READ)

    def open_writer(self, image_id: str, size: int, context: Any = None) -> FileWriter:
        """Begin to store an image as ``<data directory>/<image id>``."""
        name = _file_name(image_id)
        directories = self._configured()
        settings = WriteSettings(
            block_size=max(self.WRITE_CHUNKSIZE, _SMALLEST_BLOCK),
            thin=self.thin_provisioning,
            fsync=self._fsync,
            file_perm=self._file_perm,
            storage=self._metadata,
        )
        return FileWriter(directories, name, size, settings, self._guard)

    def open_reader(self, location: Location, context: Any = None) -> FileReader:
        """Open an image file; refuse paths that lead out of the data directories."""
        path = self._path(location)
        try:
            return FileReader(path, self._guard, self.read_size)
        except exceptions.NotFound:
            self._check_not_gone(path)
            raise

    @capabilities.check
    def copy_from(
        self,
        source: store_driver.Store,
        location: Location,
        image_id: str,
        progress: Callable[[int], None],
    ) -> tuple[str, int, dict[str, Any]] | None:
        """Have the kernel copy an image of a file store, or share its blocks; None if it cannot."""
        if not isinstance(source, Store):
            return None
        with contextlib.closing(source.open_reader(location)) as reader:
            writer = self.open_writer(image_id, reader.size)
            return self._fill(writer, lambda: writer.copy(reader, progress), reader.size)

    def get_size(self, location: Location, context: Any = None) -> int:
        """Return the size of an image file."""
        path = self._path(location)
        try:
            status = self._guard.call(os.stat, path)
        except OSError as exc:
            if isinstance(exc, FileNotFoundError):
                self._check_not_gone(path)
            syscalls.raise_reading_error(exc, path)
        check_is_file(status, path)
        return status.st_size

    @capabilities.check
    def delete(self, location: Location, context: Any = None) -> None:
        """Remove an image file."""
        path = self._path(location)
        try:
            self._guard.call(syscalls.remove, path)
        except FileNotFoundError as exc:
            self._check_not_gone(path)
            raise exceptions.NotFound(image=path) from exc
        except OSError as exc:
            passing = exc.errno in syscalls.UNAVAILABLE
            kind = exceptions.BackendUnavailable if passing else exceptions.Forbidden
            raise kind(
                _("The image file %(path)s cannot be deleted: %(reason)s"),
                path=path,
                reason=exc.strerror,
            ) from exc

    def _path(self, location: Location) -> str:
        path: str = location.store_location.path  # type: ignore[attr-defined]
        if ".." in path.split("/") and not self._guard.call(self._is_ours, path):
            raise exceptions.BadStoreUri(
                _("The Store URI was malformed: %(uri)s leads out of the data directories"),
                uri=path,
            )
        return path

    def _is_ours(self, path: str) -> bool:
        real = os.path.realpath(path)
        return self._datadirs is not None and any(
            is_within(real, os.path.realpath(directory.path)) for directory in self._datadirs.all
        )

    def _check_not_gone(self, path: str) -> None:
        """Raise if the file system is gone rather than the image, which may then come back."""
        for directory in self._datadirs.all if self._datadirs else []:
            if is_within(os.path.normpath(path), os.path.normpath(directory.path)):
                self._guard.call(directory.check_mount)


def _ids_of(path: str) -> set[str]:
    status = os.stat(path)
    return {
        f"directory {os.path.realpath(path)}",
        f"directory with inode {status.st_ino} of device {status.st_dev}",
    }


def _health_of(directory: datadirs.DataDir) -> str:
    try:
        free = directory.room()
        prove_room(directory)
    except OSError as exc:
        full = exc.errno in syscalls.FULL
        kind = exceptions.StorageFull if full else exceptions.StorageWriteDenied
        raise kind(
            _("Data directory %(path)s takes no images: %(reason)s"),
            path=directory.path,
            reason=exc.strerror or exc,
        ) from exc
    if free is None:
        return f"unknown free space in {directory.path}"
    return f"{free / 2**30:.1f} GiB free in {directory.path}"


def _warn_when_busy(name: str, threads: int, busy: float, calls: int) -> None:
    if calls >= busy:
        LOG.warning(
            "Store %s: %d calls are waiting for the file system on a pool of %d threads; it may "
            "be slow or gone. See filesystem_store_thread_pool_size",
            name,
            calls,
            threads,
        )


# Almost all ids match this and need no closer look.
_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,254}")


def _file_name(image_id: str) -> str:
    name = str(image_id)
    if _PLAIN.fullmatch(name):
        return name
    if (
        not name.strip()
        or name != name.strip()
        or name in (".", "..")
        or any(char in name for char in "/\0")
        or name.endswith(PARTIAL_SUFFIX)
        or not is_encodable(name)
        or len(os.fsencode(name)) > 255
    ):
        raise exceptions.Invalid(
            _("The image id %(image)r is not a valid file name"), image=image_id
        )
    return name
