# SPDX-License-Identifier: Apache-2.0
"""Requests to one Swift account, over swiftclient's connection."""

from __future__ import annotations

import abc
import copy
import dataclasses
import os
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import requests

from glance_store import exceptions
from glance_store._drivers._objects.claim import condition
from glance_store._drivers._patience import prepare
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.catalogue import ClusterAddress
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

# Seconds to try to get the limits of a cluster: an upload can do without them.
_INFO = 5.0
# Stands for the account in place of a container; its listing is that of the containers.
ACCOUNT = ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that every request uses."""

    insecure: bool
    cacert: str | None  # path of a file or a directory of authorities
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    patience: float  # seconds
    retries: int | None  # at most
    threads: int  # requests of one upload or deletion at a time

    @classmethod
    def of(cls, store_conf: Any) -> Settings:
        """Return the settings of a store."""
        return cls(
            insecure=store_conf.swift_store_auth_insecure,
            cacert=store_conf.swift_store_cacert,
            connect_timeout=store_conf.swift_store_connect_timeout,
            read_timeout=store_conf.swift_store_read_timeout,
            patience=store_conf.swift_store_retry_timeout,
            retries=store_conf.swift_store_retries,
            threads=store_conf.swift_store_thread_pool_size,
        )

    @property
    def verify(self) -> bool | str:
        """The TLS verification for requests: False, True, or the path of authorities."""
        return False if self.insecure else self.cacert or True

    def new_patience(self, in_all: bool = False) -> Patience:
        """Return the patience for a new transfer or a clean-up."""
        return Patience(self.patience, in_all, self.retries)

    @property
    def timeout(self) -> tuple[float, float]:
        """The timeouts for requests, in seconds: for connecting, and for silence."""
        return self.connect_timeout, self.read_timeout


class Account(abc.ABC):
    """Where an account of Swift is, and a token that is valid for the next request."""

    renewable = True  # whether another token follows when this one expires
    confirmed = ""  # a token that is valid, although Swift has answered 403 to it

    def __init__(self, connection: Any, url: str | None) -> None:
        self.connection = connection  # of swiftclient
        self._url = url.rstrip("/") if url else None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """URL of the account."""
        return str(self._url)

    @abc.abstractmethod
    def token(self) -> str:
        """Return a token that does not expire soon."""

    @abc.abstractmethod
    def renew(self, refused: str) -> str:
        """Return a new token in place of one that Swift refused; raise SwiftError if none."""

    def prepare(self) -> None:  # noqa: B027 - most need not
        """Get ready for an upload that may outlast the token."""

    def forget_url(self) -> None:  # noqa: B027 - most need not
        """Find out anew where Swift is, if it does not answer there."""

    def close(self) -> None:  # noqa: B027 - most need not
        """Give back what renewing tokens needed."""


class Connections:
    """A store's connections to Swift, separate for each process, shared by its threads.

    A forked child leaves inherited connections alone: two processes on one connection would get
    parts of each other's responses.
    """

    def __init__(self) -> None:
        self.condition = condition("Swift of the store")
        # No lock: one that is held while another thread forks stays locked in the child for ever. A
        # surplus connection object has not connected yet and costs nothing.
        self._connections: dict[tuple[object, ...], Any] = {}

    def to(self, url: str, account: Account, settings: Settings) -> Any:
        """Return swiftclient's HTTPConnection to the server of a URL."""
        address = ClusterAddress.of(url)
        if address is None:
            raise errors.SwiftError(
                _(
                    "The address of Swift is not a valid http or https URL: check the service "
                    "catalogue, or swift_store_endpoint"
                )
            )
        key = (os.getpid(), settings, address.scheme, address.host, address.port)
        connection = self._connections.get(key)
        if connection is None:
            _parsed, connection = account.connection.http_connection(url)
            # The token is for this server, not for one that it redirects to.
            connection.request_session.max_redirects = 0
            # swiftclient has no options for these: its pool keeps ten connections, and an upload
            # would fail if the server accepted no data for longer than the connect timeout.
            prepare(connection.request_session, settings.read_timeout)
            connection = self._connections.setdefault(key, connection)
        return connection


