# SPDX-License-Identifier: Apache-2.0
"""What the image directory on a datastore holds."""

from __future__ import annotations

import calendar
import posixpath
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers.vmware_datastore.datastores import Datastore, Inventory, remove
from glance_store._drivers.vmware_datastore.files import File
from glance_store.i18n import _
from glance_store.inventory import (
    COMPLETE,
    FOREIGN,
    INCOMPLETE,
    Leftover,
    StoredImage,
)

# See `writer.part_name`.
_PART = re.compile(r"\.(?P<id>.+)\.[0-9a-f]{32}\.part")


def images(
    inventory: Inventory, datastore: Datastore, directory: str, uri_of: Callable[[str], str]
) -> Iterator[StoredImage]:
    """Yield everything in the image directory."""
    for item in inventory.files(datastore.datacenter, datastore.name, directory, "*"):
        name = str(item.path)
        part = _PART.fullmatch(name)
        state = COMPLETE
        if part is not None:
            state = INCOMPLETE
        elif type(item).__name__ == "FolderFileInfo" or name.startswith("."):
            state = FOREIGN
        yield StoredImage(
            image_id=part["id"] if part is not None else name,
            uri=uri_of(name) if state == COMPLETE else None,
            size=_size(item),
            state=state,
            modified=_modified(item),
        )


def _size(item: Any) -> int | None:
    size = getattr(item, "fileSize", None)
    return None if size is None else int(size)


def _modified(item: Any) -> float | None:
    moment = getattr(item, "modification", None)
    return None if moment is None else float(calendar.timegm(moment.utctimetuple()))


def leftovers(
    inventory: Inventory, datastore: Datastore, directory: str, older_than: float
) -> Iterator[Leftover]:
    """Yield unfinished uploads that nobody has written to for `older_than` seconds."""
    for item in inventory.files(datastore.datacenter, datastore.name, directory, ".*.part"):
        name, modified = str(item.path), _modified(item)
        if _PART.fullmatch(name) is None or modified is None:
            continue
        if modified > time.time() - older_than:
            continue
        path = posixpath.join(directory, name)
        file = File(datastore.datacenter, datastore.name, path)

        def remove_file(file: File = file, seen: tuple[Any, ...] = (_size(item), modified)) -> None:
            _remove(inventory, file, seen)

        yield Leftover(
            name=file.name,
            size=_size(item),
            modified=modified,
            proof=_(
                "it has the name of an unfinished upload, and nothing has been written to it "
                "since then"
            ),
            remove=remove_file,
        )


def _remove(inventory: Inventory, file: File, seen: tuple[Any, ...]) -> None:
    directory, _slash, name = file.path.rpartition("/")
    for item in inventory.files(file.datacenter, file.datastore, directory, name):
        if (_size(item), _modified(item)) != seen:
            raise exceptions.InUseByStore(_("%(name)s is being written"), name=file.name)
    try:
        remove(inventory, file)
    except exceptions.NotFound:
        # It has become an image, or somebody else has removed it.
        return
