# SPDX-License-Identifier: Apache-2.0
"""Connections to web servers: what leaves on them, what is taken for an answer, and to whom."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import http.client
import io
import logging
import os
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests
import requests.adapters
import requests.auth
import requests.cookies
import requests.utils
import urllib3
import urllib3.exceptions
import urllib3.util

from glance_store._drivers.http.headers import chunk_size, read_head
from glance_store._drivers.http.location import StoreLocation
from glance_store._drivers.http.targets import Hosts, TargetFilter

LOG = logging.getLogger(__name__)

# Idle connections kept for each server, enough for the threads of a busy service.
_POOL_SIZE = 64
_UNCONNECTED = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that every request obeys."""

    # What requests takes: True, False, or the path of a file of authorities.
    verify: bool | str
    proxies: dict[str, str]
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    patience: float  # seconds
    targets: TargetFilter

    @classmethod
    def of(cls, store_conf: Any) -> Settings:
        """Return the settings of a store.

        :param store_conf: its options as attributes
        """
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
            patience=store_conf.http_store_retry_timeout,
            targets=TargetFilter(
                Hosts.of(store_conf.http_store_allowed_hosts),
                Hosts.of(store_conf.http_store_disallowed_hosts),
                frozenset(store_conf.http_store_allowed_ports),
                frozenset(store_conf.http_store_disallowed_ports),
            ),
        )

    def proxies_for(self, url: str) -> dict[str, str]:
        """Return the proxies for a URL, in the form that requests takes.

        A scheme without a proxy in the options has the one of the environment, as ever
        (``http_proxy``, ``https_proxy``, ``no_proxy``).

        :param url: where the request goes
        :raises requests.exceptions.InvalidProxyURL: the proxy in the options has no valid address
        """
        proxy = requests.utils.select_proxy(url, self.proxies)
        if not proxy:
            return requests.utils.get_environ_proxies(url)
        if not is_proxy(proxy):
            # Further down it could not be told from a wrong URL of the image.
            raise requests.exceptions.InvalidProxyURL
        return self.proxies


def check_authorities(path: str) -> None:
    """Load the certificates of authorities, to see whether that is possible.

    :param path: of a file, or of a directory in OpenSSL's form
    :raises OSError: it is not there, not readable, or contains no certificate
    """
    kind = "capath" if os.path.isdir(path) else "cafile"
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(**{kind: path})


def is_proxy(address: str) -> bool:
    """Tell whether an address is the URL of a proxy.

    :param address: such as ``http://user:password@10.0.0.1:3128``
    """
    try:
        parts = urllib3.util.parse_url(address)
    except urllib3.exceptions.LocationParseError:
        return False
    return bool(parts.host) and parts.scheme in _PROXY_SCHEMES


class Sessions:
    """The connections of a store, kept for the next request, in each process its own.

    A forked child makes its own and leaves alone what it has inherited: two processes on one
    connection would get parts of each other's answers.
    """

    def __init__(self) -> None:
        self._by_process: dict[int, _Adapter] = {}

    def send(
        self,
        method: str,
        place: StoreLocation,
        headers: Mapping[str, str],
        auth: requests.auth.AuthBase | None,
        cookies: requests.cookies.RequestsCookieJar,
        settings: Settings,
    ) -> requests.Response:
        """Send a request, without following redirects.

        :param method: ``GET`` or ``HEAD``
        :param place: where to
        :param headers: beside the usual ones
        :param auth: puts the credentials into the request
        :param cookies: to send, and to add those of the answer to
        :param settings: the store's options
        :returns: the answer, with the body not yet read
        :raises BadStoreUri: the operator does not allow the server
        """
        # The real target is for the connection alone: requests and urllib3 would change it, and
        # quote it in log lines and errors.
        request = requests.Request(
            method, place.shown, headers={**_headers(), **headers}, auth=auth, cookies=cookies
        ).prepare()
        proxies = settings.proxies_for(place.shown)
        proxied = bool(requests.utils.select_proxy(place.shown, proxies))
        if settings.targets:
            # The host as it will be looked up: in ASCII.
            host = urllib.parse.urlsplit(request.url or "").hostname or ""
            settings.targets.check(host, place.origin[2], place.shown, proxied)
        targets = settings.targets if settings.targets and not proxied else None
        token = _EXCHANGE.set(_Exchange(place, targets))
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

    def current(self) -> requests.adapters.HTTPAdapter:
        """Return the adapter of this process, with its connections."""
        # No lock: one that is held while another thread forks stays locked in the child for ever.
        # setdefault is atomic; an adapter too many has no connection yet and costs nothing.
        pid = os.getpid()
        adapter = self._by_process.get(pid)
        if adapter is None:
            adapter = self._by_process.setdefault(pid, _Adapter(pool_maxsize=_POOL_SIZE))
        return adapter


