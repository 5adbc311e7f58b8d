# SPDX-License-Identifier: Apache-2.0
"""Remove images, whether they are one object or any number of segments.

A cluster removes a static large object by itself. For a dynamic one, the segments go first and the
manifest last: while a segment is left, the manifest still names it, and deleting the image again
finds it.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import logging
import os
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers._objects.errors import ERRORS
from glance_store._drivers.swift import containers, errors, large
from glance_store.i18n import _
from glance_store.transfer.threads import Workers

if TYPE_CHECKING:
    from glance_store._drivers.swift.client import Client
    from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

# Seconds added to the read timeout while the cluster removes segments; it sends heartbeats
# meanwhile.
_SILENCE = 120.0
# Give up after this many objects in a row for which Swift could not be reached.
_MAX_FAILURES = 6
_NAMES = 3
# Objects to remove before the next ones are listed.
_BATCH = 10_000
UNKNOWN = "unreadable response"
_DENIED = "403"


class ObjectName(NamedTuple):
    """An object of an account."""

    container: str
    name: str


def remove(client: Client, container: str, obj: str) -> None:
    """Remove an image with all of its segments.

    On a failure, what is left can be removed by deleting the image again.
    """
    image = ObjectName(container, obj)
    patience = client.patience()
    action = _("Removing image %s") % obj
    head = client.request(
        "HEAD",
        *image,
        action=action,
        patience=patience,
        check=lambda response: errors.check_object(response, action),
    )
    about = large.About(head.headers)
    if about.static:
        if not _remove_static(client, image, patience) and about.mark:
            # The request may not have reached the part of Swift that removes segments: find them by
            # name.
            prefix = large.Names(container, obj, about.mark).prefix
            _remove_segments(client, image, f"{container}/{prefix}", 0, patience)
        return
    if about.prefix:
        size = about.stored_size or about.size or 0
        _remove_segments(client, image, about.prefix, size, patience)
    _remove_object(client, image, action, patience)


def remove_objects(client: Client, container: str, names: Sequence[str]) -> bool:
    """Remove objects, several at a time; log what is left. Return whether all are gone."""
    sweep = _Sweep(client)
    sweep.remove([ObjectName(container, name) for name in names])
    if sweep.left:
        LOG.error("Objects of an image are left in Swift: %s; delete them", sweep.remains())
    return not sweep.left


def _remove_object(
    client: Client, object_name: ObjectName, action: str, patience: Patience
) -> None:
    """Remove an object; one that is already gone is not an error."""
    client.request("DELETE", *object_name, action=action, patience=patience, allow=(404,))


def _remove_segments(
    client: Client, image: ObjectName, prefix: str, size: int, patience: Patience
) -> None:
    """Remove the listed segments of an image, which have at least `size` bytes."""
    where, _slash, beginning = prefix.partition("/")
    if not where or not beginning:
        LOG.warning(
            "The manifest of image %s names no segments (%s); only the manifest is removed",
            image.name,
            prefix,
        )
        return
    tries = patience.tries()
    sweep = _Sweep(client)
    seen: dict[ObjectName, int] = {}
    while True:
        listed = containers.entries(client, where, beginning, patience)
        while batch := list(itertools.islice(listed, _BATCH)):
            # The manifest itself goes last.
            found = {ObjectName(where, e.name): e.size for e in batch if (where, e.name) != image}
            sweep.remove([each for each in found if each not in seen])
            seen.update(found)
            if sweep.left:
                # The manifest stays, so that the deletion can be repeated.
                raise sweep.incomplete(image)
        late = errors.SwiftUnavailable(
            _("Removing image %(image)s: the listing of the container %(container)s lags behind"),
            image=image.name,
            container=where,
        )
        if sum(seen.values()) >= size or not tries.again(late):
            return


def _remove_static(client: Client, image: ObjectName, patience: Patience) -> bool:
    """Have the cluster remove a manifest and the segments it names.

    The cluster removes the manifest whatever happens to the segments, so the segments that it
    reports as not removed are removed here. Returns whether its responses were understood.
    """
    understood = True
    action = _("Removing image %s and its segments") % image.name
    failed: dict[ObjectName, None] = {}
    tries = patience.tries()
    while True:
        response = client.request(
            "DELETE",
            *image,
            action=action,
            patience=patience,
            query={"multipart-manifest": "delete"},
            headers={"Accept": "application/json"},
            allow=(404, 409),
            extra_timeout=_SILENCE,
        )
        answer, entries = "200 OK", list[Any]()
        if response.status_code == 409:
            answer = "409 Conflict"
        elif response.status_code != 404:
            # The status of the response says only that the work began.
            answer, entries = outcome(response.content)
            understood = understood and answer != UNKNOWN
        failed.update(dict.fromkeys(_object_name(entry) for entry in entries))
        if any(text.startswith(_DENIED) for text in (answer, *(str(e[1]) for e in entries))):
            raise errors.SwiftDenied(
                _("%(action)s: Swift answered '403 Forbidden': the account may not do this"),
                action=action,
            )
        if not entries and answer.startswith("200"):
            break
        problem = errors.SwiftUnavailable(
            _("%(action)s: Swift answered '%(answer)s'"), action=action, answer=answer
        )
        if not tries.again(problem):
            break
    sweep = _Sweep(client)
    sweep.remove([object_name for object_name in failed if object_name != image])
    if sweep.left:
        raise sweep.incomplete(image)
    if client.head(*image, action=action, patience=patience) is not None:
        raise errors.SwiftError(
            _("%(action)s: Swift answered '%(answer)s'"), action=action, answer=answer
        )
    return understood


def outcome(text: bytes) -> tuple[str, list[Any]]:
    """Return the final status of a bulk deletion, and the path and status of each failure."""
    try:
        # The heartbeats before it are white space.
        said = json.loads(text)
        answer = str(said.get("Response Status", ""))
        entries = said.get("Errors") or []
        failed = [entry for entry in entries if not str(entry[1]).startswith("404")]
    except (ValueError, AttributeError, LookupError, TypeError):
        return UNKNOWN, []
    if answer.startswith("404") or (entries and not failed):
        return "200 OK", []
    return answer, failed


def _object_name(entry: Any) -> ObjectName:
    path = urllib.parse.unquote(str(entry[0])).lstrip("/")
    container, _slash, name = path.partition("/")
    return ObjectName(container, name)


class _Sweep:
    """Removes objects from several threads; a failure does not stop the others.

    All of them share one patience: a few seconds for each of thousands of objects would take hours.
    If the cluster can no longer be reached, or the account may not remove anything, the rest is
    left alone.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._patience = client.patience(in_all=True)
        self._failures = 0
        self._stopped = False
        self.left: list[ObjectName] = []
        self.error: Exception | None = None

    def remove(self, object_names: Sequence[ObjectName]) -> None:
        """Remove objects; `left` then holds the ones that remain, and `error` the reason."""
        workers = Workers(self._client.settings.threads, "glance_store-swift-sweep")
        try:
            removals = {workers.submit(self._one, name): name for name in object_names}
            for removal in concurrent.futures.as_completed(removals):
                self._note(removals[removal], removal.result())
        finally:
            workers.close(wait=True)

    def _one(self, object_name: ObjectName) -> Exception | None:
        """Remove an object; return why it remains."""
        if self._stopped:
            return self.error
        action = _("Removing the object %s") % object_name.name
        try:
            _remove_object(self._client, object_name, action, self._patience)
        except ERRORS as exc:
            return exc
        return None

    def _note(self, object_name: ObjectName, error: Exception | None) -> None:
        unreachable = isinstance(error, errors.SwiftUnavailable)
        self._failures = self._failures + 1 if unreachable else 0
        if error is None:
            return
        self.left.append(object_name)
        refused = isinstance(error, (errors.SwiftDenied, errors.TokenRefusedError))
        self.error = error if refused else self.error or error
        self._stopped = self._stopped or refused or self._failures >= _MAX_FAILURES

    def incomplete(self, image: ObjectName) -> exceptions.GlanceStoreException:
        """Return the error for an image that is only partly removed."""
        cause = self.error
        if isinstance(cause, errors.SwiftDenied):
            return cause
        passing = isinstance(cause, errors.SwiftUnavailable)
        kind = errors.SwiftUnavailable if passing else errors.SwiftError
        return kind(
            _(
                "Image %(image)s is only partly removed: %(remains)s are left (%(cause)s): delete "
                "the image again, or these objects if it is gone"
            ),
            image=image.name,
            remains=self.remains(),
            cause=cause,
        )

    def remains(self) -> str:
        """Describe what is left: how many objects, where, and how their names begin."""
        names = sorted(object_name.name for object_name in self.left)
        found = {
            "count": len(names),
            "container": ", ".join(sorted({object_name.container for object_name in self.left})),
            "prefix": os.path.commonprefix(names),  # noqa: RUF071 - characters are meant
            "some": ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else ""),
        }
        return _("%(count)d objects in the container %(container)s, %(prefix)s* (%(some)s)") % found
