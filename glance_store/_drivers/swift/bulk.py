# SPDX-License-Identifier: Apache-2.0
"""Has a cluster that shows no manifests, as radosgw, remove a static large object by itself."""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Any

from glance_store._drivers.swift import errors
from glance_store._drivers.swift.client import Client
from glance_store._drivers.swift.sweep import Place, Sweep
from glance_store.i18n import _

_TRIES = 4
_FIRST_PAUSE = 0.2
# Seconds of silence that are borne while the cluster removes segments; it shows signs of life.
_PATIENCE = 120.0
_DENIED = "403"


def remove(client: Client, image: Place) -> None:
    """Remove a manifest and what it names.

    The cluster removes the manifest whatever has become of the segments. All that it could not
    remove in one of the tries is removed here.

    :param client: of the account
    :param image: the manifest
    :raises Forbidden: the account may not remove it
    :raises SwiftError: something is left; the text names it
    """
    action = _("Removing image %s and its segments") % image.name
    failed: dict[Place, None] = {}
    answer, pause = "409 Conflict", _FIRST_PAUSE
    for number in range(_TRIES):
        if number:
            time.sleep(pause)
            pause *= 2
        response = client.request(
            "DELETE",
            *image,
            action=action,
            query={"multipart-manifest": "delete"},
            headers={"Accept": "application/json"},
            allow=(404, 409),
            read_timeout=max(_PATIENCE, client.settings.read_timeout),
        )
        if response.status == 404:
            break
        if response.status == 409:
            continue
        # The status of the answer only says that the work was begun.
        answer, entries = outcome(response.data)
        failed.update(dict.fromkeys(_place(entry) for entry in entries))
        if any(text.startswith(_DENIED) for text in (answer, *(str(e[1]) for e in entries))):
            raise errors.refusal(403, "Forbidden", action, image.name)
        if not entries and answer.startswith("200"):
            break
    sweep = Sweep(client)
    sweep.remove([place for place in failed if place != image])
    if sweep.left:
        raise errors.SwiftError(
            _("%(action)s: %(remains)s are left, delete them (%(cause)s)"),
            action=action,
            remains=sweep.remains(),
            cause=sweep.error,
        )
    if client.request("HEAD", *image, action=action, allow=(404,)).status != 404:
        raise errors.SwiftError(
            _("%(action)s: Swift answered '%(answer)s'"), action=action, answer=answer
        )


def outcome(text: bytes) -> tuple[str, list[Any]]:
    """Return what the cluster says at the end of its work, and what it could not remove.

    :param text: its answer
    :returns: a status, and pairs of a path and a status
    """
    try:
        # Signs of life stand before it.
        said = json.loads(text)
        answer = str(said.get("Response Status", ""))
        entries = said.get("Errors") or []
        failed = [entry for entry in entries if not str(entry[1]).startswith("404")]
    except (ValueError, AttributeError, LookupError, TypeError):
        return "an answer that is not understood", []
    if answer.startswith("404") or (entries and not failed):
        return "200 OK", []
    return answer, failed


def _place(entry: Any) -> Place:
    path = urllib.parse.unquote(str(entry[0])).lstrip("/")
    container, _slash, name = path.partition("/")
    return Place(container, name)
