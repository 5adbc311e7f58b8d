# SPDX-License-Identifier: Apache-2.0
"""Removing images, in one piece or in any number of segments.

Segments go first and the manifest goes last: as long as one of them is left, the manifest still
names it, and the deletion can be asked for again. A cluster can remove a static large object by
itself, but it removes the manifest whatever has become of the segments, which nobody could find
any more: that is left to those that do not show what a manifest names.
"""

from __future__ import annotations

import json
import logging
import urllib.parse
from collections.abc import Iterable
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.swift import bulk, errors, listing
from glance_store._drivers.swift.client import Client
from glance_store._drivers.swift.sweep import Place, Sweep, remove_object
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# Manifests in manifests, as Swift itself allows them.
_DEEPEST = 10


def remove(client: Client, container: str, obj: str) -> None:
    """Remove an image with all of its segments.

    :param client: of the account
    :param container: where it is
    :param obj: its name
    :raises NotFound: it is not there
    :raises Forbidden: the account may not remove it
    :raises SwiftUnavailable: Swift cannot be reached; what is left can be removed later
    :raises SwiftError: Swift refuses; what is left can be removed later
    """
    action = _("Removing image %s") % obj
    head = client.request("HEAD", container, obj, action=action)
    if head.headers.get("x-static-large-object", "").lower() == "true":
        _remove_static(client, Place(container, obj))
        return
    place = urllib.parse.unquote(head.headers.get("x-object-manifest", ""))
    if place:
        _remove_dynamic_segments(client, Place(container, obj), place)
    remove_object(client, Place(container, obj), action)


def remove_objects(client: Client, container: str, names: Iterable[str]) -> int:
    """Remove objects, several at a time; a line in the log says what is left.

    :param client: of the account
    :param container: where they are
    :param names: of the objects
    :returns: how many could not be removed
    """
    sweep = Sweep(client)
    sweep.remove([Place(container, name) for name in names])
    if sweep.left:
        LOG.error("Objects of an image are left in Swift: %s; delete them", sweep.remains())
    return len(sweep.left)


def _remove_dynamic_segments(client: Client, image: Place, place: str) -> None:
    where, _slash, beginning = place.partition("/")
    if not where or not beginning:
        LOG.warning(
            "The manifest of image %s names no segments (%s); only the manifest is removed",
            image.name,
            place,
        )
        return
    sweep = Sweep(client)
    for page in listing.pages(client, where, beginning):
        # The manifest itself goes last.
        sweep.remove([found for e in page if (found := Place(where, e.name)) != image])
        if sweep.stopped:
            # The manifest stays, so that all of it can be tried again.
            raise _incomplete(image, sweep)
    if sweep.left:
        LOG.error(
            "Image %s is removed, but segments of it are left in Swift: %s; delete them",
            image.name,
            sweep.remains(),
        )


def _remove_static(client: Client, image: Place, depth: int = 0) -> None:
    """Remove what a manifest names, and then the manifest."""
    if depth > _DEEPEST:
        raise errors.SwiftError(
            _("The manifest %(name)s is not removed: too many others are in it"), name=image.name
        )
    named = _named(client, image)
    if named is None:
        bulk.remove(client, image)
        return
    for inner in named.manifests:
        try:
            _remove_static(client, inner, depth + 1)
        except exceptions.NotFound:
            LOG.info("The manifest %s in the image %s is not there", inner.name, image.name)
    sweep = Sweep(client)
    sweep.remove(named.segments)
    if sweep.left:
        raise _incomplete(image, sweep)
    remove_object(client, image, _("Removing image %s") % image.name)


def _incomplete(image: Place, sweep: Sweep) -> exceptions.GlanceStoreException:
    """Return the error for an image of which something could not be removed, ready to raise."""
    cause = sweep.error
    if isinstance(cause, errors.SwiftDenied):
        return cause
    passing = isinstance(cause, errors.SwiftUnavailable)
    kind = errors.SwiftUnavailable if passing else errors.SwiftError
    return kind(
        _(
            "Image %(image)s is not removed completely: %(remains)s are left (%(cause)s). Its "
            "manifest stays: delete the image again"
        ),
        image=image.name,
        remains=sweep.remains(),
        cause=cause,
    )


class _Named(NamedTuple):
    """What a manifest names, each once."""

    segments: list[Place]
    manifests: list[Place]


def _named(client: Client, image: Place) -> _Named | None:
    """Read the manifest of a static large object; None where the cluster does not show it.

    :raises NotFound: it is not there
    :raises SwiftError: it is not understood
    """
    action = _("Reading the manifest of image %s") % image.name
    answer = client.request("GET", *image, action=action, query={"multipart-manifest": "get"})
    if answer.headers.get("x-static-large-object", "").lower() != "true":
        return None
    try:
        entries = json.loads(answer.data)
        # Bytes that stand in the manifest itself have no place.
        found = [(_place(entry), bool(entry.get("sub_slo"))) for entry in _with_place(entries)]
    except (ValueError, LookupError, TypeError, AttributeError):
        found = None
    if found is None:
        raise errors.SwiftError(_("%(action)s: it is not understood"), action=action)
    segments, manifests = (
        list(dict.fromkeys(place for place, inner in found if inner is wanted))
        for wanted in (False, True)
    )
    return _Named(segments, manifests)


def _with_place(entries: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return (entry for entry in entries if "data" not in entry)


def _place(entry: dict[str, Any]) -> Place:
    # By its name in Swift, or as it was written.
    path = entry["name"] if "name" in entry else entry["path"]
    container, slash, name = str(path).lstrip("/").partition("/")
    if not slash or not container or not name:
        raise ValueError(path)
    return Place(container, name)
