# SPDX-License-Identifier: Apache-2.0
"""The account of a user known only by a token, and the trust that outlives the token."""

from __future__ import annotations

import datetime
import logging
import secrets
from collections.abc import Callable
from typing import Any

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.auth import ask
from glance_store._drivers.swift.client import Account
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

# A trust left by a killed process ends by itself.
_LONGEST_TRUST = datetime.timedelta(days=7)
_SPREAD = 24 * 3600 * 10**6  # microseconds
_TO_THE_SECOND = len("2026-01-01T00:00:00")
_TRUSTS = "/OS-TRUST/trusts"


class Trust:
    """A Keystone trust that lets the service act for a user during a transfer.

    `service` is the session of the service's own user, and `trusting` makes the account for the id
    of a trust. Raises SwiftError if the identity service refuses, or if the user's token is not for
    a project.
    """

    def __init__(
        self,
        service: Any,
        trusting: Callable[[str], Account],
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
        # Two trusts of one user must differ in their end, even if they begin together.
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
        self.account = trusting(self._id)

    def _make(self, wanted: dict[str, Any]) -> str:
        """Make the trust, and return its id."""
        try:
            made = self._call("POST", _TRUSTS, self._user_token, body={"trust": wanted})["trust"]
        except exceptions.GlanceStoreException:
            # The response to a try may have been lost: then the trust exists, and the next try is
            # refused as a duplicate.
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
                "A trust for a transfer of an image may be left in the identity service until %s: "
                "listing the user's trusts failed (%s)",
                wanted["expires_at"],
                exc,
            )
            return None
        # Its end, a random second of a day, tells it from the user's other trusts.
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

    def remove(self) -> None:
        """End the trust, with the user's token or, if that has expired, the trust's own."""
        error: exceptions.GlanceStoreException | None = None
        for own in (False, True):
            try:
                token = self.account.token() if own else self._user_token
                self._call("DELETE", f"{_TRUSTS}/{self._id}", token)
                return
            except exceptions.GlanceStoreException as exc:
                error = exc
                if isinstance(exc, errors.SwiftUnavailable):
                    # No token helps, and the caller is waiting.
                    break
        LOG.warning(
            "The trust %s for a transfer of an image could not be removed from the identity "
            "service (%s); it ends by itself, or remove it with 'openstack trust delete'",
            self._id,
            error,
        )


_ACTION = "Managing the trust for a long transfer"


def _end(trust: dict[str, Any]) -> tuple[str, str]:
    """Return what tells a trust from others; times of the service have no fractions of seconds."""
    # Some trusts, such as those of Heat, have no end.
    return trust["trustee_user_id"], (trust["expires_at"] or "")[:_TO_THE_SECOND]


def _moment(text: str) -> datetime.datetime:
    """Return a time in the identity service's notation as a datetime."""
    moment = datetime.datetime.fromisoformat(text[:_TO_THE_SECOND])
    return moment.replace(tzinfo=datetime.timezone.utc)


class UserAccount(Account):
    """An account reached with the token of the request's user.

    A token is replaced `interval` seconds before it expires; without `make_trust`, it cannot be.
    """

    def __init__(
        self, connection: Any, interval: int, make_trust: Callable[[], Trust] | None
    ) -> None:
        super().__init__(connection, connection.url)
        self._user_token: str = connection.token
        self._interval = datetime.timedelta(seconds=interval)
        self._make_trust = make_trust
        self._trust: Trust | None = None
        self._used_up = False

    @property
    def renewable(self) -> bool:  # type: ignore[override]
        """Whether there is a trust of the user."""
        return self._trust is not None

    def prepare(self) -> None:
        """Have the user trust the service, if that is possible."""
        with self._lock:
            make, self._make_trust = self._make_trust, None
            if make is None:
                return
            try:
                # Responses of the identity service are used unchecked.
                self._trust = ask(make, _ACTION, Patience(0))
            except exceptions.GlanceStoreException as exc:
                LOG.warning(
                    "This upload can fail once the token of its user expires, because no trust "
                    "can be made (%s). Check the service's user and its roles, or set "
                    "swift_store_use_trusts to False",
                    exc,
                )

    def token(self) -> str:
        """Return the user's token, or one of the trust if that expires soon."""
        trust = self._trust
        if trust is None:
            return self._user_token
        now = datetime.datetime.now(datetime.timezone.utc)
        if self._used_up or trust.token_expires - now <= self._interval:
            return trust.account.token()
        return self._user_token

    def renew(self, refused: str) -> str:
        """Return a token of the trust."""
        trust = self._trust
        if trust is None:
            raise errors.TokenRefusedError(
                _(
                    "Swift refused the token of the request's user: it has expired or was "
                    "revoked, or it is not valid for this account. For long uploads see "
                    "swift_store_use_trusts"
                )
            )
        self._used_up = True
        return trust.account.renew(refused)

    def close(self) -> None:
        """Remove the trust, if one was made."""
        with self._lock:
            trust, self._trust, self._make_trust = self._trust, None, None
        if trust is not None:
            trust.remove()
