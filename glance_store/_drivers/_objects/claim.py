# SPDX-License-Identifier: Apache-2.0
"""The name of an image, and whose object is under it.

An answer can be lost after the service has done what was asked, an error does not mean that nothing
happened, and of two uploads of a name both may be told that they have succeeded. So every upload
marks its object with a random text of its own: whose object is there can be told for certain, and
no other one is ever removed.
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
    DamagedOnTheWay,
    NameTaken,
    is_refusal,
)
from glance_store.common.locks import CREATING
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# Uploads in a row that were refused with something and taken without it: one alone proves nothing.
_PROOFS = 2
# Seconds between looks for an object that is said to be there, or may be.
_LATE = (0.5, 1.0, 2.0)


class Feature:
    """Something in a request that not every service knows.

    :param known: whether it is tried at all
    :param loss: what it means that the service does not know it, for the log
    """

    def __init__(self, known: bool, loss: str) -> None:
        self._proofs = 0 if known else _PROOFS
        self._loss = loss

    @property
    def known(self) -> bool:
        """Whether requests have it."""
        return self._proofs < _PROOFS

    def is_known(self) -> None:
        """Take note that a request was taken with it: refusals before had another reason."""
        if self.known:
            self._proofs = 0

    def is_unknown(self) -> None:
        """Take note that a request was refused with it, and taken without it."""
        self._proofs += 1
        if self._proofs == _PROOFS:
            LOG.warning("%s", self._loss)

    def give_up(self) -> None:
        """Send no more requests with it."""
        if self.known:
            self._proofs = _PROOFS
            LOG.warning("%s", self._loss)


def condition(service: str) -> Feature:
    """Return what is known of a service: whether it creates an object only where there is none.

    :param service: its name and address
    """
    return Feature(
        True,
        f"The {service} cannot create objects on the condition that there is none "
        "(If-None-Match): of two uploads of one image by two processes at the same moment the "
        "later one is stored",
    )


class Found(NamedTuple):
    """What is in place under a name."""

    mark: str  # empty for an object of somebody else
    etag: str = ""  # without quotes; empty if the service does not say
    size: int | None = None  # bytes; None if the service does not say
    version: str | None = None


class Expected(NamedTuple):
    """What the object of an image has to be."""

    size: int  # bytes
    etag: str | None = None  # None: it is not compared


class Claim(abc.ABC):
    """The name that an upload is after.

    :param identity: of the name among all names of the process
    :param shown: the name, for errors
    :param patience: for passing failures
    :param condition: whether the service knows the condition that there is no such object
    """

    def __init__(
        self, identity: Hashable, shown: str, patience: Patience, condition: Feature
    ) -> None:
        self.shown = shown
        self.mark = secrets.token_hex(8)
        self.patience = patience
        self.condition = condition
        self._identity = identity
        # Whether a request may have put the object there, or may still do it.
        self.uncertain = False
        # Whether it may not be asked which objects there are; its own object this upload may see.
        self._blind = False

    @abc.abstractmethod
    def find(self) -> Found | None:
        """Return what is in place; None if there is nothing.

        :raises GlanceStoreException: that cannot be found out
        """

    def look(self) -> Found | None:
        """Return what is in place; None if nothing can be seen.

        :raises GlanceStoreException: that cannot be found out
        """
        try:
            return self.find()
        except exceptions.Forbidden:
            if not self._blind:
                raise
            return None

    @abc.abstractmethod
    def remove(self, found: Found) -> None:
        """Remove the object of this upload; that it is not there any more is no error."""

    def settle(self, found: Found, expected: Expected) -> None:  # noqa: B027 - most need not
        """Wait until all of an object of this upload that is in place can be read.

        :raises BackendUnavailable: it cannot in time
        """

    def duplicate(self) -> exceptions.Duplicate:
        """Return the error for a name that is taken, ready to raise."""
        return exceptions.Duplicate(_("Image %(image)s already exists"), image=self.shown)

    def check_free(self) -> None:
        """Look whether the name is free.

        :raises Duplicate: another upload has it
        """
        try:
            found = self.look()
        except exceptions.Forbidden as exc:
            # The answer where there is none, to who may not see which objects there are.
            LOG.debug("It cannot be seen whether there is an object already: %s", exc)
            self._blind = True
            return
        if found is not None and found.mark != self.mark:
            raise self.duplicate()

    @contextlib.contextmanager
    def alone(self, under_way: bool = False) -> Iterator[None]:
        """Keep the other uploads of this process waiting that are after the same name.

        :param under_way: the request waits for its last bytes, and for nothing else
        :raises Duplicate: the name is taken
        """
        with CREATING.holding(self._identity):
            # Also where the service knows a condition: not all that ignore it say so.
            try:
                self.check_free()
            except exceptions.Duplicate:
                raise
            except ERRORS:
                # The token may have ended: what is under way does not need it any more.
                if not under_way:
                    raise
            yield

    def if_free(
        self,
        send: Callable[[bool], _T],
        bars: Callable[[Exception], bool],
        action: str,
    ) -> _T:
        """Create the object where there is none; without that condition if the service bars it.

        What one request was refused for may have another reason: the condition is left out for good
        only when that has helped, twice.

        :param send: sends the one request, with the condition or without it
        :param bars: whether a request may have been refused for the condition
        :param action: what is tried, for errors
        :returns: what `send` returns
        :raises NameTaken: the name is taken
        :raises Forbidden: whether the name is free can neither be seen nor be left to the service
        """
        reason: object = action
        taken = False
        if self.condition.known:
            try:
                answer = send(True)
                self.condition.is_known()
                return answer
            except ERRORS as exc:
                if not bars(exc):
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
                    "%s: neither may this account see which objects there are (s3:ListBucket in "
                    "S3, the read ACL of the container in Swift), nor does the service create an "
                    "object only where there is none"
                )
                % reason
            )
            # Nothing has been stored.
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
        more: float = 0.0,
    ) -> None:
        """Create the object; when this returns it is in place, and undamaged.

        :param send: sends the one request; raises `NameTaken` where the name is not free
        :param expected: what has to be in place
        :param repeatable: whether `send` may be called again
        :param confirm: look also after a success, as the service lets several uploads of a name
            succeed
        :param more: seconds that the service may need besides
        :raises Duplicate: another upload was first
        :raises Exception: the last error of `send`, if it has not created the object
        """
        tries = self.patience.tries(more)
        while True:
            error = self._send(send)
            if error is None and not confirm:
                return
            try:
                found = self.look()
            except ERRORS:
                if error is None:
                    # The answer counts, also when the token has ended with it.
                    return
                # What it was looked for tells more than that it cannot be looked for.
                raise error from None
            if found is None and error is None:
                # It counts as well where the next request meets a server that lags behind.
                return
            if found is not None and found.mark != self.mark:
                raise self.duplicate()
            if found is not None:
                error = error if isinstance(error, DamagedOnTheWay) else None
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
        # From here on it is there: what fails later has to remove it.
        self.uncertain = True
        return None

    def _damage(self, found: Found, expected: Expected) -> DamagedOnTheWay | None:
        if not found.etag or expected.etag is None or found.etag == expected.etag:
            return None
        return damaged(_("Storing %s") % self.shown, found.etag, expected.etag)

    def _look_late(self) -> Found | None:
        """Look also for what appears a little later, as by a server that lags behind."""
        found = self.look()
        for pause in _LATE:
            if found is not None:
                break
            self.patience.wait(pause)
            found = self.look()
        return found

    def withdraw(self) -> None:
        """Remove the object if this upload has put it there, also if it appears a little later.

        :raises GlanceStoreException: that cannot be found out, or it cannot be removed
        """
        if not self.uncertain:
            return
        found = self._look_late()
        if found is None:
            LOG.warning(
                "%s: the service has not said whether it is stored; it is not there, and should it "
                "appear later, no image refers to it",
                self.shown,
            )
        elif found.mark == self.mark:
            self.remove(found)
        self.uncertain = False


def damaged(action: str, stored: str, sent: str) -> DamagedOnTheWay:
    """Return the error for data that has changed on its way, ready to raise.

    :param action: what was tried
    :param stored: what the service says of the data, in hexadecimal
    :param sent: what it has to say
    """
    return DamagedOnTheWay(
        _("%(action)s: the data was damaged on its way (MD5 %(stored)s instead of %(sent)s)"),
        action=action,
        stored=stored,
        sent=sent,
    )
