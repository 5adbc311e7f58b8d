# SPDX-License-Identifier: Apache-2.0
"""Claim an object name for one image, and tell an upload's own object from any other.

A response can get lost after the service has done its work, an error does not prove that nothing
happened, and two uploads of one name may both be told that they succeeded. So every upload marks
its object with a random text. The mark shows for certain whose object is there, and an upload never
removes an object other than its own.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import secrets
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple, TypeVar

from glance_store import exceptions
from glance_store._drivers._objects.errors import (
    ERRORS,
    DamagedInTransit,
    NameTaken,
    is_refusal,
)
from glance_store.common.locks import CREATING
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# Uploads in a row that failed with a feature and succeeded without it: one alone proves nothing.
_PROOFS = 2
# Seconds between looks for an object that the service reported, or that may still appear.
_RECHECKS = (0.5, 1.0, 2.0)


class Feature:
    """A feature of a request that not every service supports.

    The log gets `loss` once the service turns out not to support it.
    """

    def __init__(self, known: bool, loss: str) -> None:
        self._proofs = 0 if known else _PROOFS
        self._loss = loss

    @property
    def known(self) -> bool:
        """Whether requests use it."""
        return self._proofs < _PROOFS

    def is_known(self) -> None:
        """Record that a request with it was accepted: earlier refusals had another reason."""
        if self.known:
            self._proofs = 0

    def is_unknown(self) -> None:
        """Record that a request was refused with it, and accepted without it."""
        self._proofs += 1
        if self._proofs == _PROOFS:
            LOG.warning("%s", self._loss)

    def give_up(self) -> None:
        """Stop using it."""
        if self.known:
            self._proofs = _PROOFS
            LOG.warning("%s", self._loss)


def condition(service: str) -> Feature:
    """Return the feature of creating an object only where there is none (If-None-Match)."""
    return Feature(
        True,
        f"The {service} does not support If-None-Match: if two processes upload one image at the "
        "same moment, the later upload wins",
    )


class Found(NamedTuple):
    """The object found under a name."""

    mark: str  # empty if someone else created it
    etag: str = ""  # without quotes; empty if the service does not say
    size: int | None = None  # bytes; None if the service does not say
    version: str | None = None


class Expected(NamedTuple):
    """What the stored object must look like."""

    size: int  # bytes
    etag: str | None = None  # None: not compared


class Claim(abc.ABC):
    """The object name this upload claims.

    `identity` tells the name from all others in the process; `shown` is the name in errors.
    """

    def __init__(
        self, identity: Hashable, shown: str, patience: Patience, condition: Feature
    ) -> None:
        self.shown = shown
        self.mark = secrets.token_hex(8)
        self.patience = patience
        self.condition = condition
        self._identity = identity
        # Whether a request may have created the object, or may still create it.
        self.uncertain = False
        # Whether the account lacks the right to list, so that the service answers 403 for a missing
        # object. It can still see the upload's own object.
        self._blind = False

    @abc.abstractmethod
    def find(self) -> Found | None:
        """Return the object in place, or None."""

    def look(self) -> Found | None:
        """Return the object in place; None if there is none, or if the account cannot see it."""
        try:
            return self.find()
        except exceptions.Forbidden:
            if not self._blind:
                raise
            return None

    @abc.abstractmethod
    def remove(self, found: Found) -> None:
        """Remove this upload's object; an object already gone is not an error."""

    def settle(self, found: Found, expected: Expected) -> None:  # noqa: B027 - most need not
        """Wait until all of this upload's object can be read; raise BackendUnavailable if not."""

    def duplicate(self) -> exceptions.Duplicate:
        """Return the error for a name that is taken."""
        return exceptions.Duplicate(_("Image %(image)s already exists"), image=self.shown)

    def check_free(self) -> None:
        """Raise Duplicate if another upload has the name."""
        try:
            found = self.look()
        except exceptions.Forbidden as exc:
            # Without the right to list, this is the response for a missing object.
            LOG.debug("Cannot see whether an object already exists: %s", exc)
            self._blind = True
            return
        if found is not None and found.mark != self.mark:
            raise self.duplicate()

    @contextlib.contextmanager
    def alone(self, in_flight: bool = False) -> Iterator[None]:
        """Keep this process's other uploads of the name waiting; raise Duplicate if it is taken.

        With `in_flight`, the request only waits for its last bytes, so a failure to look does not
        stop it.
        """
        with CREATING.holding(self._identity):
            # Check even where the service supports the condition: some ignore it silently.
            try:
                self.check_free()
            except exceptions.Duplicate:
                raise
            except ERRORS:
                # The token may have expired; a request in flight no longer needs it.
                if not in_flight:
                    raise
            yield

    def if_free(
        self,
        send: Callable[[bool], _T],
        rejects_condition: Callable[[Exception], bool],
        action: str,
    ) -> _T:
        """Create the object where there is none; without that condition if the service rejects it.

        `send` takes whether to set the condition, and `rejects_condition` tells whether an error
        may come from it. A refusal may have another reason, so the condition is dropped for good
        only after requests succeeded twice without it. Raises NameTaken if the name is taken.
        """
        reason: object = action
        taken = False
        if self.condition.known:
            try:
                answer = send(True)
                self.condition.is_known()
                return answer
            except ERRORS as exc:
                if not rejects_condition(exc):
                    raise
                taken = isinstance(exc, NameTaken)
                if taken and (self._blind or self._look_late() is not None):
                    raise
                if not taken and self.look() is not None:
                    raise
                reason = exc
        if self._blind:
            refused = exceptions.Forbidden(
                _(
                    "%s: the service does not support If-None-Match, and this account may not "
                    "list objects: grant it that right (s3:ListBucket in S3, the read ACL of the "
                    "container in Swift)"
                )
                % reason
            )
            # Nothing was stored.
            refused.status = 403  # type: ignore[attr-defined]
            raise refused
        answer = send(False)
        if self.condition.known and not taken:
            self.condition.is_unknown()
        return answer

    def publish(
        self,
        send: Callable[[], object],
        expected: Expected,
        *,
        repeatable: bool = True,
        confirm: bool = True,
        extra_seconds: float = 0.0,
    ) -> None:
        """Create the object; when this returns, it is in place and undamaged.

        `send` sends one request, and raises NameTaken if the name is not free. With `confirm`, look
        even after a success, because the service may let several uploads of one name succeed.
        `extra_seconds` is how many seconds the service may take on top of the store's patience.
        Raises Duplicate if another upload was first, or the last error of `send`.
        """
        tries = self.patience.tries(extra_seconds)
        while True:
            error = self._send(send)
            if error is None and not confirm:
                return
            try:
                found = self.look()
            except ERRORS:
                if error is None:
                    # Trust the response, even if the token has expired since.
                    return
                # The first error tells more than the failed look.
                raise error from None
            if found is None and error is None:
                # Trust the response here too: the look may have met a server that lags behind.
                return
            if found is not None and found.mark != self.mark:
                if error is None and not found.mark and found.etag and found.etag == expected.etag:
                    # The service keeps no metadata, but has said that it stored these bytes.
                    return
                raise self.duplicate()
            if found is not None:
                error = error if isinstance(error, DamagedInTransit) else None
                error = error or self._damage(found, expected)
                if error is None:
                    self.settle(found, expected)
                    return
            assert error is not None
            passes = isinstance(error, (exceptions.BackendUnavailable, NameTaken))
            if not repeatable or not passes or not tries.again(error):
                # It was free a moment ago: another upload has come and gone.
                raise self.duplicate() if isinstance(error, NameTaken) else error
            if found is not None:
                self.remove(found)

    def _send(self, send: Callable[[], object]) -> Exception | None:
        try:
            send()
        except ERRORS as exc:
            self.uncertain = self.uncertain or not is_refusal(exc)
            return exc
        except BaseException:
            self.uncertain = True
            raise
        # The object exists from here on: a later failure must remove it.
        self.uncertain = True
        return None

    def _damage(self, found: Found, expected: Expected) -> DamagedInTransit | None:
        if not found.etag or expected.etag is None or found.etag == expected.etag:
            return None
        return damaged(_("Storing %s") % self.shown, found.etag, expected.etag)

    def _look_late(self) -> Found | None:
        """Look several times, in case a server lags behind."""
        found = self.look()
        for pause in _RECHECKS:
            if found is not None:
                break
            self.patience.wait(pause)
            found = self.look()
        return found

    def withdraw(self) -> None:
        """Remove the object if this upload created it, even if it appears a little late."""
        if not self.uncertain:
            return
        found = self._look_late()
        if found is None:
            LOG.warning(
                "%s: the service did not say whether it stored the object. It is not there now; "
                "if it appears later, delete it: no image refers to it",
                self.shown,
            )
        elif found.mark == self.mark:
            self.remove(found)
        self.uncertain = False


def damaged(action: str, stored: str, sent: str) -> DamagedInTransit:
    """Return the error for data that changed in transit; both MD5s are in hexadecimal."""
    return DamagedInTransit(
        _("%(action)s: the data was damaged in transit (MD5 %(stored)s instead of %(sent)s)"),
        action=action,
        stored=stored,
        sent=sent,
    )
