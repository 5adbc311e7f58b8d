# SPDX-License-Identifier: Apache-2.0
"""What the containers of an account hold: images, and segments that belong to no image."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Container, Iterator
from typing import NamedTuple

from glance_store import exceptions
from glance_store._drivers.swift import deleter, large
from glance_store._drivers.swift.client import ACCOUNT, Client
from glance_store._drivers.swift.containers import Entry, entries
from glance_store.i18n import _
from glance_store.inventory import (
    COMPLETE,
    INCOMPLETE,
    Leftover,
    StoredImage,
)

# The names that `large.Names` makes, and those of older releases.
_SEGMENT = re.compile(r"(?P<prefix>(?P<image>.+)-(?P<mark>[0-9a-f]{16})-)(\d{5}|x\d{9})", re.DOTALL)
_OLD_SEGMENT = re.compile(r"(?P<image>.+)-\d{5}", re.DOTALL)
# Image names to remember until their segments: others may sort in between.
_REMEMBERED = 1000


class _Group(NamedTuple):
    """The segments of one upload."""

    image: str
    mark: str
    prefix: str
    size: int
    modified: float | None  # the latest


def names(client: Client, container: str, seeded: bool) -> Iterator[str]:
    """Yield the containers of images; with `seeded`, all whose names begin with `container`."""
    if not seeded:
        yield container
        return
    for entry in entries(client, ACCOUNT, f"{container}_"):
        yield entry.name


def images(
    client: Client, container: str, uri_of: Callable[[str, str], str]
) -> Iterator[StoredImage]:
    """Yield the images of a container, and the segments of incomplete images."""
    known: dict[str, None] = {}
    # For an image in segments, the listing has no size, or that of the manifest.
    waiting: Entry | None = None
    for entry in itertools.chain(entries(client, container), (None,)):
        segment = entry is not None and _is_segment(entry.name, known)
        if waiting is not None:
            asked = not waiting.size or segment
            size = _size(client, container, waiting.name) if asked else waiting.size
            uri = uri_of(container, waiting.name)
            yield StoredImage(waiting.name, uri, size, COMPLETE, waiting.modified, size)
        waiting = None if segment else entry
        if waiting is not None:
            known[waiting.name] = None
            if len(known) > _REMEMBERED:
                del known[next(iter(known))]
    for group in _unused(client, container):
        yield StoredImage(group.image, None, group.size, INCOMPLETE, group.modified, group.size)


def _is_segment(name: str, known: Container[str]) -> bool:
    old = _OLD_SEGMENT.fullmatch(name)
    return bool(_SEGMENT.fullmatch(name) or (old and old["image"] in known))


def _size(client: Client, container: str, name: str) -> int | None:
    """Return the size of an object that the listing shows as empty: it may be a manifest."""
    head = client.head(container, name, action=_("Looking for image %s") % name)
    return None if head is None else large.About(head.headers).size


def _groups(client: Client, container: str, prefix: str = "") -> Iterator[_Group]:
    """Yield the segments of each upload; a listing has them in a row."""
    found = (
        (entry, _SEGMENT.fullmatch(entry.name)) for entry in entries(client, container, prefix)
    )
    segments = ((entry, match) for entry, match in found if match is not None)
    for (start, image, mark), group in itertools.groupby(
        segments, lambda pair: pair[1].group("prefix", "image", "mark")
    ):
        size, latest = 0, None
        for entry, _match in group:
            size += entry.size
            latest = max(filter(None, (latest, entry.modified)), default=None)
        yield _Group(image, mark, start, size, latest)


def _unused(client: Client, container: str) -> Iterator[_Group]:
    """Yield the segments that belong to no image."""
    for group in _groups(client, container):
        if not _is_used(client, container, group):
            yield group


def _is_used(client: Client, container: str, group: _Group) -> bool:
    """Tell whether segments belong to an image, or may belong to one."""
    action = _("Looking for the manifest of image %s") % group.image
    for name in _images_of(client, container, group.image):
        head = client.head(container, name, action=action)
        if head is None:
            continue
        about = large.About(head.headers)
        # Not every server shows a static manifest: the mark tells which upload wrote it.
        if (
            about.mark == group.mark
            or (about.prefix and f"{container}/{group.prefix}".startswith(about.prefix))
            or (about.static and not about.mark)
        ):
            return True
    return False


def _images_of(client: Client, container: str, image: str) -> Iterator[str]:
    """Yield the names of images whose segments may have such names.

    In the names of segments, an underscore stands for special characters.
    """
    if "_" not in image:
        yield image
        return
    start = image.partition("_")[0]
    for entry in entries(client, container, start):
        if large.ODD.sub("_", entry.name) == image:
            yield entry.name


def leftovers(client: Client, container: str, older_than: float) -> Iterator[Leftover]:
    """Yield segments of no image whose upload has stored nothing for `older_than` seconds."""
    for group in _unused(client, container):
        if group.modified is None or group.modified > time.time() - older_than:
            continue

        def remove(group: _Group = group) -> None:
            _remove(client, container, group)

        yield Leftover(
            name=f"segments {container}/{group.prefix}",
            size=group.size,
            modified=group.modified,
            proof=_("the names are those of an upload, and no manifest refers to them"),
            remove=remove,
        )


def _remove(client: Client, container: str, group: _Group) -> None:
    now = list(_groups(client, container, group.prefix))
    if now not in ([], [group]) or _is_used(client, container, group):
        raise exceptions.InUseByStore(_("%(image)s is being uploaded"), image=group.image)
    found = [entry.name for entry in entries(client, container, group.prefix)]
    deleter.remove_objects(client, container, found)
