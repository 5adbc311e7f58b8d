# SPDX-License-Identifier: Apache-2.0
"""Sends a request to a web server and follows its redirects."""

from __future__ import annotations

import functools
import logging
import re
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

import requests
import requests.auth
import requests.cookies

from glance_store import exceptions
from glance_store._drivers.http.errors import (
    RedirectsTooOften,
    ServerInTrouble,
    broke_before_answer,
    guarded,
)
from glance_store._drivers.http.location import StoreLocation
from glance_store._drivers.http.session import Sessions, Settings
from glance_store.i18n import _
from glance_store.location import normalized
from glance_store.transfer.retry import PASSING, seconds_asked

LOG = logging.getLogger(__name__)

MAX_REDIRECTS = 5

_FOLLOWED = (301, 302)
_LONGEST_REASON = 80
_ABSOLUTE = re.compile("[a-z]+://", re.IGNORECASE)


class UnansweredError(Exception):
    """The server closed the connection or stayed silent instead of responding to HEAD."""


class Answer(NamedTuple):
    """A response, and the server and file that it came from after all redirects."""

    response: requests.Response
    server: StoreLocation


class Client:
    """Sends a store's requests to web servers."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self.settings = settings
        self._sessions = sessions

    def fetch(
        self,
        method: str,
        location: StoreLocation,
        headers: Mapping[str, str],
        action: str,
        unreachable: type[exceptions.GlanceStoreException] = exceptions.RemoteServiceUnavailable,
        start: StoreLocation | None = None,
    ) -> Answer:
        """Send a request and follow redirects; the caller closes the response, its body unread.

        `action` says for errors what is being tried, without secrets. `start` is where an earlier
        request was redirected to. UnansweredError: HEAD got no response, GET may get one.
        """
        cookies = requests.cookies.RequestsCookieJar()
        current = start or location
        for _hop in range(MAX_REDIRECTS + 1):
            auth = _credentials(location, current)
            send = functools.partial(self._send, method, current, auth, headers, cookies)
            response = guarded(send, action, unreachable)
            if response.status_code not in _FOLLOWED:
                return Answer(response, current)
            try:
                target = _target(current, response)
            finally:
                response.close()
            if (current.scheme, target.scheme) == ("https", "http"):
                LOG.warning(
                    "The image at %s is read without encryption: the server redirects to %s. "
                    "Register an https location to protect it",
                    location.shown,
                    target.shown,
                )
            current = target
        raise RedirectsTooOften(redirects=MAX_REDIRECTS)

    def _send(
        self,
        method: str,
        location: StoreLocation,
        auth: requests.auth.AuthBase | None,
        headers: Mapping[str, str],
        cookies: requests.cookies.RequestsCookieJar,
    ) -> requests.Response:
        send = functools.partial(
            self._sessions.send, method, location, headers, auth, cookies, self.settings
        )
        try:
            return send()
        except requests.ReadTimeout:
            if method == "HEAD":
                raise UnansweredError from None
            raise
        except requests.ConnectionError as exc:
            if not broke_before_answer(exc):
                raise
            if method == "HEAD":
                raise UnansweredError from None
            # A server may close an idle connection just as it is used again.
            return send()


def _credentials(location: StoreLocation, hop: StoreLocation) -> requests.auth.AuthBase | None:
    """Return a hop's own credentials, or the location's for the same server."""
    owner = hop
    if hop.user is None and hop is not location and _is_same_server(location, hop):
        owner = location
    if owner.user is None:
        return None
    # As bytes: the percent-encoding may stand for any character set.
    return requests.auth.HTTPBasicAuth(
        urllib.parse.unquote_to_bytes(owner.user),
        urllib.parse.unquote_to_bytes(owner.password or ""),
    )


def _is_same_server(location: StoreLocation, hop: StoreLocation) -> bool:
    (scheme, host, port), (new_scheme, new_host, new_port) = location.origin, hop.origin
    if (scheme, port, new_scheme, new_port) == ("http", 80, "https", 443):
        # The usual upgrade to https.
        return host == new_host
    return (scheme, host, port) == (new_scheme, new_host, new_port)


def _target(current: StoreLocation, response: requests.Response) -> StoreLocation:
    """Return where a redirect leads; BadStoreUri if not to a web server."""
    text = response.headers.get("Location")
    if not text:
        raise exceptions.BadStoreUri(
            _("The web server redirects %(uri)s (status %(status)d) without saying where to"),
            uri=current.shown,
            status=response.status_code,
        )
    target = StoreLocation({}, None)
    try:
        # Servers send UTF-8; http.client decodes headers as Latin-1.
        text = text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        LOG.debug("The redirect from %s is not in UTF-8", current.shown)
    try:
        # Keep an absolute target as it stands: urljoin() would rewrite it.
        absolute = _ABSOLUTE.match(text) is not None
        text = text if absolute else urllib.parse.urljoin(current.url, text)
        target.parse_uri(normalized(text))
        problem = None
    except exceptions.BadStoreUri as exc:
        problem = str(exc.msg)
    except ValueError:
        problem = str(_("its host part cannot be parsed"))
    if problem is not None:
        raise exceptions.BadStoreUri(
            _("The web server redirects %(uri)s to an unusable address: %(problem)s"),
            uri=current.shown,
            problem=problem,
        )
    return target


def refusal(
    response: requests.Response, location: StoreLocation
) -> exceptions.GlanceStoreException:
    """Return the error for a response without the image, ready to raise."""
    status = response.status_code
    if status == 404:
        return exceptions.NotFound(
            _("Image %(image)s not found: the web server has no such file (status 404)"),
            image=location.shown,
        )
    reason = "".join(char for char in response.reason or "" if char.isprintable())
    answer = f"{status} {reason[:_LONGEST_REASON]}".rstrip()
    if status in PASSING:
        trouble = ServerInTrouble(
            _("The web server answered '%(answer)s' for %(uri)s"),
            answer=answer,
            uri=location.shown,
        )
        trouble.retry_after = seconds_asked(
            response.headers.get("Retry-After"), response.headers.get("Date")
        )
        return trouble
    if status == 407:
        return exceptions.BadStoreUri(
            _(
                "The proxy answered '%(answer)s' for %(uri)s: http_proxy_information must have its "
                "user and password"
            ),
            answer=answer,
            uri=location.shown,
        )
    if 300 <= status < 400:
        return exceptions.BadStoreUri(
            _(
                "The web server answered '%(answer)s' for %(uri)s: only the redirects 301 and "
                "302 are followed; register the address it redirects to"
            ),
            answer=answer,
            uri=location.shown,
        )
    return exceptions.BadStoreUri(
        _(
            "The web server answered '%(answer)s' for %(uri)s: check the location and whether this "
            "host may read it"
        ),
        answer=answer,
        uri=location.shown,
    )
