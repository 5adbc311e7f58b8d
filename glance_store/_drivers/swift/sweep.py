# SPDX-License-Identifier: Apache-2.0
"""Removes many objects, several at a time, as far as the cluster lets it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.client import Client
from glance_store.i18n import _
from glance_store.transfer.retry import Patience
from glance_store.transfer.threads import Workers

# Further tries of a request that Swift turns down because it is in conflict with another.
_CONFLICTS = 3
# Objects in a row that cannot be removed since Swift cannot be reached: from the first number on
# each is tried once, from the second on none is.
_HOPEFUL, _HOPELESS = 3, 6
# Seconds before a cluster that cannot be reached is tried once more.
_BREAK = 2.0
_NAMES = 3


class Place(NamedTuple):
    """An object of an account."""

    container: str
    name: str


class ConflictError(errors.SwiftError):
    """Another request for the same object was made in the same moment."""


def remove_object(client: Client, place: Place, action: str, retries: int | None = None) -> None:
    """Remove an object; that it is not there any more is no error.

    :param client: of the account
    :param place: of the object
    :param action: what is tried, for errors
    :param retries: further tries where Swift cannot be reached; None for those of the options
    :raises SwiftError: it could not be removed
    """

    def remove() -> None:
        answer = client.request("DELETE", *place, action=action, allow=(404, 409), retries=retries)
        if answer.status == 409:
            raise ConflictError(_("%(action)s: Swift answers that it is in use"), action=action)

    Patience(_BREAK * _CONFLICTS, most=_CONFLICTS).call(
        remove, lambda exc: isinstance(exc, ConflictError)
    )


class Sweep:
    """Removes objects from several threads; a failure does not stop the others.

    What fails is tried once more at the end. Where the cluster cannot be reached any more, or the
    account may not remove anything, the rest is left alone: thousands of objects with some tries
    each would take hours.

    Attributes: `left`, what could not be removed; `error`, the last one; `stopped`, whether the
    rest was left alone.

    :param client: of the account
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._in_a_row = 0
        self.left: list[Place] = []
        self.error: Exception | None = None
        self.stopped = False

    def remove(self, places: Sequence[Place]) -> None:
        """Remove objects.

        :param places: of them
        """
        before, self.left = self.left, []
        self._pass(places)
        if self.left and not self._refused:
            if self.stopped:
                # The others have had their pauses.
                time.sleep(_BREAK)
                self.stopped = False
            again, self.left = self.left, []
            self._pass(again)
        self.left = before + self.left

    @property
    def _refused(self) -> bool:
        return isinstance(self.error, (errors.SwiftDenied, errors.TokenRefusedError))

    def _pass(self, places: Sequence[Place]) -> None:
        workers = Workers(self._client.settings.threads, "glance_store-swift-sweep")
        try:
            for removal in [workers.submit(self._one, place) for place in places]:
                removal.result()
        finally:
            workers.close(wait=True)

    def _one(self, place: Place) -> None:
        with self._lock:
            if self.stopped:
                self.left.append(place)
                return
            retries = None if self._in_a_row < _HOPEFUL else 0
        error: Exception | None = None
        try:
            remove_object(self._client, place, _("Removing the object %s") % place.name, retries)
        except (exceptions.GlanceStoreException, exceptions.BackendException) as exc:
            error = exc
        with self._lock:
            self._note(place, error)

    def _note(self, place: Place, error: Exception | None) -> None:
        if not isinstance(error, errors.SwiftUnavailable):
            self._in_a_row = 0
        else:
            self._in_a_row += 1
        if error is None:
            return
        self.left.append(place)
        if not self._refused:
            self.error = error
        self.stopped = self.stopped or self._refused or self._in_a_row >= _HOPELESS

    def remains(self) -> str:
        """Return in words what is left: how much, where, and how the names begin."""
        found = []
        for container in dict.fromkeys(place.container for place in self.left):
            names = sorted(place.name for place in self.left if place.container == container)
            # Of names in order the first and the last one differ most.
            same = itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(names[0], names[-1], strict=False)
            )
            prefix = "".join(char for char, _other in same)
            some = ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
            found.append(
                _("%(count)d objects in the container %(container)s, %(prefix)s* (%(some)s)")
                % {
                    "count": len(names),
                    "container": container,
                    "prefix": prefix,
                    "some": some,
                }
            )
        return "; ".join(str(each) for each in found)
