# SPDX-License-Identifier: Apache-2.0
"""Requests for files in datastores, over HTTPS.

``https://SERVER/folder/PATH?dcPath=DATACENTER&dsName=DATASTORE``: see "HTTP Access to vSphere
Server Files" in the vSphere Web Services SDK Programming Guide.
"""

from __future__ import annotations

import http.cookiejar
import os
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import requests

from glance_store import exceptions
from glance_store._drivers._objects.errors import NoResult
from glance_store._drivers._patience import prepare
from glance_store._drivers.vmware_datastore import errors
from glance_store._drivers.vmware_datastore.session import Sessions
from glance_store.i18n import _

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_READING = ("GET", "HEAD")
_SIZE_REQUESTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("HEAD", {}),
    ("GET", {}),
    ("GET", {"Range": "bytes=0-0"}),
)
# Largest answer to read in order to keep the connection.
_SHORT = 64 * 1024


class File(NamedTuple):
    """A file of a datastore."""

    datacenter: str | None  # inventory path; None for an ESXi host
    datastore: str
    path: str  # in the datastore, without a leading slash

    @property
    def name(self) -> str:
        """The name in the vSphere API's notation."""
        return f"[{self.datastore}] {self.path}"

    @property
    def target(self) -> str:
        """Path and query of its URL."""
        query = {"dcPath": self.datacenter} if self.datacenter else {}
        query["dsName"] = self.datastore
        return f"/folder/{urllib.parse.quote(self.path)}?{urllib.parse.urlencode(query)}"


class Files:
    """Sends a store's file requests with its session cookie; thread-safe."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.settings = sessions.settings
        self._by_process: dict[int, requests.Session] = {}

    def request(
        self,
        method: str,
        file: File,
        action: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> requests.Response:
        """Send a request and return the successful answer, with its body not yet read.

        If the session has ended, it is renewed and the request is sent again, unless it has a body.
        Raises NotFound, DatastoreDenied, DatastoreUnavailable, or MaxRedirectsExceeded.
        """
        session = self.sessions.current()
        cookie = session.cookie(action)

        def send() -> requests.Response:
            response = self._follow(method, file, action, headers or {}, body, session.cookie)
            if 200 <= response.status_code < 300:
                _check_content(response, action)
                return response
            error = errors.refusal(response, action)
            read_out(response, action)
            raise error

        try:
            return send()
        except errors.SessionExpired:
            session.renew(cookie, action)
            if body is not None:
                raise
        try:
            return send()
        except errors.SessionExpired as exc:
            raise errors.DatastoreDenied(str(exc)) from None

    def _follow(
        self,
        method: str,
        file: File,
        action: str,
        headers: Mapping[str, str],
        body: Any,
        cookie_for: Callable[[str], str],
    ) -> requests.Response:
        """Send a request and follow redirects; other servers get no cookie."""
        url = self.settings.base_url + file.target
        origin = _origin(url)
        for _hop in range(MAX_REDIRECTS + 1):
            own = _origin(url) == origin
            cookie = {"Cookie": f"vmware_soap_session={cookie_for(action)}"} if own else {}
            response = self._send(method, url, action, {**headers, **cookie}, body)
            if response.status_code not in _REDIRECTS:
                return response
            with response:
                target = response.headers.get("Location", "")
            try:
                url = urllib.parse.urljoin(url, target)
                parts = urllib.parse.urlsplit(url)
            except ValueError:
                url, parts = "", urllib.parse.urlsplit("")
            if method not in _READING or not _origin(url)[0] or parts.username:
                raise errors.DatastoreError(
                    _(
                        "%(action)s: the server redirects the request to a place where it must "
                        "not go"
                    ),
                    action=action,
                )
            if parts.path.endswith("/"):
                raise exceptions.BadStoreUri(
                    _("%(action)s: it is a directory, not an image"), action=action
                )
        raise exceptions.MaxRedirectsExceeded(redirects=MAX_REDIRECTS)

    def _send(
        self, method: str, url: str, action: str, headers: Mapping[str, str], body: Any
    ) -> requests.Response:
        connections = self._connections()
        return errors.guarded(
            lambda: connections.request(
                method,
                url,
                headers={"Accept-Encoding": "identity", **headers},
                data=body,
                # On each request: otherwise REQUESTS_CA_BUNDLE would take precedence.
                verify=self.settings.verify,
                timeout=self.settings.limits,
                allow_redirects=False,
                stream=True,
            ),
            action,
        )

    def _connections(self) -> requests.Session:
        pid = os.getpid()
        found = self._by_process.get(pid)
        if found is None:
            made = _Connections()
            # No cookies of its own: `_follow` adds the session's where it belongs.
            made.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
            prepare(made, self.settings.read_timeout)
            found = self._by_process.setdefault(pid, made)
        return found

    def size(self, file: File, action: str) -> tuple[int, Mapping[str, str]]:
        """Return the size of a file, and the headers of the answer.

        Raises NotFound, and NoResult if the server does not tell the size.
        """
        for method, headers in _SIZE_REQUESTS:
            try:
                response = self.request(method, file, action, headers)
            except errors.MethodRefused:
                continue
            length = response.headers.get("Content-Length", "")
            if headers:
                length = response.headers.get("Content-Range", "").rpartition("/")[2].strip()
            # Do not read the image: close the connection.
            read_out(response, action) if method == "HEAD" else response.close()
            if length.isdecimal():
                return int(length), response.headers
        raise NoResult(_("%(action)s: the server does not tell its size"), action=action)


class _Connections(requests.Session):
    """A session that leaves redirects to its caller: requests fails on some addresses."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None, so that requests follows no redirect."""


def _check_content(response: requests.Response, action: str) -> None:
    """Raise NoResult if a successful answer is an HTML page or compressed."""
    reading = response.request.method in _READING
    page = response.headers.get("Content-Type", "").lower().startswith("text/html")
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if reading and (page or coding not in ("", "identity")):
        response.close()
        raise NoResult(
            _("%(action)s: the answer is not the file but %(content)s"),
            action=action,
            content=_("an HTML page") if page else _("a compressed form of it"),
        )


def read_out(response: requests.Response, action: str) -> None:
    """Read the short rest of an answer, so that its connection can be reused."""
    length = response.headers.get("Content-Length", "")
    if response.request.method == "HEAD" or (length.isdecimal() and int(length) <= _SHORT):
        errors.guarded(lambda: response.content, action)
    response.close()


def _origin(url: str) -> tuple[str, int]:
    """Return host and port of an https URL; the host is empty for any other URL."""
    try:
        parts = urllib.parse.urlsplit(url)
        return (parts.hostname or "") if parts.scheme == "https" else "", parts.port or 443
    except ValueError:
        return "", 0