class Client:
    """Sends requests to an account, from any thread."""

    def __init__(self, connections: Connections, settings: Settings, account: Account) -> None:
        self.settings = settings
        self.account = account
        self.patience = settings.new_patience
        # Learned from what the cluster has refused.
        self.condition = connections.condition
        self._connections = connections

    def request(
        self,
        method: str,
        container: str,
        obj: str | None = None,
        *,
        action: str,
        patience: Patience | None = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        retry: bool = True,
        single_try: bool = False,
        allow: Iterable[int] = (),
        check: Callable[[requests.Response], None] | None = None,
        extra_timeout: float = 0.0,
        stream: bool = False,
    ) -> requests.Response:
        """Send a request; repeat it after a pause, or with a new token, where that may help.

        `action` begins the text of errors, and must contain no secret. `obj` None means the
        container. Without `patience`, it is that of the store. Each call of `body` begins the data
        again. Without `retry`, the caller retries; with `single_try`, the data cannot begin again,
        and there is one try. Statuses in `allow` are returned like a success, and `check` may raise
        for a response that is not one. `extra_timeout` is seconds added to the read timeout. With
        `stream`, the caller reads the body and closes the answer.

        Raises NotFound for 404, StorageFull for 413 and 507, SwiftUnavailable for no response or
        one that asks to come back later, and SwiftError for anything else.
        """
        url = self.account.url + _target(container, obj, query)
        allowed = frozenset(allow)
        token, renewable = self.account.token(), self.account.renewable and not single_try

        def attempt() -> requests.Response:
            nonlocal token
            renewed = False
            while True:
                sent = {**(headers or {}), "X-Auth-Token": token}
                response = self._send(method, url, sent, body, extra_timeout, action)
                errors.check_source(response, action)
                status = response.status_code
                if 200 <= status < 300 or status in allowed:
                    if not stream:
                        self._read(response, action)
                    if check is not None:
                        check(response)
                    return response
                # The RADOS gateway answers 403 for a token that was revoked.
                invalid = status == 401 or (status == 403 and token != self.account.confirmed)
                if invalid and renewable and not renewed:
                    response.close()
                    token, renewed = self.account.renew(token), True
                    continue
                if status == 403 and renewed:
                    self.account.confirmed = token
                error = errors.refusal(response, action, obj or container, renewed)
                response.close()
                raise error

        try:
            if single_try or not retry:
                return attempt()
            return (patience or self.patience()).call(attempt)
        except errors.TokenRefusedError:
            raise
        except exceptions.BackendUnavailable:
            self.account.forget_url()
            raise

    def head(
        self, container: str, obj: str | None = None, *, action: str, **more: Any
    ) -> requests.Response | None:
        """Ask about an object or a container; None if it does not exist. See `request`."""
        found = self.request("HEAD", container, obj, action=action, allow=(404,), **more)
        return None if found.status_code == 404 else found

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: Callable[[], Any] | None,
        extra_timeout: float,
        action: str,
    ) -> requests.Response:
        # A copy, because one of its attributes is the latest answer.
        connection = copy.copy(self._connections.to(url, self.account, self.settings))
        connecting, reading = self.settings.timeout
        connection.requests_args = {
            **connection.requests_args,
            "timeout": (connecting, reading + extra_timeout),
        }
        path = url.partition("://")[2]
        path = path[path.index("/") :]
        try:
            response: requests.Response = connection.request(
                method, path, body() if body is not None else "", headers
            )
            return response
        except errors.NETWORK as exc:
            error = errors.unreachable(exc, action)
        raise error

    def _read(self, response: requests.Response, action: str) -> requests.Response:
        """Read the body of a response."""
        try:
            response.content  # noqa: B018 - reads it
        except errors.NETWORK as exc:
            error = errors.unreachable(exc, action)
        else:
            return response
        raise error

    def info(self, patience: Patience) -> requests.Response:
        """Ask the cluster for its capabilities."""
        parts = urllib.parse.urlsplit(self.account.url)
        # The path ends with the version and the account, whatever comes before.
        path = parts.path.rpartition("/v1")[0] + "/info"
        url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        action = "Asking Swift for its capabilities"
        less = min(0.0, _INFO - self.settings.read_timeout)

        def ask() -> requests.Response:
            try:
                response = self._read(self._send("GET", url, {}, None, less, action), action)
                if response.status_code in errors.PASSING:
                    raise errors.refusal(response, action, action)
            except exceptions.BackendUnavailable as exc:
                exc.patience = _INFO
                raise
            return response

        return patience.call(ask)


def _target(container: str, obj: str | None, query: Mapping[str, object] | None) -> str:
    """Return the path in an account, with its query; raise BadStoreUri for invalid names."""
    if container == ACCOUNT and obj is None:
        return f"?{urllib.parse.urlencode(query or {})}"
    names = [container] if obj is None else [container, obj]
    for name in names:
        # A server or a proxy resolves dots in a path, which would lead elsewhere.
        dots = any(part in (".", "..") for part in name.split("/"))
        if not name or dots or "/" in container:
            raise exceptions.BadStoreUri(
                _("'%(name)s' is not a valid Swift container or object name"), name=name
            )
    try:
        path = "/" + "/".join(urllib.parse.quote(name) for name in names)
    except UnicodeError:
        raise exceptions.BadStoreUri(
            _("A Swift container or object name must be valid UTF-8")
        ) from None
    return f"{path}?{urllib.parse.urlencode(query)}" if query else path
