# SPDX-License-Identifier: Apache-2.0
"""Accounts of Swift, and tokens for them that stay good as long as a transfer takes."""

from __future__ import annotations

import importlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from glance_store import exceptions
from glance_store._drivers._patience import PatientAdapter
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.client import Settings
from glance_store._drivers.swift.references import Reference
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

_T = TypeVar("_T")

# Accounts that only locations name, and that are kept besides those of the configuration.
_KEPT = 32


def v3_address(address: str) -> str:
    """Return the address of version 3 of the identity service.

    :param address: with or without a version at its end, which may have a slash after it
    """
    base = address.rstrip("/")
    for version in ("/v3", "/v2.0"):
        base = base.removesuffix(version)
    return f"{base.rstrip('/')}/v3"


def session_for(plugin: Any, settings: Settings) -> Any:
    """Return a session of keystoneauth, which caches the token.

    :param plugin: what authenticates
    :param settings: options of the store
    """
    module = importlib.import_module("keystoneauth1.session")
    session = module.Session(auth=plugin, verify=settings.verify)
    # Its constructor takes one number only; what is below it knows two.
    session.timeout = settings.timeout
    for scheme in ("http://", "https://"):
        session.session.mount(scheme, PatientAdapter(settings.read_timeout))
    return session


def plugin_for(
    reference: Reference, address: str, user: str | None, key: str | None, trust: str = ""
) -> Any:
    """Return what authenticates in the identity service.

    :param reference: the account, for its domains and application credential
    :param address: of the identity service
    :param user: ``project:user``; None for an application credential
    :param key: the password
    :param trust: id of a trust in the user, whose project it is for; empty: for the user's own
    :raises BadStoreUri: the user is not of that form
    """
    v3 = importlib.import_module("keystoneauth1.identity.v3")
    url = v3_address(address)
    if reference.application_credential_id and reference.application_credential_secret:
        return v3.ApplicationCredential(
            auth_url=url,
            application_credential_id=reference.application_credential_id,
            application_credential_secret=reference.application_credential_secret,
        )
    project, colon, name = (user or "").partition(":")
    if not colon or not project or not name:
        raise exceptions.BadStoreUri(
            _(
                "The user of a Swift account has to be <project>:<user>; look at swift_store_user, "
                "at the section of swift_store_config_file, or at the location of the image"
            )
        )
    own = {
        "project_name": project,
        "project_domain_id": reference.project_domain_id,
        "project_domain_name": reference.project_domain_name,
    }
    return v3.Password(
        auth_url=url,
        username=name,
        password=key,
        user_domain_id=reference.user_domain_id,
        user_domain_name=reference.user_domain_name,
        **({"trust_id": trust} if trust else own),
    )


def ask(call: Callable[[], _T], action: str, patience: Patience) -> _T:
    """Call a function that uses the identity service; translate its errors.

    :param call: the function
    :param action: what is tried, in words without secrets
    :param patience: for passing failures
    :raises SwiftUnavailable: the service does not answer
    :raises SwiftError: it refuses
    """
    failures = (
        importlib.import_module("keystoneauth1.exceptions").ClientException,
        importlib.import_module("swiftclient.exceptions").ClientException,
        *errors.NETWORK,
        # keystoneauth takes an answer for what it should be.
        *(AttributeError, LookupError, TypeError, ValueError),
    )

    def attempt() -> _T:
        try:
            return call()
        except failures as exc:
            error = errors.identity_failure(exc, action)
        # Raised out here: the original quotes the request.
        raise error

    return patience.call(attempt)


def good_token(session: Any, interval: int, refused: str) -> str:
    """Return the token of a session, a new one where the present one is of no use.

    The caller holds a lock; of a session that several threads use at once a token can be lost.

    :param session: of keystoneauth
    :param interval: seconds for which the token has to be good
    :param refused: a token that is not wanted again; empty: there is none
    """
    plugin = session.auth
    access = plugin.get_access(session)
    if access.will_expire_soon(interval) or access.auth_token == refused:
        plugin.invalidate()
        access = plugin.get_access(session)
    token: str = access.auth_token
    return token