def _headers() -> dict[str, str]:
    # Images are stored bytes: a length that counts something else would be of no use.
    return {**requests.utils.default_headers(), "Accept-Encoding": "identity"}


class _Exchange(NamedTuple):
    """What a connection has to know about the request that it is used for."""

    place: StoreLocation
    targets: TargetFilter | None  # None: connect to whatever is found


_EXCHANGE: contextvars.ContextVar[_Exchange] = contextvars.ContextVar("http_exchange")


class _Adapter(requests.adapters.HTTPAdapter):
    """An adapter whose connections are those below, with a proxy or without."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _adapt(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return _adapt(super().proxy_manager_for(*args, **kwargs))


def _adapt(manager: Any) -> Any:
    manager.pool_classes_by_scheme = {
        scheme: _pool_of(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }
    return manager


@functools.cache
def _pool_of(pool: Any) -> Any:
    """Return a class of pools like another one, but with our connections."""
    base = pool.ConnectionCls
    if issubclass(base, _Connection):
        return pool
    connection = type(base.__name__, (_Connection, base), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _Response(http.client.HTTPResponse):
    """An answer whose head is read to its end, and whose body has a framing that is understood."""

    def begin(self) -> None:
        stream = self.fp
        head = read_head(stream)
        self.fp = io.BufferedReader(io.BytesIO(head.text))
        try:
            super().begin()
        finally:
            self.fp = stream
        if head.damaged:
            self._tolerate_damage()
        codings = ",".join(self.headers.get_all("Transfer-Encoding", [])).lower().split(",")
        codings = [coding.strip() for coding in codings if coding.strip() not in ("", "identity")]
        if codings != ["chunked"] * self.chunked:
            raise http.client.HTTPException("a transfer encoding that is not understood")

    def _read_next_chunk_size(self) -> int:
        # The base class reads a size that breaks off after its first digits for a smaller one, and
        # a negative one for everything that comes. The ValueError it takes for a connection that
        # has ended.
        return chunk_size(self.fp)

    def _tolerate_damage(self) -> None:
        """Go on although a header was not understood, unless it may have been the length."""
        if self.length is None and not self.chunked:
            raise http.client.HTTPException("a malformed header, and no length")
        LOG.warning(
            "The web server of %s sends a header line that is not valid HTTP; it is ignored",
            _EXCHANGE.get().place.shown,
        )


class _Connection:
    """Mixed into the connections of urllib3."""

    response_class = _Response
    port: int
    _dns_host: str  # what urllib3 connects to; `host` is what it verifies

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Begin a request, with the target as it stands in the location."""
        target = _EXCHANGE.get().place.target
        if not url.startswith("/"):
            # A proxy gets the whole address.
            parts = urllib.parse.urlsplit(url)
            target = f"{parts.scheme}://{parts.netloc}{target}"
        super().putrequest(method, target, *args, **kwargs)  # type: ignore[misc]

    def connect(self) -> None:
        """Connect."""
        super().connect()  # type: ignore[misc]
        # Otherwise urllib3 warns at each request to a server that is not verified. The operator is
        # told once, and the process keeps its warning filters.
        self.is_verified = self.proxy_is_verified = True

    def _new_conn(self) -> Any:
        """Return a socket to an address that the operator allows."""
        place, targets = _EXCHANGE.get()
        connect = super()._new_conn  # type: ignore[misc]
        if targets is None:
            return connect()
        name = self._dns_host
        try:
            addresses = targets.addresses(name, self.port, place.shown)
        except OSError as exc:
            connection: Any = self
            raise urllib3.exceptions.NewConnectionError(connection, "look-up failed") from exc
        try:
            # To the address that was checked: a second look-up could find another one.
            for self._dns_host in addresses[:-1]:
                try:
                    return connect()
                except _UNCONNECTED:
                    LOG.debug("One of several addresses of %s cannot be reached", name)
            self._dns_host = addresses[-1]
            return connect()
        finally:
            self._dns_host = name
