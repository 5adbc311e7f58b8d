# SPDX-License-Identifier: Apache-2.0
"""Connections to web servers: what is sent, to whom, and what counts as a response."""

from __future__ import annotations

import contextvars
import dataclasses
import http.client
import logging
import os
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests
import requests.auth
import requests.cookies
import requests.utils
import urllib3
import urllib3.exceptions
import urllib3.util

from glance_store._drivers._head import Response
from glance_store._drivers._patience import Adapter, ProbedConnection
from glance_store._drivers.http.headers import chunk_size
from glance_store._drivers.http.location import StoreLocation
from glance_store._drivers.http.targets import Hosts, TargetFilter

LOG = logging.getLogger(__name__)

_UNCONNECTED = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that apply to every request."""

    # As requests takes it: True, False, or the path of a CA file.
    verify: bool | str
    proxies: dict[str, str]
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    retry_timeout: float  # seconds
    targets: TargetFilter

    @classmethod
    def of(cls, store_conf: Any) -> Settings:
        """Read the settings from a store's options."""
        verify: bool | str = store_conf.https_ca_certificates_file or not store_conf.https_insecure
        if verify is True:
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            verify = bundle or True
        return cls(
            verify=verify,
            proxies={
                scheme.lower(): proxy if "://" in proxy else f"http://{proxy}"
                for scheme, proxy in (store_conf.http_proxy_information or {}).items()
                if proxy
            },
            connect_timeout=store_conf.http_store_connect_timeout,
            read_timeout=store_conf.http_store_read_timeout,
            retry_timeout=store_conf.http_store_retry_timeout,
            targets=TargetFilter(
                Hosts.of(store_conf.http_store_allowed_hosts),
                Hosts.of(store_conf.http_store_disallowed_hosts),
                frozenset(store_conf.http_store_allowed_ports),
                frozenset(store_conf.http_store_disallowed_ports),
            ),
        )

    def proxies_for(self, url: str) -> dict[str, str]:
        """Return the proxies for a URL, in the form that requests takes.

        A scheme without a configured proxy uses the environment's (``http_proxy``, ``https_proxy``,
        ``no_proxy``). Raises InvalidProxyURL when the configured one is malformed.
        """
        proxy = requests.utils.select_proxy(url, self.proxies)
        if not proxy:
            return requests.utils.get_environ_proxies(url)
        if not is_proxy(proxy):
            # Raised here: later it would look like a malformed image URL.
            raise requests.exceptions.InvalidProxyURL
        return self.proxies


def is_proxy(address: str) -> bool:
    """Tell whether an address is a proxy URL, such as ``http://user:password@10.0.0.1:3128``."""
    try:
        parts = urllib3.util.parse_url(address)
    except urllib3.exceptions.LocationParseError:
        return False
    return bool(parts.host) and parts.scheme in _PROXY_SCHEMES


class Sessions:
    """A store's connections, kept for later requests; each process has its own.

    A forked child opens new ones: two processes on one connection would get parts of each other's
    responses.
    """

    def __init__(self) -> None:
        self._by_process: dict[int, Adapter] = {}

    def send(
        self,
        method: str,
        location: StoreLocation,
        headers: Mapping[str, str],
        auth: requests.auth.AuthBase | None,
        cookies: requests.cookies.RequestsCookieJar,
        settings: Settings,
    ) -> requests.Response:
        """Send one request and return the response, its body unread. Redirects are not followed."""
        # Only the connection sees the real target: requests and urllib3 would alter it, and quote
        # it in log lines and errors.
        request = requests.Request(
            method, location.shown, headers={**_headers(), **headers}, auth=auth, cookies=cookies
        ).prepare()
        proxies = settings.proxies_for(location.shown)
        proxied = bool(requests.utils.select_proxy(location.shown, proxies))
        if settings.targets:
            # The host as it will be resolved: in ASCII.
            host = urllib.parse.urlsplit(request.url or "").hostname or ""
            settings.targets.check(host, location.origin[2], location.shown, proxied)
        targets = settings.targets if settings.targets and not proxied else None
        token = _EXCHANGE.set(_Exchange(location, targets))
        try:
            response = self.current().send(
                request,
                stream=True,
                timeout=(settings.connect_timeout, settings.read_timeout),
                verify=settings.verify,
                proxies=proxies,
            )
        finally:
            _EXCHANGE.reset(token)
        cookies.update(response.cookies)
        return response

    def current(self) -> Adapter:
        """Return this process's adapter, which holds its connections."""
        # No lock: held while another thread forks, it would stay locked in the child. setdefault()
        # is atomic, and a surplus adapter costs nothing: it has no connection yet.
        pid = os.getpid()
        adapter = self._by_process.get(pid)
        if adapter is None:
            adapter = self._by_process.setdefault(pid, Adapter(_Connection))
        return adapter


