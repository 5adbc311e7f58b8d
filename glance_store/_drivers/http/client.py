# SPDX-License-Identifier: Apache-2.0
"""One request to a web server, followed through its redirects."""

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

from glance_store import exceptions, location
from glance_store._drivers.http.errors import broke_before_answer, guarded
from glance_store._drivers.http.location import StoreLocation
from glance_store._drivers.http.session import Sessions, Settings
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

MAX_REDIRECTS = 5

_FOLLOWED = (301, 302)
_LONGEST_REASON = 80
_ABSOLUTE = re.compile("[a-z]+://", re.IGNORECASE)


class UnansweredError(Exception):
    """The server has ended the connection instead of answering HEAD."""


class Answer(NamedTuple):
    """An answer, and the server and file that it is from, after all redirects."""

    response: requests.Response
    server: StoreLocation


class Client:
    """Asks web servers on behalf of a store.

    :param sessions: the store's connections
    :param settings: the store's options
    """

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self.settings = settings
        self._sessions = sessions

    def fetch(
        self,
        method: str,
        place: StoreLocation,
        headers: Mapping[str, str],
        action: str,
        unreachable: type[exceptions.GlanceStoreException] = exceptions.RemoteServiceUnavailable,
        start: StoreLocation | None = None,
    ) -> Answer:
        """Send a request and follow redirects.

        :param method: ``GET`` or ``HEAD``
        :param place: where to
        :param headers: of the request
        :param action: what is tried, in words without secrets, for errors
        :param unreachable: class of the error when a server cannot be reached
        :param start: where an earlier request was redirected to, to ask there at once
        :returns: the first answer that is no redirect, whatever its status, with the body not yet
            read, which the caller closes; and where it comes from
        :raises BadStoreUri: a redirect leads nowhere, or the operator does not allow a server
        :raises MaxRedirectsExceeded: there are more than `MAX_REDIRECTS` of them
        :raises UnansweredError: GET may be answered where HEAD is not
        """
        cookies = requests.cookies.RequestsCookieJar()
        current = start or place
        for _hop in range(MAX_REDIRECTS + 1):
            auth = _credentials(place, current)
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
                    place.shown,
                    target.shown,
                )
            current = target
        raise exceptions.MaxRedirectsExceeded(redirects=MAX_REDIRECTS)

    def _send(
        self,
        method: str,
        place: StoreLocation,
        auth: requests.auth.AuthBase | None,
        headers: Mapping[str, str],
        cookies: requests.cookies.RequestsCookieJar,
    ) -> requests.Response:
        send = functools.partial(
            self._sessions.send, method, place, headers, auth, cookies, self.settings
        )
        try:
            return send()
        except requests.ConnectionError as exc:
            if not broke_before_answer(exc):
                raise
            if method == "HEAD":
                raise UnansweredError from None
            # A server may close an idle connection in the moment that it is used again.
            return send()


def _credentials(place: StoreLocation, hop: StoreLocation) -> requests.auth.AuthBase | None:
    """Return the credentials for a hop: its own, or those of the location for the same server."""
    owner = hop
    if hop.user is None and hop is not place and _is_same_server(place, hop):
        owner = place
    if owner.user is None:
        return None
    # As bytes: the octets that the percent-encoding stands for, whatever their character set.
    return requests.auth.HTTPBasicAuth(
        urllib.parse.unquote_to_bytes(owner.user),
        urllib.parse.unquote_to_bytes(owner.password or ""),
    )


def _is_same_server(place: StoreLocation, hop: StoreLocation) -> bool:
    (scheme, host, port), (new_scheme, new_host, new_port) = place.origin, hop.origin
    if (scheme, port, new_scheme, new_port) == ("http", 80, "https", 443):
        # The usual step up to encryption.
        return host == new_host
    return (scheme, host, port) == (new_scheme, new_host, new_port)


def _target(current: StoreLocation, response: requests.Response) -> StoreLocation:
    """Return where a redirect leads.

    :raises BadStoreUri: it does not say, or not to a web server
    """
    text = response.headers.get("Location")
    if not text:
        raise exceptions.BadStoreUri(
            _("The server redirects %(uri)s (status %(status)d) without saying where to"),
            uri=current.shown,
            status=response.status_code,
        )
    target = StoreLocation({}, None)
    try:
        # Servers send UTF-8; Python's library hands headers out as Latin-1.
        text = text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        LOG.debug("The redirect of %s is not in UTF-8", current.shown)
    try:
        # What is absolute already is taken as it stands: urljoin() would write it anew.
        absolute = _ABSOLUTE.match(text) is not None
        text = text if absolute else urllib.parse.urljoin(current.url, text)
        target.parse_uri(location.normalized(text))
        problem = None
    except exceptions.BadStoreUri as exc:
        problem = str(exc.msg)
    except ValueError:
        problem = str(_("its host part cannot be parsed"))
    if problem is not None:
        raise exceptions.BadStoreUri(
            _("The server redirects %(uri)s to an address that cannot be used: %(problem)s"),
            uri=current.shown,
            problem=problem,
        )
    return target


def refusal(response: requests.Response, place: StoreLocation) -> exceptions.GlanceStoreException:
    """Return the error for an answer without the image, ready to raise.

    :param response: the answer
    :param place: what was asked for
    """
    status = response.status_code
    if status == 404:
        return exceptions.NotFound(
            _("Image %(image)s not found: the web server has no such file (status 404)"),
            image=place.shown,
        )
    reason = "".join(char for char in response.reason or "" if char.isprintable())
    answer = f"{status} {reason[:_LONGEST_REASON]}".rstrip()
    if 300 <= status < 400:
        return exceptions.BadStoreUri(
            _(
                "The web server answered '%(answer)s' for %(uri)s: only the redirects 301 and 302 "
                "are followed; register the address that it redirects to"
            ),
            answer=answer,
            uri=place.shown,
        )
    return exceptions.BadStoreUri(
        _(
            "The web server answered '%(answer)s' for %(uri)s: check the location and whether this "
            "host may read it"
        ),
        answer=answer,
        uri=place.shown,
    )
