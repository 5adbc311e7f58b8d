# SPDX-License-Identifier: Apache-2.0
"""The one moment at which an image gets its name: of several uploads of an id, one wins.

Swift has no exclusive creation that would hold everywhere: it looks for an existing object when a
request begins, and radosgw does not look at all. So every upload marks its object. Uploads of one
process wait for each other here; of those of several processes that meet in the same moment, the
mark tells the one whose object is in place.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.client import Client
from glance_store.common.locks import CREATING
from glance_store.i18n import _
from glance_store.transfer.retry import FIRST_PAUSE

LOG = logging.getLogger(__name__)

_MARK = "X-Object-Meta-Glance-Upload"
# What a PUT that found the name taken is answered with.
TAKEN = (409, 412)


class Name:
    """The name that an upload is after.

    :param client: of the account
    :param container: of the image
    :param obj: name of the object
    """

    def __init__(self, client: Client, container: str, obj: str) -> None:
        self.client = client
        self.container = container
        self.obj = obj
        # Tells this upload from all others, also in the names of its segments.
        self.mark = secrets.token_hex(8)
        self._tried = False

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the headers with which the object is created.

        :param more: further headers
        """
        return {
            "Content-Type": "application/octet-stream",
            "If-None-Match": "*",
            _MARK: self.mark,
            **(more or {}),
        }

    def check_free(self) -> None:
        """Look whether the name is free.

        :raises Duplicate: it is not
        """
        if self._owner() is not None:
            raise self.duplicate()

    def duplicate(self) -> exceptions.Duplicate:
        """Return the error for a name that is taken, ready to raise."""
        return exceptions.Duplicate(
            _("Image %(image)s already exists in the container %(container)s"),
            image=self.obj,
            container=self.container,
        )

    def _owner(self) -> str | None:
        """Return the mark of the object in place, empty for a strange one; None if there is none.

        An object that is being put is not in place yet.
        """
        response = self.client.request(
            "HEAD",
            self.container,
            self.obj,
            action=_("Looking for image %s") % self.obj,
            allow=(404,),
        )
        return None if response.status == 404 else response.headers.get(_MARK, "")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other uploads of this process waiting that are after the same name.

        :raises Duplicate: the name is taken
        """
        with CREATING.holding((self.client.account.url, self.container, self.obj)):
            self.check_free()
            yield

    def publish(self, put: Callable[[], int], repeatable: bool = True) -> None:
        """Create the object, inside `alone`; when this returns it is in place.

        :param put: sends the one request, and returns its status: a success or one of `TAKEN`
        :param repeatable: whether `put` may be called again
        :raises Duplicate: another upload was first
        """
        tries_left = self.client.settings.retries if repeatable else 0
        pause = FIRST_PAUSE
        while True:
            self._tried = True
            error: exceptions.GlanceStoreException | None = None
            try:
                created = put() not in TAKEN
            except errors.SwiftUnavailable as exc:
                # The answer is lost, the object may be in place all the same.
                created, error = False, exc
            try:
                owner = self._owner()
            except errors.SwiftUnavailable:
                if created:
                    return
                raise
            if owner == self.mark:
                return
            if owner is not None:
                raise self.duplicate()
            if tries_left <= 0:
                raise error or errors.SwiftError(
                    _("Image %(image)s was removed in the moment in which it was stored"),
                    image=self.obj,
                )
            time.sleep(pause)
            pause *= 2
            tries_left -= 1

    def withdraw(self) -> None:
        """Remove the object if this upload has put it there.

        :raises GlanceStoreException: that cannot be found out, or it cannot be removed
        """
        if not self._tried or self._owner() != self.mark:
            return
        self.client.request(
            "DELETE",
            self.container,
            self.obj,
            action=_("Removing the unfinished image %s") % self.obj,
            allow=(404,),
        )