def _headers() -> dict[str, str]:
    # The image is the stored bytes: an encoded response would have another length.
    return {**requests.utils.default_headers(), "Accept-Encoding": "identity"}


class _Exchange(NamedTuple):
    """What a connection needs to know about the request it carries."""

    location: StoreLocation
    targets: TargetFilter | None  # None: connect to any address


_EXCHANGE: contextvars.ContextVar[_Exchange] = contextvars.ContextVar("http_exchange")


class _Response(Response):
    """A response with a complete head and a body whose framing is understood."""

    def begin(self) -> None:
        super().begin()
        if self.damaged:
            self._tolerate_damage()
        codings = ",".join(self.headers.get_all("Transfer-Encoding", [])).lower().split(",")
        codings = [coding.strip() for coding in codings if coding.strip() not in ("", "identity")]
        if codings != ["chunked"] * self.chunked:
            raise http.client.HTTPException("unknown transfer encoding")

    def _read_next_chunk_size(self) -> int:
        # The base class takes a truncated size for a smaller one, and a negative one for "read to
        # the end". It treats the ValueError as a closed connection.
        return chunk_size(self.fp)

    def _tolerate_damage(self) -> None:
        """Go on despite a malformed header line, unless it may have been the length."""
        if self.length is None and not self.chunked:
            raise http.client.HTTPException("malformed header line and no length")
        LOG.warning(
            "The web server of %s sent a header line that is not valid HTTP; it is ignored",
            _EXCHANGE.get().location.shown,
        )


class _Connection(ProbedConnection):
    """Mixin for urllib3's connections."""

    response_class = _Response
    port: int
    _dns_host: str  # what urllib3 connects to; `host` is what it verifies

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Begin a request with the target exactly as the location has it."""
        target = _EXCHANGE.get().location.target
        if not url.startswith("/"):
            # A proxy needs the absolute URL.
            parts = urllib.parse.urlsplit(url)
            target = f"{parts.scheme}://{parts.netloc}{target}"
        super().putrequest(method, target, *args, **kwargs)  # type: ignore[misc]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        # Otherwise urllib3 warns at each unverified request. The store warns the operator once, and
        # leaves the warning filters of the process alone.
        self.is_verified = self.proxy_is_verified = True

    def _new_conn(self) -> Any:
        """Connect to an address that the operator allows."""
        location, targets = _EXCHANGE.get()
        connect = super()._new_conn
        if targets is None:
            return connect()
        name = self._dns_host
        try:
            addresses = targets.addresses(name, self.port, location.shown)
        except OSError as exc:
            connection: Any = self
            raise urllib3.exceptions.NewConnectionError(connection, "lookup failed") from exc
        try:
            # Connect to the checked address: a second lookup could return another one.
            for self._dns_host in addresses[:-1]:
                try:
                    return connect()
                except _UNCONNECTED:
                    LOG.debug("One of several addresses of %s cannot be reached", name)
            self._dns_host = addresses[-1]
            return connect()
        finally:
            self._dns_host = name
