# SPDX-License-Identifier: Apache-2.0
"""The datastores that take images, and which of them takes the next one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.vmware_datastore import errors
from glance_store._drivers.vmware_datastore.files import File
from glance_store._drivers.vmware_datastore.session import Session
from glance_store.i18n import _
from glance_store.transfer.multipart import MIB
from glance_store.transfer.retry import Patience

_NORMAL = "normal"


class DatastoreMissing(exceptions.BadStoreConfiguration, exceptions.BackendException):
    """The inventory has no such datacenter or datastore."""


class Datastore(NamedTuple):
    """An entry of the option ``vmware_datastores``."""

    datacenter: str
    name: str
    weight: int

    @classmethod
    def parse(cls, entry: str) -> Datastore:
        """Return the datastore that an entry names.

        :param entry: ``datacenter path:datastore name[:weight]``; the path may have colons
        :raises BadStoreConfiguration: the entry has another form
        """
        parts = entry.rsplit(":", 2)
        weight = parts[2].strip() if len(parts) == 3 else "0"
        if len(parts) < 2 or not all(part.strip() for part in parts[:2]):
            raise exceptions.BadStoreConfiguration(
                _(
                    "vmware_datastores = %s names no datastore: the form is "
                    "<datacenter path>:<datastore name>[:<weight>]"
                )
                % entry
            )
        if not weight.removeprefix("-").isdecimal():
            raise exceptions.BadStoreConfiguration(
                _("vmware_datastores = %(entry)s: the weight %(weight)r is not a whole number")
                % {"entry": entry, "weight": parts[2]}
            )
        return cls(parts[0].strip().strip("/"), parts[1].strip(), int(weight))

    def __str__(self) -> str:
        return f"{self.datacenter}:{self.name}"


class State(NamedTuple):
    """What a datastore says of itself."""

    free: int  # bytes
    problem: str  # why it takes no image now; nothing if it does
    capacity: int = 0  # bytes


class Inventory:
    """Looks datacenters and datastores up by name, once in a process.

    :param session: sends the requests
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._datacenters: dict[str, Any] = {}
        self._datastores: dict[tuple[str | None, str], Any] = {}

    def datacenter(self, path: str | None) -> Any:
        """Return the reference of a datacenter; None at an ESXi host, whose files need none.

        :param path: in the inventory, such as ``folder/datacenter``
        :raises DatastoreMissing: there is none
        """
        if not path:
            return None
        if path not in self._datacenters:
            found = self.session.call(
                lambda vim: vim.FindByInventoryPath(
                    vim.service_content.searchIndex, inventoryPath=path
                ),
                _("Looking for the datacenter %s") % path,
            )
            if found is None:
                raise DatastoreMissing(_("There is no datacenter %s in the inventory") % path)
            self._datacenters[path] = found
        return self._datacenters[path]

    def datastore(self, datacenter: str | None, name: str) -> Any:
        """Return the reference of a datastore.

        :param datacenter: path in the inventory
        :param name: of the datastore
        :raises DatastoreMissing: there is none
        """
        key = (datacenter, name)
        if key not in self._datastores:
            action = _("Looking for the datastore %s") % name
            references = self.session.property(self.datacenter(datacenter), "datastore", action)
            for reference in getattr(references, "ManagedObjectReference", ()):
                called = self.session.property(reference, "name", action)
                self._datastores[datacenter, str(called)] = reference
        if key not in self._datastores:
            raise DatastoreMissing(
                _("There is no datastore %(name)s in the datacenter %(datacenter)s")
                % {"name": name, "datacenter": datacenter}
            )
        return self._datastores[key]

    def state(self, datastore: Datastore) -> State:
        """Return what a datastore says of itself now.

        :param datastore: which one
        """
        action = _("Looking at the datastore %s") % datastore.name
        reference = self.datastore(datastore.datacenter, datastore.name)
        summary = self.session.property(reference, "summary", action)
        problem = ""
        if not summary.accessible:
            problem = _("not accessible")
        elif str(getattr(summary, "maintenanceMode", _NORMAL)) != _NORMAL:
            problem = _("in maintenance mode")
        free, capacity = (int(getattr(summary, name, 0) or 0) for name in ("freeSpace", "capacity"))
        return State(free, problem, capacity)

    def files(self, datacenter: str | None, name: str, directory: str, pattern: str) -> list[Any]:
        """Return what the vSphere API says of the files of a directory.

        :param datacenter: path of the datacenter
        :param name: of the datastore
        :param directory: without slashes at its ends
        :param pattern: of the names: ``*`` stands for any text
        :returns: objects of the class `FileInfo`; none where there is no such directory
        """
        action = _("Listing [%(name)s] %(path)s") % {"name": name, "path": directory}
        try:
            return self._search(datacenter, name, directory, pattern, action, folders=False)
        except exceptions.NotFound:
            return []

    def is_directory(self, datacenter: str | None, name: str, path: str) -> bool:
        """Tell whether a path in a datastore is that of a directory.

        :param datacenter: path of the datacenter
        :param name: of the datastore
        :param path: of the file, without a slash at its beginning
        :raises NotFound: the directory that it is in does not exist
        """
        parent, _slash, last = path.rpartition("/")
        action = _("Looking for [%(name)s] %(path)s") % {"name": name, "path": path}
        found = self._search(datacenter, name, parent, last, action, folders=True)
        return any(item.path == last for item in found)

    def _search(
        self,
        datacenter: str | None,
        name: str,
        directory: str,
        pattern: str,
        action: str,
        folders: bool,
    ) -> list[Any]:
        """Return the files of a directory, or its directories alone."""
        browser = self.session.property(self.datastore(datacenter, name), "browser", action)

        def search(vim: Any) -> Any:
            factory = vim.client.factory
            spec = factory.create("ns0:HostDatastoreBrowserSearchSpec")
            spec.matchPattern = [pattern]
            if folders:
                spec.query = [factory.create("ns0:FolderFileQuery")]
            else:
                details = factory.create("ns0:FileQueryFlags")
                details.fileType = details.fileSize = details.modification = True
                spec.details = details
            return vim.SearchDatastore_Task(
                browser, datastorePath=f"[{name}] {directory}".rstrip(), searchSpec=spec
            )

        try:
            found = self.session.task(search, action)
        except errors.DatastoreUnavailable:
            self.forget()
            raise
        return list(getattr(found, "file", ()))

    def forget(self) -> None:
        """Look everything up again: references change when a datastore is mounted anew."""
        self._datacenters.clear()
        self._datastores.clear()


