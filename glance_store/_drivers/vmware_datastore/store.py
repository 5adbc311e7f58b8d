# SPDX-License-Identifier: Apache-2.0
"""The VMware store: images are files in datastores of a vCenter or an ESXi host."""

from __future__ import annotations

import logging
import os
import posixpath
import re
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from glance_store import capabilities, driver, exceptions
from glance_store._drivers._network import check_option
from glance_store._drivers.vmware_datastore import datastores, holdings
from glance_store._drivers.vmware_datastore.datastores import Datastore, Inventory, State
from glance_store._drivers.vmware_datastore.errors import DatastoreUnavailable, PrivilegeMissing
from glance_store._drivers.vmware_datastore.files import File, Files
from glance_store._drivers.vmware_datastore.location import StoreLocation
from glance_store._drivers.vmware_datastore.options import OPTIONS
from glance_store._drivers.vmware_datastore.reader import RANGE_SIZE, DatastoreReader
from glance_store._drivers.vmware_datastore.session import Sessions, Settings
from glance_store._drivers.vmware_datastore.soap import check_library
from glance_store._drivers.vmware_datastore.writer import DatastoreWriter
from glance_store.i18n import _
from glance_store.inventory import Capacity, Leftover, StoredImage
from glance_store.transfer.memory import Memory
from glance_store.transfer.multipart import MIB
from glance_store.transfer.retry import Patience, ResumingStreamingReader

if TYPE_CHECKING:
    from glance_store.location import Location
    from glance_store.transfer.interface import ImageReader

__all__ = ["Store", "StoreLocation"]

LOG = logging.getLogger(__name__)

