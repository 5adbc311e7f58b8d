# SPDX-License-Identifier: Apache-2.0
"""Containers of images: their names, who may use them, and how they come and go."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Mapping

from glance_store import exceptions
from glance_store._drivers.swift import errors, listing
from glance_store._drivers.swift.client import Client
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

READ_ACL = "X-Container-Read"
WRITE_ACL = "X-Container-Write"
# Everybody who is authenticated. The usual '.r:*' would let in those who are not.
_EVERYBODY = "*:*"
# Tries to remove a container; its listing, which decides, is a little late.
_TRIES = 4
_FIRST_PAUSE = 0.2
# Objects in such a listing whose existence is looked at.
_LOOKED_AT = 10


def seeded(container: str, image_id: str, seed: int) -> str:
    """Return the container of an image where images are spread over several.

    :param container: first part of the name
    :param image_id: id of the image
    :param seed: how many characters of the id follow, dashes not counted; 0: one container for all
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
    """Return the headers that say who may use a container.

    :param public: everybody who is authenticated may read
    :param read_tenants: ids of projects that may read
    :param write_tenants: ids of projects that may write
    :param admin_tenants: ids of projects, or ``project:user`` entries, that may do both
    """
    # Without a colon Swift takes an entry for a role, which users of any project may have.
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
    """See to it that there is a container.

    :param client: of the account
    :param container: its name
    :param create: make it if it is not there
    :param headers: with which it is made
    :returns: whether it was made just now
    :raises SwiftError: it is not there, and may not be made
    """
    action = _("Looking for the container %s") % container
    if client.request("HEAD", container, action=action, allow=(404,)).status != 404:
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
    # 202: somebody else was quicker.
    return client.request("PUT", container, action=action, headers=headers).status == 201


def remove_if_empty(client: Client, container: str) -> None:
    """Remove a container unless there is something in it; failures are logged.

    :param client: of the account
    :param container: its name
    """
    try:
        _remove(client, container)
    except exceptions.GlanceStoreException as exc:
        LOG.warning("An empty container is left: %s; remove it", exc)


def _remove(client: Client, container: str) -> None:
    action = _("Removing the container %s") % container
    pause = _FIRST_PAUSE
    for number in range(_TRIES):
        if number:
            time.sleep(pause)
            pause *= 2
        response = client.request("DELETE", container, action=action, allow=(404, 409))
        if response.status != 409:
            return
        other = _object_in(client, container)
        if other is not None:
            LOG.debug("The container %s stays: %s and perhaps more is in it", container, other)
            return
    raise errors.SwiftError(
        _("%(action)s: Swift answers that it is not empty, although nothing is found in it"),
        action=action,
    )


def _object_in(client: Client, container: str) -> str | None:
    """Return the name of an object that is not only listed; None if none is found."""
    for page in itertools.islice(listing.pages(client, container), 1):
        # Of an image with thousands of segments all may still be listed.
        for entry in page[:_LOOKED_AT]:
            action = _("Looking for %s") % entry.name
            head = client.request("HEAD", container, entry.name, action=action, allow=(404,))
            if head.status != 404:
                return entry.name
    return None
