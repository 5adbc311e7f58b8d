# SPDX-License-Identifier: Apache-2.0
"""What a container holds, page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from glance_store._drivers.swift import errors
from glance_store._drivers.swift.client import Client
from glance_store.i18n import _


class Entry(NamedTuple):
    """An object in a listing."""

    name: str
    size: int  # bytes
    etag: str  # MD5 in hexadecimal


def pages(client: Client, container: str, prefix: str = "") -> Iterator[list[Entry]]:
    """Yield the objects of a container in the order of their names; a missing one has none.

    :param client: of the account
    :param container: its name
    :param prefix: what the names begin with
    """
    action = _("Listing the container %s") % container
    marker = ""
    while True:
        # No limit is named: a cluster refuses one that is above its own.
        query = {"format": "json", "prefix": prefix, "marker": marker}
        response = client.request("GET", container, action=action, query=query, allow=(404,))
        if response.status == 404:
            return
        page = _parsed(response.data, action)
        if not page:
            return
        yield page
        marker = page[-1].name


def _parsed(text: bytes, action: str) -> list[Entry]:
    try:
        entries: Any = json.loads(text) if text else []
        if isinstance(entries, list):
            return [
                Entry(str(entry["name"]), int(entry["bytes"]), str(entry["hash"]).lower())
                for entry in entries
            ]
    except (ValueError, LookupError, TypeError):
        # Said below, without what the parser quotes.
        entries = None
    raise errors.SwiftUnavailable(
        _("%(action)s: the answer is no listing of objects"), action=action
    )
