# SPDX-License-Identifier: Apache-2.0
"""The account of a user of whom only a token is known, and the trust that outlives the token."""

from __future__ import annotations

import datetime
import logging
import secrets
import threading
from collections.abc import Callable
from typing import Any

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.auth import ask, good_token
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

# A trust that a killed process leaves behind ends by itself.
_LONGEST_TRUST = datetime.timedelta(days=7)
_SPREAD = 24 * 3600 * 10**6  # microseconds
_TO_THE_SECOND = len("2026-01-01T00:00:00")
_TRUSTS = "/OS-TRUST/trusts"


class Trust:
    """A trust of a user in the service, for the time of a transfer.

    :param service: keystoneauth's session of the service's own user, for its project
    :param trusting: makes the session of the service's user for a trust, of the id of the trust
    :param address: of version 3 of the identity service
    :param token: of the user who trusts
    :param patience: returns a new one, for passing failures
    :raises SwiftError: the identity service refuses, or the token is for no project
    """

    def __init__(
        self,
        service: Any,
        trusting: Callable[[str], Any],
        address: str,
        token: str,
        patience: Callable[[], Patience],
    ) -> None:
        self._service = service
        self._address = address
        self._user_token = token
        self._patience = patience
        described = self._call("GET", "/auth/tokens", token, {"X-Subject-Token": token})["token"]
        self.token_expires = _moment(described["expires_at"])
        trustee = ask(service.get_user_id, _ACTION, patience())
        # Trusts of one user have to differ in their end, also when they begin together.
        longest = _LONGEST_TRUST - datetime.timedelta(microseconds=secrets.randbelow(_SPREAD))
        expires = datetime.datetime.now(datetime.timezone.utc) + longest
        if "project" not in described or not described.get("roles"):
            raise errors.SwiftError(
                _("%(action)s: the token of the user is not for a project"), action=_ACTION
            )
        wanted = {
            "trustor_user_id": described["user"]["id"],
            "trustee_user_id": trustee,
            "project_id": described["project"]["id"],
            "impersonation": True,
            "roles": [{"id": role["id"]} for role in described["roles"]],
            "expires_at": expires.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        self._id = self._make(wanted)
        self._session = trusting(self._id)
        # As for `SessionAccount`.
        self._lock = threading.Lock()

    def _make(self, wanted: dict[str, Any]) -> str:
        """Make the trust, and return its id."""
        try:
            made = self._call("POST", _TRUSTS, self._user_token, body={"trust": wanted})["trust"]
        except exceptions.GlanceStoreException:
            # The answer of a try may have been lost: the trust is there, and refused as a second
            # one to the next try.
            made = self._find(wanted)
            if made is None:
                raise
        return str(made["id"])

    def _find(self, wanted: dict[str, Any]) -> dict[str, Any] | None:
        path = f"{_TRUSTS}?trustor_user_id={wanted['trustor_user_id']}"
        try:
            listed: list[dict[str, Any]] = self._call("GET", path, self._user_token)["trusts"]
        except exceptions.GlanceStoreException as exc:
            LOG.warning(
                "A trust for a transfer of an image may be left in the identity service until %s; "
                "it cannot be looked for (%s)",
                wanted["expires_at"],
                exc,
            )
            return None
        # Its end, one second in a day, tells it from the other trusts of the user.
        mine = [trust for trust in listed if _end(trust) == _end(wanted)]
        return mine[0] if len(mine) == 1 else None

    def _call(
        self,
        method: str,
        path: str,
        token: str,
        headers: dict[str, str] | None = None,
        body: Any = None,
    ) -> Any:
        def call() -> Any:
            response = self._service.request(
                self._address + path,
                method,
                headers={"X-Auth-Token": token, "Accept": "application/json", **(headers or {})},
                json=body,
                authenticated=False,
            )
            return response.json() if response.content else None

        return ask(call, _ACTION, self._patience())

    def token(self, interval: int, refused: str = "") -> str:
        """Return a token of the user that does not expire soon.

        :param interval: seconds that it has to be good for
        :param refused: a token that is not wanted again
        """

        def current() -> str:
            with self._lock:
                return good_token(self._session, interval, refused)

        return ask(current, _ACTION, self._patience())

    def remove(self) -> None:
        """End the trust: with the user's token, or, when that has expired, with the trust's own."""
        error: exceptions.GlanceStoreException | None = None
        for own in (False, True):
            try:
                token = self.token(0) if own else self._user_token
                self._call("DELETE", f"{_TRUSTS}/{self._id}", token)
                return
            except exceptions.GlanceStoreException as exc:
                error = exc
        LOG.warning(
            "The trust %s for a transfer of an image could not be removed from the identity "
            "service (%s); it ends by itself, or remove it with 'openstack trust delete'",
            self._id,
            error,
        )


_ACTION = "Arranging a trust for a long transfer"


def _end(trust: dict[str, Any]) -> tuple[str, str]:
    """Return what tells a trust from others: the service answers without fractions of seconds."""
    return trust["trustee_user_id"], trust["expires_at"][:_TO_THE_SECOND]


def _moment(text: str) -> datetime.datetime:
    """Return the point in time of the identity service's notation."""
    moment = datetime.datetime.strptime(text.partition(".")[0].rstrip("Z"), "%Y-%m-%dT%H:%M:%S")
    return moment.replace(tzinfo=datetime.timezone.utc)


class UserAccount:
    """An account that is reached with the token of the user who has sent the request.

    :param connection: swiftclient's connection to the account
    :param interval: seconds before its end at which a token is replaced
    :param make_trust: makes a trust of the user; None when there can be none
    """

    def __init__(
        self, connection: Any, interval: int, make_trust: Callable[[], Trust] | None
    ) -> None:
        self.connection = connection
        self.url: str = connection.url.rstrip("/")
        self._user_token: str = connection.token
        self._interval = datetime.timedelta(seconds=interval)
        self._make_trust = make_trust
        self._trust: Trust | None = None
        self._used_up = False
        self._lock = threading.Lock()

    @property
    def renewable(self) -> bool:
        """Whether there is a trust of the user."""
        return self._trust is not None

    def prepare(self) -> None:
        """Have the user trust the service, if that is possible."""
        with self._lock:
            make, self._make_trust = self._make_trust, None
            if make is None:
                return
            try:
                self._trust = make()
            except exceptions.GlanceStoreException as exc:
                LOG.warning(
                    "An upload of an image lasts no longer than the token of its user: no trust "
                    "can be made (%s). Check the user and the roles of the service, or set "
                    "swift_store_use_trusts to False",
                    exc,
                )

    def token(self) -> str:
        """Return the user's token, or one of the trust when that expires soon."""
        trust = self._trust
        if trust is None:
            return self._user_token
        now = datetime.datetime.now(datetime.timezone.utc)
        if self._used_up or trust.token_expires - now <= self._interval:
            return trust.token(int(self._interval.total_seconds()))
        return self._user_token

    def renew(self, refused: str) -> str:
        """Return a token of the trust."""
        trust = self._trust
        if trust is None:
            raise errors.TokenRefusedError(
                _(
                    "Swift refuses the token of the request's user: it has expired or was revoked, "
                    "or it does not belong to the account. For long uploads see "
                    "swift_store_use_trusts"
                )
            )
        self._used_up = True
        return trust.token(int(self._interval.total_seconds()), refused)

    def close(self) -> None:
        """Remove the trust, if one was made."""
        with self._lock:
            trust, self._trust, self._make_trust = self._trust, None, None
        if trust is not None:
            trust.remove()