_FOLDER = "/folder/"
# Names that mean the same in a location, a request and the vSphere API, and are not hidden.
_IDS = re.compile(r"[\w~-][\w.~-]*", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Store(driver.Store):
    """Stores images as files in VMware datastores, each as ``<image directory>/<id>``."""

    _CAPABILITIES: int = (
        capabilities.BitMasks.READ_RANDOM
        | capabilities.BitMasks.WRITE_ACCESS
        | capabilities.BitMasks.DRIVER_REUSABLE
    )
    OPTIONS = OPTIONS
    READ_CHUNKSIZE = RANGE_SIZE

    def __init__(self, conf: Any, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self._files: Files | None = None
        self._memory = Memory(self.store_conf.vmware_store_memory * MIB)
        self._datastores: list[Datastore] = []
        self._directory = ""
        self._inventories: dict[int, Inventory] = {}
        self._foreign_hosts: set[str] = set()

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return ("vsphere",)

    # -- configuration

    def configure_add(self) -> None:
        """Check the options, log in, and look for the datastores.

        :raises BadStoreConfiguration: oslo.vmware is missing, an option is missing or wrong, the
            server rejects the user, or a datastore does not exist
        :raises DatastoreUnavailable: the server cannot be reached
        """
        try:
            self._configure()
        except exceptions.BackendUnavailable:
            raise
        except exceptions.GlanceStoreException as exc:
            problem = str(exc.msg)
        else:
            return
        raise exceptions.BadStoreConfiguration(store_name=self.name, reason=problem)

    def _configure(self) -> None:
        options = self.store_conf
        if self._files is not None:
            self._files.sessions.log_out()
        self._files = None
        self._inventories.clear()
        self._memory = Memory(options.vmware_store_memory * MIB)
        check_library()
        settings = Settings.of(options)
        if options.vmware_ca_file:
            check_option("vmware_ca_file", options.vmware_ca_file)
        if options.vmware_insecure and not options.vmware_ca_file:
            LOG.warning(
                "Store %s: the certificate of %s is not verified, so the password can be "
                "intercepted. Set vmware_ca_file to the certificate of the server's CA",
                self.name,
                settings.host,
            )
        self._directory = _directory(options.vmware_store_image_dir)
        self._files = Files(Sessions(settings))
        self._url_prefix = f"vsphere://{settings.host}{_FOLDER}{self._directory}".rstrip("/")
        self._datastores = datastores.parse_all(options.vmware_datastores or [])
        if not self._datastores:
            raise exceptions.BadStoreConfiguration(
                _("The option vmware_datastores is not set: name the datastores for the images")
            )
        inventory = self._inventory()
        try:
            for datastore in self._datastores:
                inventory.datastore(datastore.datacenter, datastore.name)
        except datastores.DatastoreMissing as exc:
            raise exceptions.BadStoreConfiguration(
                _("vmware_datastores = %(datastore)s: %(problem)s")
                % {"datastore": datastore, "problem": exc.msg}
            ) from exc
        except exceptions.BackendUnavailable as exc:
            raise DatastoreUnavailable(
                _("%(problem)s (vmware_server_host = %(host)s)")
                % {"problem": exc, "host": settings.host}
            ) from None

    def storage_ids(self) -> set[str]:
        """Return the image directory of each datastore."""
        if self._files is None:
            return set()
        host = self._files.settings.host
        return {f"{host} {datastore} {self._directory}" for datastore in self._datastores}

    def check_health(self) -> str:
        """Check that the server answers, and which datastores take images.

        :returns: how many do, and their free space
        :raises GlanceStoreException: the server cannot be reached, or no datastore takes images
        """
        inventory = self._inventory()
        states = {store: datastores.state_of(inventory, store) for store in self._datastores}
        datastores.choose(states, 0)
        problems = [f"{store}: {state.problem}" for store, state in states.items() if state.problem]
        free = sum(state.free for state in states.values() if not state.problem)
        text = _("%(good)d of %(all)d datastores take images, %(free)d GiB free") % {
            "good": len(states) - len(problems),
            "all": len(states),
            "free": free // (1024 * MIB),
        }
        return "; ".join([text, *problems])

    def images(self) -> Iterator[StoredImage]:
        """Yield everything in the image directory, one datastore after the other."""
        inventory = self._inventory()
        for datastore in self._datastores:

            def uri_of(name: str, datastore: Datastore = datastore) -> str:
                return self._location_of(name, datastore).get_uri()

            yield from holdings.images(inventory, datastore, self._directory, uri_of)

    def leftovers(self, older_than: float) -> Iterator[Leftover]:
        """Yield unfinished uploads.

        :param older_than: seconds without a write. The server cannot tell whether an upload is
            alive: one that waits longer than this for its source looks dead
        """
        for datastore in self._datastores:
            yield from holdings.leftovers(self._inventory(), datastore, self._directory, older_than)

    def capacity(self) -> Capacity:
        """Return the space of the reachable datastores."""
        states = [datastores.state_of(self._inventory(), one) for one in self._datastores]
        # Count a storage that is visible in two datacenters once.
        states = list({state.url or number: state for number, state in enumerate(states)}.values())
        total = sum(state.capacity for state in states)
        free = sum(state.free for state in states)
        return Capacity(total, free, total - free)

    def _get_files(self) -> Files:
        if self._files is None:
            # A store that is read-only because of an option can still read.
            check_library()
            self._files = Files(Sessions(Settings.of(self.store_conf)))
        return self._files

    def _inventory(self) -> Inventory:
        session = self._get_files().sessions.current()
        pid = os.getpid()
        found = self._inventories.get(pid)
        return found or self._inventories.setdefault(pid, Inventory(session))

    # -- images

    def open_writer(self, image_id: str, size: int, context: Any = None) -> DatastoreWriter:
        """Begin to store an image.

        :param image_id: the image's id, used as the name of the file
        :param size: bytes, 0 if unknown
        :param context: not used
        :returns: the writer, which has not sent image data yet
        :raises Duplicate: a file of this name exists in any of the datastores
        :raises StorageFull: no datastore has room for the image
        """
        files = self._get_files()
        if not _IDS.fullmatch(image_id):
            raise exceptions.Invalid(
                _("%(image)r cannot be the id of an image in a VMware datastore"), image=image_id
            )
        inventory = self._inventory()
        patience = files.settings.new_patience(in_all=True)
        states = {one: datastores.state_of(inventory, one, patience) for one in self._datastores}
        free_in = {
            one: self._file_in(one, image_id)
            for one, state in states.items()
            if self._is_free(files, one, image_id, state)
        }
        datastore = self._choose(inventory, states, size)
        url = states[datastore].url
        others = [
            file
            for one, file in free_in.items()
            # Skip the same storage in another datacenter, where the image will be visible too.
            if one != datastore and not (url and url == states[one].url)
        ]
        location = self._location_of(image_id, datastore)
        return DatastoreWriter(
            files, inventory, datastore, free_in[datastore], size, location.get_uri(), others
        )

    def _choose(self, inventory: Inventory, states: dict[Datastore, State], size: int) -> Datastore:
        """Return the datastore for an image; if none has space, refresh the figures and retry."""
        try:
            return datastores.choose(states, size)
        except exceptions.StorageFull:
            for datastore, state in states.items():
                if not state.problem:
                    inventory.refresh(datastore)
                    states[datastore] = datastores.state_of(inventory, datastore)
        return datastores.choose(states, size)

    def _is_free(self, files: Files, datastore: Datastore, image_id: str, state: State) -> bool:
        """Raise Duplicate if the datastore has this image; return False if nobody can look.

        A datastore that is out of use must not keep images out of the others.
        """
        file = self._file_in(datastore, image_id)
        action = _("Looking for %s") % file.name
        patience = Patience(0) if state.problem else files.settings.new_patience()
        try:
            patience.call(lambda: files.size(file, action))
        except exceptions.NotFound:
            return True
        except DatastoreUnavailable as exc:
            if not state.problem:
                raise
            LOG.warning(
                "Store %s: cannot tell whether datastore %s has an image %s: %s",
                self.name,
                datastore,
                image_id,
                exc,
            )
            return False
        raise exceptions.Duplicate(image=image_id)

    def _location_of(self, image_id: str, datastore: Datastore) -> StoreLocation:
        specs = {
            "scheme": "vsphere",
            "server_host": self._get_files().settings.host,
            "image_dir": self._directory,
            "image_id": image_id,
            "datacenter_path": datastore.datacenter,
            "datastore_name": datastore.name,
        }
        return StoreLocation(specs, self.conf, backend_group=self.backend_group)

    def _file_in(self, datastore: Datastore, image_id: str) -> File:
        path = posixpath.join(self._directory, image_id)
        return File(datastore.datacenter, datastore.name, path)

    def open_reader(self, location: Location, context: Any = None) -> ImageReader:
        """Open an image.

        :param location: the image's location; requests go to the configured server, whatever host
            it names
        :param context: not used
        :returns: the reader, which resumes interrupted reads
        :raises NotFound: there is no such file
        :raises Forbidden: the server refuses
        :raises BackendUnavailable: the server cannot be reached
        """
        files, file = self._get_files(), self._file(location)
        patience = files.settings.new_patience()
        return ResumingStreamingReader(
            DatastoreReader(files, file, self._memory, patience), patience
        )

    @capabilities.check
    def delete(self, location: Location, context: Any = None) -> None:
        """Delete an image.

        :param location: the image's location
        :param context: not used
        :raises NotFound: there is no such file
        :raises Forbidden: it is not an image of this store, or the user may not delete it
        :raises InUseByStore: the server keeps it locked
        """
        file = self._file(location)
        directory, name = posixpath.split(file.path)
        # vmware_store_image_dir may have changed. In the former directory, images are named by
        # UUIDs.
        if name.startswith(".") or not (directory == self._directory or _UUID.fullmatch(name)):
            raise exceptions.Forbidden(
                _(
                    "%(file)s is not deleted: this store's images are files in the directory "
                    "%(directory)s (vmware_store_image_dir), or are named by a UUID"
                ),
                file=file.name,
                directory=self._directory,
            )
        inventory = self._inventory()
        try:
            # The server would delete a directory with everything in it.
            if self._is_directory(inventory, file):
                raise exceptions.Forbidden(
                    _("%(file)s is not deleted: it is a directory"), file=file.name
                )
            datastores.remove(inventory, file)
        except datastores.DatastoreMissing as exc:
            raise exceptions.NotFound(str(exc.msg)) from exc
        LOG.debug("Store %s: deleted %s", self.name, file.name)

    def _is_directory(self, inventory: Inventory, file: File) -> bool:
        try:
            return inventory.is_directory(file.datacenter, file.datastore, file.path)
        except PrivilegeMissing:
            # 5.x did not need Datastore.Browse. The file server tells a directory from a file too.
            files = self._get_files()
            action = _("Looking for %s") % file.name
            try:
                files.settings.new_patience().call(lambda: files.size(file, action))
            except exceptions.BadStoreUri:
                return True
            return False

    def _file(self, location: Location) -> File:
        target = cast("StoreLocation", location.store_location)
        self._note_host(str(target.server_host))
        path = urllib.parse.unquote(target.path or "")
        if not path.startswith(_FOLDER) or {".", ".."} & set(path.split("/")):
            raise exceptions.BadStoreUri(
                _(
                    "The location %(uri)s does not name a file in a datastore: its path must "
                    "start with %(folder)s and must not contain '.' or '..'"
                ),
                uri=target.get_uri(),
                folder=_FOLDER,
            )
        return File(
            target.datacenter_path, str(target.datastore_name), path[len(_FOLDER) :].strip("/")
        )

    def _note_host(self, host: str) -> None:
        """Warn once about each location host that is not the configured server."""
        configured = str(self.store_conf.vmware_server_host)
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        if name.lower() != configured.lower() and name not in self._foreign_hosts:
            self._foreign_hosts.add(name)
            LOG.warning(
                "Store %s: images whose locations name the server %s are looked for on %s "
                "(vmware_server_host)",
                self.name,
                name,
                configured,
            )


def _directory(option: str) -> str:
    """Return ``vmware_store_image_dir`` without slashes at its ends.

    Raises BadStoreConfiguration if it cannot be part of a location.
    """
    parts = [part for part in option.split("/") if part]
    odd = any(part in (".", "..") or part != part.strip() for part in parts)
    if odd or not option.isprintable() or set(option) & set('%?#[]\\"'):
        raise exceptions.BadStoreConfiguration(
            _(
                "vmware_store_image_dir = %s cannot be used: avoid '.' and '..', spaces around "
                "names, and special characters"
            )
            % option
        )
    return "/".join(parts)
