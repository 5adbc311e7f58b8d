# SPDX-License-Identifier: Apache-2.0
"""The datastores that take images, and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.vmware_datastore import errors
from glance_store._drivers.vmware_datastore.files import File
from glance_store._drivers.vmware_datastore.session import Session
from glance_store.i18n import _
from glance_store.transfer.multipart import MIB
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

_NORMAL = "normal"
# Datastore names to list in the error for an unknown one.
_MOST_NAMES = 20


class DatastoreMissing(exceptions.BadStoreConfiguration, exceptions.BackendException):
    """The inventory has no such datacenter or datastore."""


class Datastore(NamedTuple):
    """An entry of the option ``vmware_datastores``."""

    datacenter: str
    name: str
    weight: int

    @classmethod
    def parse(cls, entry: str) -> Datastore:
        """Parse ``datacenter path:datastore name[:weight]``; the path may contain colons.

        Raises BadStoreConfiguration if the entry has another form.
        """
        parts = [part.strip() for part in entry.rsplit(":", 2)]
        if len(parts) < 2 or not parts[0].strip("/") or not parts[1]:
            raise exceptions.BadStoreConfiguration(
                _(
                    "vmware_datastores = %s names no datastore: write <datacenter "
                    "path>:<datastore name>[:<weight>]"
                )
                % entry
            )
        try:
            weight = int(parts[2]) if len(parts) == 3 else 0
        except ValueError:
            raise exceptions.BadStoreConfiguration(
                _("vmware_datastores = %(entry)s: the weight %(weight)r is not a whole number")
                % {"entry": entry, "weight": parts[2]}
            ) from None
        return cls(parts[0].strip("/"), parts[1], weight)

    def __str__(self) -> str:
        return f"{self.datacenter}:{self.name}"


def parse_all(entries: Iterable[str]) -> list[Datastore]:
    """Return the datastores that the option names, without duplicates.

    Raises BadStoreConfiguration if an entry has another form.
    """
    found: dict[tuple[str, str], Datastore] = {}
    for datastore in map(Datastore.parse, entries):
        known = found.setdefault(datastore[:2], datastore)
        if known is not datastore:
            found[datastore[:2]] = max(known, datastore)
            LOG.warning(
                "vmware_datastores names %s more than once: using the highest weight", datastore
            )
    return list(found.values())


class State(NamedTuple):
    """What a datastore reports about itself."""

    free: int  # bytes
    problem: str  # why it takes no image now; empty if it does
    capacity: int = 0  # bytes; 0 if unknown, as is `free` then
    url: str = ""  # the same for a storage seen in two datacenters


class Inventory:
    """Looks up datacenters and datastores by name, once per session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def datacenter(self, path: str | None) -> Any:
        """Return the reference of a datacenter, or None for an ESXi host, whose files need none.

        `path` is the inventory path, such as ``folder/datacenter``. Raises DatastoreMissing.
        """
        if not path:
            return None
        known = self.session.references
        found = known.get(path)
        if found is None:
            found = self.session.call(
                lambda vim: vim.FindByInventoryPath(
                    vim.service_content.searchIndex, inventoryPath=path
                ),
                _("Looking for datacenter %s") % path,
            )
            if found is None:
                raise DatastoreMissing(_("There is no datacenter %s in the inventory") % path)
            known[path] = found
        return found

    def datastore(self, datacenter: str | None, name: str) -> Any:
        """Return the reference of a datastore. Raises DatastoreMissing."""
        known = self.session.references
        reference = known.get((datacenter, name))
        if reference is None:
            found = self._datastores_of(datacenter, name)
            if name not in found:
                raise DatastoreMissing(
                    _(
                        "There is no datastore %(name)s in the datacenter %(datacenter)s, which "
                        "has these datastores: %(names)s"
                    )
                    % {
                        "name": name,
                        "datacenter": datacenter,
                        "names": ", ".join(sorted(found)[:_MOST_NAMES]) or _("none"),
                    }
                )
            reference = found[name]
            known.update({(datacenter, called): found[called] for called in found})
        return reference

    def _datastores_of(self, datacenter: str | None, name: str) -> dict[str, Any]:
        """Return the references of those datastores in a datacenter that the user may see."""
        action = _("Looking for datastore %s") % name
        references = self.session.property(self.datacenter(datacenter), "datastore", action)
        found = {}
        for reference in getattr(references, "ManagedObjectReference", ()):
            try:
                found[str(self.session.property(reference, "name", action))] = reference
            except (errors.PrivilegeMissing, errors.ReferenceGone) as exc:
                # Not visible to this user, or just being removed.
                LOG.debug("%s", exc)
        return found

    def state(self, datastore: Datastore) -> State:
        """Return what a datastore reports about itself now."""
        action = _("Checking datastore %s") % datastore.name
        reference = self.datastore(datastore.datacenter, datastore.name)
        summary = self.session.property(reference, "summary", action)
        problem = ""
        called = str(getattr(summary, "name", datastore.name))
        if called != datastore.name:
            raise DatastoreMissing(
                _("The datastore %(name)s was renamed to %(called)s")
                % {"name": datastore, "called": called}
            )
        if not summary.accessible:
            problem = _("not accessible")
        elif str(getattr(summary, "maintenanceMode", _NORMAL)) != _NORMAL:
            problem = _("in maintenance mode")
        free, capacity = (int(getattr(summary, name, 0) or 0) for name in ("freeSpace", "capacity"))
        return State(free, problem, capacity, str(getattr(summary, "url", "")))

    def refresh(self, datastore: Datastore) -> None:
        """Make the server update a datastore's free space, which may be long out of date."""
        action = _("Refreshing the free space of %s") % datastore.name
        reference = self.datastore(datastore.datacenter, datastore.name)
        try:
            self.session.call(lambda vim: vim.RefreshDatastore(reference), action)
        except exceptions.GlanceStoreException as exc:
            LOG.debug("%s", exc)

    def files(self, datacenter: str | None, name: str, directory: str, pattern: str) -> list[Any]:
        """Return a directory's files as `FileInfo` objects, or nothing if it does not exist.

        `directory` has no slashes at its ends; ``*`` in `pattern` matches any text.
        """
        action = _("Listing [%(name)s] %(path)s") % {"name": name, "path": directory}
        try:
            return self._search(datacenter, name, directory, pattern, action, folders=False)
        except exceptions.NotFound:
            return []

    def is_directory(self, datacenter: str | None, name: str, path: str) -> bool:
        """Tell whether a path in a datastore is a directory.

        The path has no leading slash. Raises NotFound if its parent directory does not exist.
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
        """Return the files of a directory, or only its subdirectories."""

        def search(vim: Any, browser: Any) -> Any:
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

        def try_once() -> Any:
            reference = self.datastore(datacenter, name)
            browser = self.session.property(reference, "browser", action)
            return self.session.task(lambda vim: search(vim, browser), action)

        found = self.session.settings.new_patience(in_all=True).call(try_once)
        return list(getattr(found, "file", ()))


def choose(states: Mapping[Datastore, State], size: int) -> Datastore:
    """Return the datastore for a new image.

    The highest weight wins, and among equal weights the most free space; a datastore with unknown
    space comes last. One in maintenance mode or not accessible takes no image. Raises StorageFull
    if none has space for `size` bytes (0 if unknown), and DatastoreUnavailable if none takes
    images.
    """
    usable = [datastore for datastore, state in states.items() if not state.problem]
    fitting = [
        datastore
        for datastore in usable
        if states[datastore].free >= max(size, 1) or not states[datastore].capacity
    ]
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
    """Return a datastore's state, with a problem if it cannot be asked.

    Without `patience`, passing failures are not retried.
    """
    try:
        return (patience or Patience(0)).call(lambda: inventory.state(datastore))
    except (errors.DatastoreUnavailable, DatastoreMissing) as exc:
        # Mounted again, it has another reference.
        inventory.session.references.clear()
        return State(0, str(exc.msg))


def remove(inventory: Inventory, file: File, unfinished: bool = False) -> None:
    """Delete a file. It must not be a directory: the server would delete everything in it.

    `unfinished` waits for a lock that the server holds until it notices that the upload has ended.
    Raises NotFound, and InUseByStore if the server keeps the file locked.
    """
    session = inventory.session
    patience = session.settings.new_patience(in_all=True)
    action = _("Deleting %s") % file.name
    passing: tuple[type[Exception], ...] = (exceptions.BackendUnavailable,)
    if unfinished:
        passing += (exceptions.InUseByStore,)
    unclear = False

    def try_once() -> None:
        nonlocal unclear
        datacenter = inventory.datacenter(file.datacenter)
        try:
            session.task(
                lambda vim: vim.DeleteDatastoreFile_Task(
                    vim.service_content.fileManager, name=file.name, datacenter=datacenter
                ),
                action,
                patience,
            )
        except exceptions.NotFound:
            # An earlier try, whose answer was lost, deleted it.
            if not unclear:
                raise
        except exceptions.BackendUnavailable:
            unclear = True
            raise

    patience.call(try_once, lambda exc: isinstance(exc, passing))
