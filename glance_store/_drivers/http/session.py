# SPDX-License-Identifier: Apache-2.0
"""Connections to web servers: pools, proxies, certificates, and no secret in a log."""

from __future__ import annotations

import dataclasses
import http.client
import http.cookiejar
import os
import ssl
from typing import Any

import requests
import requests.adapters
import requests.cookies
import requests.utils
import urllib3
import urllib3.connection
import urllib3.exceptions
import urllib3.util

# Idle connections kept for each server, enough for the threads of a busy service.
_POOL_SIZE = 64
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that every request obeys."""

    # What requests takes: True, False, or the path of a file of authorities.
    verify: bool | str
    proxies: dict[str, str]
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    retries: int

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
                scheme: proxy if "://" in proxy else f"http://{proxy}"
                for scheme, proxy in (store_conf.http_proxy_information or {}).items()
                if proxy
            },
            connect_timeout=store_conf.http_store_connect_timeout,
            read_timeout=store_conf.http_store_read_timeout,
            retries=store_conf.http_store_retries,
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
    """The session of a store, one in each process.

    A session is made when it is first needed. A forked child makes its own and leaves alone what
    it has inherited: two processes on one connection would get parts of each other's answers.
    """

    def __init__(self) -> None:
        self._by_process: dict[int, requests.Session] = {}

    def current(self) -> requests.Session:
        """Return the session of this process."""
        # No lock: one that is held while another thread forks stays locked in the child for ever.
        # setdefault is atomic; a session too many has no connection yet and costs nothing.
        pid = os.getpid()
        session = self._by_process.get(pid)
        if session is None:
            session = self._by_process.setdefault(pid, _new_session())
        return session


class _Session(requests.Session):
    """A session that leaves redirects alone."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # Even when it is told not to follow, requests reads the whole body of a redirect, however
        # long, and parses its target, with errors of its own.
        return None


def _new_session() -> requests.Session:
    session = _Session()
    # Otherwise requests lets the environment overrule proxies and certificates of the options,
    # and sends passwords of a ~/.netrc that nobody meant for images.
    session.trust_env = False
    # Cookies belong to one download, not to everyone who reads through this store.
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    for prefix in ("http://", "https://"):
        session.mount(prefix, _Adapter(pool_maxsize=_POOL_SIZE))
    # Images are stored bytes: a length that counts something else would be of no use.
    session.headers["Accept-Encoding"] = "identity"
    return session


class _Adapter(requests.adapters.HTTPAdapter):
    """An adapter whose pools are the ones below."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        # The pools of a SOCKS proxy are of a kind of their own.
        if isinstance(manager, urllib3.ProxyManager):
            manager.pool_classes_by_scheme = _POOLS
        return manager


class _LoggedTarget(str):
    """A request target as urllib3 may log it, and as the attribute `target` the real one."""

    target: str


def _without_query(target: str) -> _LoggedTarget:
    # urllib3 logs the target of each request, and a query may hold a token.
    path, question, _query = target.partition("?")
    logged = _LoggedTarget(path + ("?***" if question else ""))
    logged.target = target
    return logged


def _real(target: str) -> str:
    return target.target if isinstance(target, _LoggedTarget) else target


class _Head:
    """The lines before a body, which have to end with an empty one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) != limit:
            raise http.client.RemoteDisconnected("the connection ended in the head of the answer")
        return line

    def close(self) -> None:
        self._stream.close()


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        # The base class takes a connection that ends among the headers for the end of the headers:
        # without a Content-Length, or with half of its digits, an image would look shorter.
        stream, self.fp = self.fp, _Head(self.fp)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            self.fp = stream


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Response

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        super().putrequest(method, _real(url), *args, **kwargs)


class _TLSConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        super().putrequest(method, _real(url), *args, **kwargs)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection

    def _make_request(self, conn: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        return super()._make_request(conn, method, _without_query(url), *args, **kwargs)


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection

    def _make_request(self, conn: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        return super()._make_request(conn, method, _without_query(url), *args, **kwargs)

    def _validate_conn(self, conn: Any) -> None:
        # The inherited method connects, too, and then warns at each request to a server that is not
        # verified. The operator is told once, and the process keeps its warning filters.
        if getattr(conn, "sock", None) is None:
            conn.connect()


_POOLS: dict[str, Any] = {"http": _Pool, "https": _TLSPool}
