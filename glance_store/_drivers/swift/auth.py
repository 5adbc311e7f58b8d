# SPDX-License-Identifier: Apache-2.0
"""Swift accounts, with tokens that stay valid for as long as a transfer takes."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from glance_store import exceptions
from glance_store._drivers._patience import prepare
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.client import Account, Settings
from glance_store._drivers.swift.references import Reference, without_scheme
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# Accounts to keep that only locations name, besides those of the configuration.
_KEPT = 32
# Seconds between two catalogues that are fetched because Swift does not answer.
_PAUSE = 10.0


def v3_address(address: str) -> str:
    """Return the version 3 URL of the identity service; `address` may lack scheme and version."""
    scheme = "http" if address.lower().startswith("http://") else "https"
    base = without_scheme(address).rstrip("/")
    for version in ("/v3", "/v2.0"):
        base = base.removesuffix(version)
    return f"{scheme}://{base.rstrip('/')}/v3"


def session_for(plugin: Any, settings: Settings) -> Any:
    """Return a keystoneauth session, which caches the token."""
    module = importlib.import_module("keystoneauth1.session")
    session = module.Session(auth=plugin, verify=settings.verify)
    # The constructor takes one number only; requests, below it, takes two.
    session.timeout = settings.timeout
    prepare(session.session, settings.read_timeout)
    return session


def plugin_for(reference: Reference, trust: str = "") -> Any:
    """Return the keystoneauth plugin for an account.

    With `trust`, the id of a trust, the user acts for the project of the trust.
    """
    v3 = importlib.import_module("keystoneauth1.identity.v3")
    url = v3_address(reference.auth_address)
    if reference.application_credential_id and reference.application_credential_secret:
        return v3.ApplicationCredential(
            auth_url=url,
            application_credential_id=reference.application_credential_id,
            application_credential_secret=reference.application_credential_secret,
        )
    project, colon, name = (reference.user or "").partition(":")
    if not colon or not project or not name:
        raise exceptions.BadStoreUri(
            _(
                "The user of a Swift account must be <project>:<user>; check swift_store_user, "
                "the section of swift_store_config_file, or the location of the image"
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
        password=reference.key,
        user_domain_id=reference.user_domain_id,
        user_domain_name=reference.user_domain_name,
        **({"trust_id": trust} if trust else own),
    )


def ask(call: Callable[[], _T], action: str, patience: Patience) -> _T:
    """Call a function that uses the identity service, and translate its errors."""
    failures = (
        importlib.import_module("keystoneauth1.exceptions").ClientException,
        importlib.import_module("swiftclient.exceptions").ClientException,
        *errors.NETWORK,
        # keystoneauth does not check the form of a response.
        *(AttributeError, LookupError, TypeError, ValueError),
    )

    def attempt() -> _T:
        try:
            return call()
        except failures as exc:
            error = errors.identity_failure(exc, action)
        # Raised here, and not in the handler: the original quotes the request.
        raise error

    return patience.call(attempt)


class SessionAccount(Account):
    """The account of a user whose credentials are known.

    A token is replaced `interval` seconds before it expires.
    """

    def __init__(
        self, connection: Any, session: Any, interval: int, patience: Callable[[], Patience]
    ) -> None:
        super().__init__(connection, connection.url)
        self._session = session
        self._interval = interval
        self._patience = patience
        # With swift_store_endpoint, the catalogue need not list Swift.
        self._fixed = bool(connection.url)
        self._stale = False  # whether Swift may have moved
        self._look_again = 0.0  # on the monotonic clock
        self._token = ""  # with which the URL was looked up

    @property
    def url(self) -> str:
        """URL of the account."""
        if self._url is None or self._stale:
            self.token()
        return super().url

    def forget_url(self) -> None:
        """Look for Swift in a new catalogue, as it may have moved."""
        now = time.monotonic()
        # In an outage, many requests fail; each catalogue takes a login.
        if not self._fixed and now >= self._look_again:
            self._stale, self._look_again = True, now + _PAUSE

    def token(self) -> str:
        """Return a token that does not expire soon."""
        return self.renew("")

    def renew(self, refused: str) -> str:
        """Return a new token in place of one that Swift refused."""

        # Lock for each try, so that the pauses between tries hold nobody up.
        def current() -> str:
            with self._lock:
                token = self._good_token(refused)
                if token != self._token and not self._fixed:
                    # With it came another catalogue.
                    found, latest = self.connection.get_auth()
                    if not found:
                        raise errors.NoEndpointError
                    self._url, self._token = str(found).rstrip("/"), latest
                return token

        return ask(current, _ACTION, self._patience())

    def _good_token(self, refused: str) -> str:
        """Return the token of the session if it is good, otherwise a new one.

        While the identity service gives none, return the old one as long as it is valid. The caller
        holds the lock: keystoneauth holds its own only while it fetches, so that another thread
        could invalidate the token before this one reads it.
        """
        plugin = self._session.auth
        known, stale, self._stale = plugin.auth_ref, self._stale, False
        try:
            access = plugin.get_access(self._session)
            # A new catalogue comes with a new token.
            if stale or access.auth_token == refused or access.will_expire_soon(self._interval):
                plugin.invalidate()
                access = plugin.get_access(self._session)
        except Exception as exc:
            if known is None or known.auth_token == refused or known.will_expire_soon(0):
                raise
            LOG.info("No new token (%s); the old one is still valid", type(exc).__name__)
            plugin.auth_ref = access = known
        return str(access.auth_token)


_ACTION = "Authenticating for Swift"


class GivenAccount(Account):
    """The account of a swiftclient connection that the caller brings."""

    def __init__(self, connection: Any) -> None:
        url, self._token = connection.url, connection.token
        if not url or not self._token:
            url, self._token = ask(connection.get_auth, _ACTION, Patience(0))
        super().__init__(connection, url)

    def token(self) -> str:
        """Return the token of the connection."""
        return str(self._token)

    def renew(self, refused: str) -> str:
        """Have the connection authenticate again."""
        with self._lock:
            if self._token == refused:
                _url, self._token = ask(self.connection.get_auth, _ACTION, Patience(0))
            return str(self._token)


class Sessions:
    """A store's accounts with known credentials, separate for each process.

    Locations can name any number of accounts, so only the most recently used ones are kept, besides
    those of the configuration. Python closes a dropped account when its last user is done with it.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._begin()

    def _begin(self) -> None:
        self._staying: dict[Hashable, SessionAccount] = {}
        self._passing: OrderedDict[Hashable, SessionAccount] = OrderedDict()
        self._lock = threading.Lock()
        # Last, because another thread may look at it.
        self._process = os.getpid()

    def get(self, key: Hashable, stays: bool, make: Callable[[], SessionAccount]) -> SessionAccount:
        """Return the account with a key, made by `make` without a request if it is new.

        An account that `stays` is one of the configuration.
        """
        if self._process != os.getpid():
            # A forked child must not use inherited connections, and a thread that does not exist in
            # the child may hold an inherited lock.
            self._begin()
        with self._lock:
            account = self._staying.get(key) or self._passing.pop(key, None) or make()
            if stays or key in self._staying:
                self._staying[key] = account
            else:
                self._passing[key] = account
                if len(self._passing) > self._kept:
                    self._passing.popitem(last=False)
            return account