class _Lasting:
    """An account that can be used for as long as a transfer takes."""

    renewable = True

    def prepare(self) -> None:
        """Do nothing: the credentials are known, or the connection is the caller's."""

    def close(self) -> None:
        """Keep the token, for the next request of this account."""


class SessionAccount(_Lasting):
    """The account of a user whose credentials are known.

    :param connection: swiftclient's connection to the account
    :param session: keystoneauth's session, whose token the connection uses
    :param interval: seconds before its end at which a token is replaced
    :param patience: returns a new one, for passing failures
    """

    def __init__(
        self, connection: Any, session: Any, interval: int, patience: Callable[[], Patience]
    ) -> None:
        self.connection = connection
        self._session = session
        self._interval = interval
        self._patience = patience
        self._url: str | None = None
        # keystoneauth locks the fetching of a token only: one that another thread invalidates in
        # the next moment is not there for the thread that has asked for it.
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Address of the account."""
        if self._url is None:
            # With an address of its own the catalogue need not have one.
            url = self.connection.url
            if not url:
                url, _token = ask(self._found, _ACTION, self._patience())
            if not url:
                raise errors.NoEndpointError
            self._url = url.rstrip("/")
        return self._url

    def _found(self) -> Any:
        with self._lock:
            return self.connection.get_auth()

    def token(self) -> str:
        """Return a token that does not expire soon."""
        return self.renew("")

    def renew(self, refused: str) -> str:
        """Return another token in place of one that Swift has refused."""

        # Each try locks anew: the pauses between them hold nobody up.
        def current() -> str:
            with self._lock:
                return good_token(self._session, self._interval, refused)

        return ask(current, _ACTION, self._patience())


_ACTION = "Authenticating for Swift"


class GivenAccount(_Lasting):
    """The account of a connection that the caller has made.

    :param connection: of swiftclient
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        url, self._token = connection.url, connection.token
        if not url or not self._token:
            url, self._token = ask(connection.get_auth, _ACTION, Patience(0))
        self.url: str = url.rstrip("/")
        self._lock = threading.Lock()

    def token(self) -> str:
        """Return the token of the connection."""
        return str(self._token)

    def renew(self, refused: str) -> str:
        """Have the connection authenticate anew."""
        with self._lock:
            if self._token == refused:
                _url, self._token = ask(self.connection.get_auth, _ACTION, Patience(0))
            return str(self._token)


class Sessions:
    """The accounts of a store whose credentials are known, of its own in each process.

    Anybody who may add locations can name any number of accounts: of those only the ones that were
    used last are kept. What is dropped is closed by Python when its last user has let go of it.

    :param kept: accounts outside of the configuration that are kept
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        # By process, each with a lock of its own: a forked child must not use the connections that
        # it has inherited, and a lock may be held by a thread that it does not have.
        self._of_process: dict[int, _Accounts] = {}

    def get(self, key: Hashable, stays: bool, make: Callable[[], SessionAccount]) -> SessionAccount:
        """Return an account.

        :param key: tells it from all others
        :param stays: it is one of the configuration
        :param make: makes it, without a request
        """
        accounts = self._of_process.setdefault(os.getpid(), _Accounts(self._kept))
        return accounts.get(key, stays, make)


class _Accounts:
    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._staying: dict[Hashable, SessionAccount] = {}
        self._passing: OrderedDict[Hashable, SessionAccount] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, stays: bool, make: Callable[[], SessionAccount]) -> SessionAccount:
        with self._lock:
            account = self._staying.get(key) or self._passing.pop(key, None) or make()
            if stays or key in self._staying:
                self._staying[key] = account
            else:
                self._passing[key] = account
                if len(self._passing) > self._kept:
                    self._passing.popitem(last=False)
            return account
