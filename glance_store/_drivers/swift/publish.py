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
from typing import TYPE_CHECKING, NamedTuple

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.client import Client
from glance_store.common.locks import CREATING
from glance_store.i18n import _

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse as Response

LOG = logging.getLogger(__name__)

_MARK = "X-Object-Meta-Glance-Upload"
# What a PUT that found the name taken is answered with.
TAKEN = (409, 412)
# How often Swift is asked again for the size of an image that it counts by a listing: 20 seconds.
_SIZE_TRIES = 8
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


class Expected(NamedTuple):
    """What an image has to be when it is in place."""

    size: int  # bytes
    etag: str | None  # as Swift tells it of the image; None: it is not compared


class _Found(NamedTuple):
    """What is in place under a name."""

    mark: str  # empty for a strange object
    etag: str  # empty if the server does not say
    size: int | None  # bytes; None if the server does not say


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
        """Return the headers of a request that is about to create the object.

        :param more: further headers
        """
        self._tried = True
        return {
            "Content-Type": "application/octet-stream",
            "If-None-Match": "*",
            _MARK: self.mark,
            **(more or {}),
        }

    def check_free(self) -> None:
        """Look whether the name is free.

        :raises Duplicate: another upload has it
        """
        found = self._look()
        if found is not None and found.mark != self.mark:
            raise self.duplicate()

    def duplicate(self) -> exceptions.Duplicate:
        """Return the error for a name that is taken, ready to raise."""
        return exceptions.Duplicate(
            _("Image %(image)s already exists in the container %(container)s"),
            image=self.obj,
            container=self.container,
        )

    def _look(self) -> _Found | None:
        """Return what is in place, None if there is nothing.

        An object that is being put is not in place yet.
        """
        response = self.client.request(
            "HEAD",
            self.container,
            self.obj,
            action=_("Looking for image %s") % self.obj,
            allow=(404,),
        )
        if response.status == 404:
            return None
        size = response.headers.get("content-length", "")
        return _Found(
            response.headers.get(_MARK, ""),
            etag_of(response),
            int(size) if size.isdecimal() else None,
        )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other uploads of this process waiting that are after the same name.

        :raises Duplicate: the name is taken
        """
        with CREATING.holding((self.client.account.url, self.container, self.obj)):
            self.check_free()
            yield

    def publish(
        self,
        put: Callable[[], int],
        expected: Callable[[], Expected],
        repeatable: bool = True,
    ) -> None:
        """Create the object, inside `alone`; when this returns it is in place, and undamaged.

        :param put: sends the one request, and returns its status: a success or one of `TAKEN`
        :param expected: says what has to be in place; called after `put`
        :param repeatable: whether `put` may be called again
        :raises Duplicate: another upload was first
        :raises DamagedError: what is stored is something else, again and again
        :raises SwiftUnavailable: Swift does not find all of the segments
        """
        tries_left = self.client.settings.retries if repeatable else 0
        pause = _FIRST_PAUSE
        while True:
            created, error = _outcome(put)
            try:
                found = self._look()
            except exceptions.GlanceStoreException:
                # A success is certain by itself, also when the token has ended with it.
                if created:
                    return
                raise
            if found is not None and found.mark != self.mark:
                raise self.duplicate()
            if found is not None:
                # The answer may be lost, and with it what it said of the data.
                error = error if isinstance(error, errors.DamagedError) else None
                error = error or self._damage(found, expected())
                if error is None:
                    self._wait_for_size(found, expected().size)
                    return
            if tries_left <= 0:
                raise error or self._removed()
            if found is not None:
                self._remove()
            time.sleep(pause)
            pause *= 2
            tries_left -= 1

    def _removed(self) -> errors.SwiftError:
        return errors.SwiftError(
            _("Image %(image)s was removed in the moment in which it was stored"), image=self.obj
        )

    def _damage(self, found: _Found, expected: Expected) -> errors.DamagedError | None:
        if not found.etag or expected.etag is None or found.etag == expected.etag:
            return None
        return damaged(_("Storing image %s") % self.obj, found.etag, expected.etag)

    def _wait_for_size(self, found: _Found, size: int) -> None:
        """Wait until Swift counts all bytes of the image.

        It adds up those of a dynamic large object by a listing, which can be late: until it is
        complete, readers would get a part of the image.

        :raises SwiftUnavailable: the listing is not complete in time
        """
        pause = _FIRST_PAUSE
        tries_left = _SIZE_TRIES
        while found.size != size:
            if not tries_left:
                raise errors.SwiftUnavailable(
                    _(
                        "Storing image %(image)s: Swift finds %(found)s of its %(size)d bytes: the "
                        "listing of the container %(container)s is late or too long"
                    ),
                    image=self.obj,
                    found=_("an unknown number") if found.size is None else found.size,
                    size=size,
                    container=self.container,
                )
            LOG.warning(
                "Image %s: Swift does not find all of its segments yet, looking again in %.1f s",
                self.obj,
                pause,
            )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            tries_left -= 1
            latest = self._look()
            if latest is None or latest.mark != self.mark:
                raise self._removed()
            found = latest

    def withdraw(self) -> None:
        """Remove the object if this upload has put it there.

        :raises GlanceStoreException: that cannot be found out, or it cannot be removed
        """
        if not self._tried:
            return
        found = self._look()
        if found is not None and found.mark == self.mark:
            self._remove()

    def _remove(self) -> None:
        self.client.request(
            "DELETE",
            self.container,
            self.obj,
            action=_("Removing the unfinished image %s") % self.obj,
            allow=(404,),
        )


def _outcome(put: Callable[[], int]) -> tuple[bool, errors.SwiftUnavailable | None]:
    """Return whether a request has certainly created its object, and how it failed if it did."""
    try:
        return put() not in TAKEN, None
    except errors.SwiftUnavailable as exc:
        # The object may be in place all the same, or one that is damaged.
        return False, exc


def etag_of(response: Response) -> str:
    """Return what a server says of the data that it has, empty if it says nothing.

    :param response: to a PUT or HEAD
    """
    return response.headers.get("etag", "").strip('"').lower()


def damaged(action: str, stored: str, etag: str) -> errors.DamagedError:
    """Return the error for data that has changed on its way, ready to raise.

    :param action: what was tried
    :param stored: what the server says of the data, in hexadecimal
    :param etag: what it has to say
    """
    return errors.DamagedError(
        _("%(action)s: the data was damaged on its way (MD5 %(stored)s instead of %(etag)s)"),
        action=action,
        stored=stored,
        etag=etag,
    )
