# SPDX-License-Identifier: Apache-2.0
"""Requests to one account of Swift, repeated when that may help."""

from __future__ import annotations

import logging
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import urllib3

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.connections import Connections, Settings
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse as Response

LOG = logging.getLogger(__name__)

# Seconds: the operator has counted the tries.
_LONGEST = 600.0

# A body that can be sent again is bytes, or a function that begins anew; an iterator cannot.
Body = bytes | memoryview | Callable[[], Iterable[Any]] | Iterator[Any] | None


class Account(Protocol):
    """Where an account of Swift is, and a token that is good for the next request."""

    @property
    def url(self) -> str:
        """Address of the account."""
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
        """Get ready for a transfer that may take longer than the token is good for."""
        ...

    def tend(self) -> None:
        """Get ready, if the transfer does take long; called again and again while it lasts."""
        ...

    def close(self) -> None:
        """Give back what was needed to renew tokens."""
        ...


class Client:
    """Sends requests to an account, from any thread.

    :param connections: the pools of the store
    :param settings: its options
    :param account: where, and as whom
    """

    def __init__(self, connections: Connections, settings: Settings, account: Account) -> None:
        self.settings = settings
        self.account = account
        self._connections = connections

    def request(
        self,
        method: str,
        container: str,
        obj: str | None = None,
        *,
        action: str,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        allow: Iterable[int] = (),
        retries: int | None = None,
        read_timeout: float | None = None,
        stream: bool = False,
    ) -> Response:
        """Send a request, with a new token or again after a pause where that may help.

        :param method: such as ``GET``
        :param container: name of the container
        :param obj: name of the object; None for the container itself
        :param action: what is tried, in words without secrets, for errors
        :param query: parameters of the request
        :param headers: besides the token
        :param body: what is sent; an iterator is sent once, whatever happens
        :param allow: statuses that are returned like a success
        :param retries: further tries; None for those of the options
        :param read_timeout: seconds of silence after which it fails; None for the option
        :param stream: leave the body of the answer to the caller, who closes it
        :raises NotFound: the answer is 404
        :raises StorageFull: it is 413 or 507
        :raises SwiftUnavailable: no answer, or one that says to come back later
        :raises SwiftError: any other failure
        """
        url = self.account.url + _target(container, obj, query)
        once = isinstance(body, Iterator)
        allowed = frozenset(allow)
        token, renewed = self.account.token(), once

        def attempt() -> Response:
            nonlocal token, renewed
            while True:
                try:
                    sent = {**(headers or {}), "X-Auth-Token": token}
                    response = self._send(method, url, sent, body, read_timeout, stream)
                except errors.NETWORK as exc:
                    error: exceptions.GlanceStoreException = errors.unreachable(exc, action)
                else:
                    status = response.status
                    if 200 <= status < 300 or status in allowed:
                        return response
                    response.close()
                    error = errors.refusal(status, response.reason, action, obj or container)
                    if status == 401 and not renewed:
                        token, renewed = self.account.renew(token), True
                        continue
                raise error

        tries = 0 if once else self.settings.retries if retries is None else retries
        return Patience(_LONGEST, most=tries).call(attempt)

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: Body,
        read_timeout: float | None,
        stream: bool,
    ) -> Response:
        settings = self.settings
        timeout = urllib3.Timeout(
            connect=settings.connect_timeout,
            read=settings.read_timeout if read_timeout is None else read_timeout,
        )
        data = body() if callable(body) else body
        if isinstance(data, (bytes, memoryview)):
            headers["Content-Length"] = str(len(data))
        return self._connections.pool(url, settings).urlopen(
            method,
            url,
            body=data,
            headers=headers,
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=not stream,
            decode_content=False,
            enforce_content_length=True,
            chunked=data is not None and "Content-Length" not in headers,
        )

    def info(self) -> Response:
        """Ask the cluster what it can do."""
        parts = urllib.parse.urlsplit(self.account.url)
        # The version and the account make the end of the path, whatever stands before them.
        path = parts.path.rpartition("/v1")[0] + "/info"
        url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        try:
            return self._send("GET", url, {}, None, None, False)
        except errors.NETWORK as exc:
            error = errors.unreachable(exc, "Asking Swift what it can do")
        raise error


def _target(container: str, obj: str | None, query: Mapping[str, object] | None) -> str:
    """Return the path in an account, with its query.

    :raises BadStoreUri: the names can be no container and object
    """
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
