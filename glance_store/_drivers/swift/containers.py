# SPDX-License-Identifier: Apache-2.0
"""Containers of images: their names, their ACLs, and their creation and removal."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store.i18n import _

if TYPE_CHECKING:
    from glance_store._drivers.swift.client import Client
    from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

READ_ACL = "X-Container-Read"
WRITE_ACL = "X-Container-Write"
# Every authenticated user. The usual '.r:*' would let in anonymous users too.
_EVERYBODY = "*:*"
# Objects of such a listing to look up.
_LOOKED_AT = 10


def seeded(container: str, image_id: str, seed: int) -> str:
    """Return the container of an image where images are spread over several.

    The name ends with the first `seed` characters of the image id, not counting dashes; with 0
    there is one container for all.
    """
    if seed <= 0:
        return container
    taken = ""
    left = seed
    for char in image_id.lower():
        if not left:
            break
        taken += char
        left -= char != "-"
    return f"{container}_{taken}"


def acls(
    public: bool,
    read_tenants: Iterable[str],
    write_tenants: Iterable[str],
    admin_tenants: Iterable[str],
) -> dict[str, str]:
    """Return the ACL headers of a container.

    `public` lets every authenticated user read. An entry of `admin_tenants` is the id of a project,
    or ``project:user``, that may read and write.
    """
    # Without a colon, Swift reads an entry as a role, which users of any project may have.
    admins = [
        tenant if ":" in tenant or tenant == "*" else f"{tenant}:*"
        for tenant in (entry.strip() for entry in admin_tenants)
        if tenant
    ]
    readers = [f"{tenant}:*" for tenant in read_tenants]
    writers = [f"{tenant}:*" for tenant in write_tenants]
    return {
        READ_ACL: _EVERYBODY if public else ",".join([*readers, *admins]),
        WRITE_ACL: ",".join([*writers, *admins]),
    }


def ensure(client: Client, container: str, create: bool, headers: Mapping[str, str]) -> bool:
    """Make sure that a container exists; tell whether it was created just now.

    Raises SwiftError if it is missing and `create` is false.
    """
    action = _("Looking for the container %s") % container
    try:
        if client.head(container, action=action) is not None:
            return False
    except exceptions.Forbidden as exc:
        # Looking at a container needs another right than storing objects in it.
        LOG.debug("Cannot see whether the container exists: %s", exc)
        return False
    if not create:
        raise errors.SwiftError(
            _(
                "The container %(container)s does not exist: create it, or set "
                "swift_store_create_container_on_put"
            ),
            container=container,
        )
    action = _("Creating the container %s") % container
    made = client.request("PUT", container, action=action, headers=headers, allow=(404,))
    if made.status_code == 404:
        # Do not report this as a missing image: the caller is storing it.
        raise errors.SwiftError(
            _("%(action)s: Swift does not know the account, or the URL of the storage is wrong"),
            action=action,
        )
    # 202: another request created it first.
    return made.status_code == 201


def remove_if_empty(client: Client, container: str) -> None:
    """Remove a container unless it holds something; only log a failure."""
    action = _("Removing the container %s") % container
    patience = client.patience(in_all=True)

    def remove() -> None:
        response = client.request(
            "DELETE", container, action=action, patience=patience, allow=(404, 409)
        )
        other = _object_in(client, container, patience) if response.status_code == 409 else None
        if other is not None:
            LOG.debug("Container %s stays: it still holds %s, and perhaps more", container, other)
        elif response.status_code == 409:
            # Swift goes by the listing, which lags a little.
            raise errors.ConflictError(
                _("%(action)s: Swift says that it is not empty, but nothing is found in it"),
                action=action,
            )

    try:
        patience.call(remove)
    except exceptions.GlanceStoreException as exc:
        LOG.warning("An empty container was left behind: %s; remove it", exc)


def _object_in(client: Client, container: str, patience: Patience) -> str | None:
    """Return the name of an object that exists and is not only listed; None if none is found."""
    # The thousands of segments of an image may all still be listed.
    for entry in itertools.islice(entries(client, container, patience=patience), _LOOKED_AT):
        action = _("Looking for %s") % entry.name
        if client.head(container, entry.name, action=action, patience=patience) is not None:
            return entry.name
    return None


class Entry(NamedTuple):
    """An object in a listing."""

    name: str
    size: int  # bytes
    etag: str  # MD5 in hexadecimal; empty for a container
    modified: float | None = None  # seconds since 1970


def entries(
    client: Client, container: str, prefix: str = "", patience: Patience | None = None
) -> Iterator[Entry]:
    """Yield the objects of a container in order of their names; a missing one has none."""
    action = _("Listing the container %s") % container
    patience = patience or client.patience()
    marker = ""
    while True:
        # Send no limit: a cluster refuses one above its own.
        query = {"format": "json", "prefix": prefix, "marker": marker}
        response = client.request(
            "GET", container, action=action, patience=patience, query=query, allow=(404,)
        )
        page = [] if response.status_code == 404 else _parsed(response.content, action)
        if not page:
            return
        if page[-1].name == marker:
            raise errors.SwiftError(
                _("%(action)s: the same page comes again and again: look for a caching proxy"),
                action=action,
            )
        yield from page
        marker = page[-1].name


def _parsed(text: bytes, action: str) -> list[Entry]:
    with contextlib.suppress(ValueError, LookupError, TypeError):
        listed: Any = json.loads(text) if text else []
        if isinstance(listed, list):
            return [
                Entry(
                    str(entry["name"]),
                    int(entry["bytes"]),
                    str(entry.get("hash") or "").lower(),
                    _seconds(entry.get("last_modified")),
                )
                for entry in listed
            ]
    # Without the text that the parser quotes.
    raise errors.SwiftUnavailable(
        _("%(action)s: the response is not a listing of objects"), action=action
    )


def _seconds(moment: object) -> float | None:
    """Return a UTC time such as ``2026-11-29T22:41:00.123456`` in seconds since 1970."""
    try:
        whole = datetime.datetime.fromisoformat(str(moment)[:19])
    except ValueError:
        return None
    return whole.replace(tzinfo=datetime.timezone.utc).timestamp()