def choose(states: Mapping[Datastore, State], size: int) -> Datastore:
    """Return the datastore for a new image.

    The highest weight comes first, in a weight the most free space. One that is in maintenance mode
    or not accessible takes nothing.

    :param states: of those to choose from
    :param size: bytes of the image, 0 when unknown
    :raises StorageFull: none has room for the image
    :raises DatastoreUnavailable: none takes images
    """
    usable = [datastore for datastore, state in states.items() if not state.problem]
    fitting = [datastore for datastore in usable if states[datastore].free >= max(size, 1)]
    if fitting:
        return max(fitting, key=lambda datastore: (datastore.weight, states[datastore].free))
    problems = (
        f"{datastore}: {state.problem or _('%d MiB free') % (state.free // MIB)}"
        for datastore, state in states.items()
    )
    raise (exceptions.StorageFull if usable else errors.DatastoreUnavailable)(
        _("No datastore takes an image of %(size)s now (%(problems)s)"),
        size=_("%d bytes") % size if size else _("unknown size"),
        problems="; ".join(problems),
    )


def state_of(inventory: Inventory, datastore: Datastore, patience: Patience | None = None) -> State:
    """Return the state of a datastore; one that cannot be asked takes itself out.

    :param inventory: looks at it
    :param datastore: which one
    :param patience: for passing failures; None: there is none
    """
    try:
        return (patience or Patience(0)).call(lambda: inventory.state(datastore))
    except (errors.DatastoreUnavailable, DatastoreMissing) as exc:
        # Its reference is another one when it has been mounted again.
        inventory.forget()
        return State(0, str(exc.msg))


def remove(inventory: Inventory, file: File, unfinished: bool = False) -> None:
    """Delete a file.

    :param inventory: of the session that deletes it
    :param file: which one; not a directory, with which all that is in it would go
    :param unfinished: of an upload: the server keeps it locked until it has noticed that the upload
        has ended
    :raises NotFound: there is no such file
    :raises InUseByStore: the server keeps it locked
    """
    session = inventory.session
    patience = session.settings.new_patience(in_all=True)
    action = _("Deleting %s") % file.name
    datacenter = inventory.datacenter(file.datacenter)
    passing: tuple[type[Exception], ...] = (exceptions.BackendUnavailable,)
    if unfinished:
        passing += (exceptions.InUseByStore,)
    unclear = False

    def try_once() -> None:
        nonlocal unclear
        try:
            session.task(
                lambda vim: vim.DeleteDatastoreFile_Task(
                    vim.service_content.fileManager, name=file.name, datacenter=datacenter
                ),
                action,
                patience,
            )
        except exceptions.NotFound:
            # Gone with an earlier try, whose answer was lost.
            if not unclear:
                raise
        except exceptions.BackendUnavailable:
            unclear = True
            raise

    patience.call(try_once, lambda exc: isinstance(exc, passing))
