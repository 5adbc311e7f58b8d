# SPDX-License-Identifier: Apache-2.0
"""Removing images, in one piece or in any number of segments."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import urllib.parse
from collections.abc import Iterable
from typing import Any

from glance_store import exceptions
from glance_store._drivers.swift import errors, manifest
from glance_store._drivers.swift.client import Client
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# Tries of a request that Swift turns down because it is in conflict with another.
_CONFLICTS = 3
# Seconds of silence that are borne while the cluster removes segments; it shows signs of life.
_PATIENCE = 120.0
_AT_A_TIME = 1000


def remove(client: Client, container: str, obj: str) -> None:
    """Remove an image with all of its segments.

    :param client: of the account
    :param container: where it is
    :param obj: its name
    :raises NotFound: it is not there
    :raises Forbidden: the account may not remove it
    :raises SwiftError: Swift refuses
    """
    action = _("Removing image %s") % obj
    head = client.request("HEAD", container, obj, action=action)
    if head.headers.get("x-static-large-object", "").lower() == "true":
        _remove_static(client, container, obj)
        return
    place = urllib.parse.unquote(head.headers.get("x-object-manifest", ""))
    if place:
        _remove_dynamic_segments(client, obj, container, place)
    remove_object(client, container, obj, action)


def remove_object(client: Client, container: str, obj: str, action: str) -> None:
    """Remove an object; that it is not there any more is no error.

    :param client: of the account
    :param container: where it is
    :param obj: its name
    :param action: what is tried, for errors
    """
    for _attempt in range(_CONFLICTS):
        # A conflict: another request for this object was made in the same moment.
        if client.request("DELETE", container, obj, action=action, allow=(404, 409)).status != 409:
            return
    raise errors.SwiftError(
        _("%(action)s: Swift answers again and again that %(obj)s is in use"),
        action=action,
        obj=obj,
    )


def remove_objects(client: Client, container: str, names: Iterable[str]) -> int:
    """Remove objects, several at a time; failures are logged, the others go on.

    :param client: of the account
    :param container: where they are
    :param names: of the objects
    :returns: how many could not be removed
    """

    def one(name: str) -> bool:
        try:
            remove_object(client, container, name, _("Removing the segment %s") % name)
        except (exceptions.GlanceStoreException, exceptions.BackendException) as exc:
            LOG.error("A segment of an image is left in the container %s: %s", container, exc)
            return False
        return True

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(client.settings.threads) as pool:
        some: list[str] = []
        for name in names:
            some.append(name)
            if len(some) == _AT_A_TIME:
                failed += sum(not done for done in pool.map(one, some))
                some = []
        failed += sum(not done for done in pool.map(one, some))
    return failed


def _remove_dynamic_segments(client: Client, obj: str, container: str, place: str) -> None:
    where, _slash, beginning = place.partition("/")
    if not where or not beginning:
        LOG.warning(
            "The manifest of image %s names no segments (%s); only the manifest is removed",
            obj,
            place,
        )
        return
    names = (
        name
        for name in manifest.listed(client, where, beginning)
        # The manifest itself goes last.
        if (where, name) != (container, obj)
    )
    remove_objects(client, where, names)


def _remove_static(client: Client, container: str, obj: str) -> None:
    """Have the cluster remove a manifest and what it names, segments first."""
    action = _("Removing image %s and its segments") % obj
    patience = max(_PATIENCE, client.settings.read_timeout)
    failed: list[Any] = []
    answer = ""
    for _attempt in range(1 + client.settings.retries):
        response = client.request(
            "DELETE",
            container,
            obj,
            action=action,
            query={"multipart-manifest": "delete"},
            headers={"Accept": "application/json"},
            allow=(404, 409),
            read_timeout=patience,
        )
        if response.status == 404:
            return
        if response.status == 409:
            continue
        # The status of the answer only says that the work was begun.
        answer, failed = _outcome(response.data)
        if not failed and answer.startswith(("200", "404")):
            return
        if answer.startswith("403") or any(str(entry[1]).startswith("403") for entry in failed):
            raise errors.refusal(403, "Forbidden", action, obj)
        # What is gone by now is not found the next time, which is no error.
        LOG.warning("%s: Swift answered '%s', %d errors", action, answer, len(failed))
    # The manifest may be gone while segments are left: they are known by name here alone.
    left = [_place(entry) for entry in failed]
    for where, name in left:
        if (where, name) != (container, obj):
            remove_objects(client, where, [name])
    if not left or (container, obj) in left or _is_there(client, container, obj):
        raise errors.SwiftError(
            _("%(action)s: Swift answered '%(answer)s'"), action=action, answer=answer
        )


def _is_there(client: Client, container: str, obj: str) -> bool:
    action = _("Looking for image %s") % obj
    return client.request("HEAD", container, obj, action=action, allow=(404,)).status != 404


def _place(entry: Any) -> tuple[str, str]:
    path = urllib.parse.unquote(str(entry[0])).lstrip("/")
    container, _slash, name = path.partition("/")
    return container, name


def _outcome(text: bytes) -> tuple[str, list[Any]]:
    """Return what the cluster says at the end of its work, and what it could not remove."""
    try:
        # Signs of life stand before it.
        outcome = json.loads(text)
        answer = str(outcome.get("Response Status", ""))
        entries = outcome.get("Errors") or []
        failed = [entry for entry in entries if not str(entry[1]).startswith("404")]
    except (ValueError, AttributeError, LookupError, TypeError):
        return "an answer that is not understood", []
    if answer.startswith("404") or (entries and not failed):
        return "200 OK", []
    return answer, failed
