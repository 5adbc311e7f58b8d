# SPDX-License-Identifier: Apache-2.0
"""Requests to one account of Swift, over the connection of swiftclient."""

from __future__ import annotations

import copy
import dataclasses
import os
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import requests

from glance_store import exceptions
from glance_store._drivers._objects.claim import condition
from glance_store._drivers._patience import PatientAdapter
from glance_store._drivers.swift import errors
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

# Seconds for which the limits of a cluster are asked for: an upload can do without them.
_INFO = 5.0
# In the place of a container: the account, whose listing is that of its containers.
ACCOUNT = ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that every request obeys."""

    insecure: bool
    cacert: str | None  # path of a file or a directory of authorities
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    patience: float  # seconds
    retries: int | None  # at most
    threads: int  # requests of one upload or deletion at a time

    @classmethod
    def of(cls, store_conf: Any) -> Settings:
        """Return the settings of a store.

        :param store_conf: its options as attributes
        """
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
        """What requests takes: False, True, or the path of authorities."""
        return False if self.insecure else self.cacert or True

    def new_patience(self, in_all: bool = False) -> Patience:
        """Return the patience for a new transfer, or for a clean-up.

        :param in_all: the seconds are those of all requests together
        """
        return Patience(self.patience, in_all, self.retries)

    @property
    def timeout(self) -> tuple[float, float]:
        """What requests takes: seconds for connecting, and of silence."""
        return self.connect_timeout, self.read_timeout


class Account(Protocol):
    """Where an account of Swift is, and a token that is good for the next request."""

    connection: Any  # of swiftclient

    @property
    def url(self) -> str:
        """Address of the account."""
        ...

    @property
    def renewable(self) -> bool:
        """Whether there will be another token when this one ends."""
        ...

    def token(self) -> str:
        """Return a token that does not expire soon."""
        ...

    def renew(self, refused: str) -> str:
        """Return another token in place of one that Swift has refused.

        :raises SwiftError: there is none
        """
        ...

    def prepare(self) -> None:
        """Get ready for an upload that may take longer than the token is good for."""
        ...

    def close(self) -> None:
        """Give back what was needed to renew tokens."""
        ...


class Wires:
    """The connections of a store, of its own in each process, each for all threads.

    A forked child leaves alone what it has inherited: two processes on one connection would get
    parts of each other's answers.
    """

    def __init__(self) -> None:
        self.condition = condition("Swift of the store")
        # No lock: one that is held while another thread forks stays locked in the child for ever.
        # A connection too many has not connected yet and costs nothing.
        self._wires: dict[tuple[object, ...], Any] = {}

    def to(self, url: str, account: Account, settings: Settings) -> Any:
        """Return the HTTPConnection of swiftclient to a server.

        :param url: on the server
        :param account: whose connection knows how it is made
        :param settings: options of the store
        """
        parts = urllib.parse.urlsplit(url)
        key = (os.getpid(), settings, parts.scheme, parts.netloc)
        wire = self._wires.get(key)
        if wire is None:
            _parsed, wire = account.connection.http_connection(url)
            # The token is for this server, not for the one that it names.
            wire.request_session.max_redirects = 0
            # swiftclient has options for neither: its pool keeps ten connections, and a server that
            # takes no data for longer than connecting may take would lose an upload.
            for scheme in ("http://", "https://"):
                wire.request_session.mount(scheme, PatientAdapter(settings.read_timeout))
            wire = self._wires.setdefault(key, wire)
        return wire


class Client:
    """Sends requests to an account, from any thread.

    :param wires: the connections of the store
    :param settings: its options
    :param account: where, and as whom
    """

    def __init__(self, wires: Wires, settings: Settings, account: Account) -> None:
        self.settings = settings
        self.account = account
        self.patience = settings.new_patience
        # What is known of the cluster from what it has refused.
        self.condition = wires.condition
        self._wires = wires

    def request(
        self,
        method: str,
        container: str,
        obj: str | None = None,
        *,
        action: str,
        patience: Patience,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        again: bool = True,
        once: bool = False,
        allow: Iterable[int] = (),
        check: Callable[[requests.Response], None] | None = None,
        more: float = 0.0,
        stream: bool = False,
    ) -> requests.Response:
        """Send a request, with a new token or again after a pause where that may help.

        :param method: such as ``GET``
        :param container: name of the container
        :param obj: name of the object; None for the container itself
        :param action: what is tried, in words without secrets, for errors
        :param patience: for passing failures
        :param query: parameters of the request
        :param headers: besides the token
        :param body: begins anew with what is sent
        :param again: False: the caller sees to further tries
        :param once: what is sent cannot begin anew, whatever happens
        :param allow: statuses that are returned like a success
        :param check: raises an error for an answer that is none
        :param more: seconds of silence that are borne besides those of the options
        :param stream: leave the body of the answer to the caller, who closes it
        :raises NotFound: the answer is 404
        :raises StorageFull: it is 413 or 507
        :raises SwiftUnavailable: no answer, or one that says to come back later
        :raises SwiftError: any other failure
        """
        url = self.account.url + _target(container, obj, query)
        allowed = frozenset(allow)
        token, renewable = self.account.token(), self.account.renewable and not once

        def attempt() -> requests.Response:
            nonlocal token
            renewed = False
            while True:
                sent = {**(headers or {}), "X-Auth-Token": token}
                response = self._send(method, url, sent, body, more, action)
                status = response.status_code
                if 200 <= status < 300 or status in allowed:
                    if not stream:
                        self._read(response, action)
                    if check is not None:
                        check(response)
                    return response
                if status == 401 and renewable and not renewed:
                    response.close()
                    token, renewed = self.account.renew(token), True
                    continue
                error = errors.refusal(response, action, obj or container, renewed)
                response.close()
                raise error

        return patience.call(attempt) if again and not once else attempt()

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: Callable[[], Any] | None,
        more: float,
        action: str,
    ) -> requests.Response:
        # A copy: one of its attributes is the answer to the latest request.
        wire = copy.copy(self._wires.to(url, self.account, self.settings))
        connecting, reading = self.settings.timeout
        wire.requests_args = {**wire.requests_args, "timeout": (connecting, reading + more)}
        path = url.partition("://")[2]
        path = path[path.index("/") :]
        try:
            response: requests.Response = wire.request(
                method, path, body() if body is not None else "", headers
            )
            return response
        except errors.NETWORK as exc:
            error = errors.unreachable(exc, action)
        raise error

    def _read(self, response: requests.Response, action: str) -> requests.Response:
        """Read the body of an answer."""
        try:
            response.content  # noqa: B018 - reads it
        except errors.NETWORK as exc:
            error = errors.unreachable(exc, action)
        else:
            return response
        raise error

    def info(self, patience: Patience) -> requests.Response:
        """Ask the cluster what it can do.

        :raises SwiftUnavailable: no answer
        """
        parts = urllib.parse.urlsplit(self.account.url)
        # The version and the account make the end of the path, whatever stands before them.
        path = parts.path.rpartition("/v1")[0] + "/info"
        url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        action = "Asking Swift what it can do"
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
    """Return the path in an account, with its query.

    :raises BadStoreUri: the names can be no container and object
    """
    if container == ACCOUNT and obj is None:
        return f"?{urllib.parse.urlencode(query or {})}"
    names = [container] if obj is None else [container, obj]
    for name in names:
        # A server or a proxy takes dots for steps in the path: they would lead elsewhere.
        if not name or any(part in (".", "..") for part in name.split("/")):
            raise exceptions.BadStoreUri(
                _("'%(name)s' is no name of a container or an object in Swift"), name=name
            )
    if "/" in container:
        raise exceptions.BadStoreUri(
            _("'%(name)s' is no name of a container in Swift"), name=container
        )
    try:
        path = "/" + "/".join(urllib.parse.quote(name) for name in names)
    except UnicodeError:
        path = ""
    if not path:
        raise exceptions.BadStoreUri(
            _("The name of a container or an object in Swift has to be text in UTF-8")
        )
    return f"{path}?{urllib.parse.urlencode(query)}" if query else path
