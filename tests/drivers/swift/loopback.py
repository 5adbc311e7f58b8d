# SPDX-License-Identifier: Apache-2.0
"""A little Swift with a little Keystone on loopback, which do what no real ones can be made to do.

It knows as much of both as the driver needs. A rule stands between a request and what becomes of
it: it may answer itself, change the answer, or wait.
"""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import socket
import threading
import types
import urllib.parse
from collections.abc import Callable

# Bound here: tests count what the driver computes.
from hashlib import md5
from typing import TYPE_CHECKING, Any

import swiftclient
from oslo_config import cfg

from glance_store._drivers import swift
from glance_store._drivers.swift.client import Client, Connections, Settings

if TYPE_CHECKING:
    from glance_store._drivers.swift import BaseStore

ACCOUNT = "/v1/AUTH_x"
CONTAINER = "images"
_PART = 256 * 1024
IDLE = 5.0  # seconds after which an idle connection is closed
INFO = {"swift": {"container_listing_limit": 10_000, "max_file_size": 5 * 1024**3}, "slo": {}}


@dataclasses.dataclass
class Answer:
    """What the server sends; status 0: the connection ends without an answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    length: str | None = ""  # Content-Length; empty: that of the body; None: there is none
    silent: threading.Event | None = None  # what the end of the body waits for
    # Called with the bytes of each part of the body, before it is sent.
    pace: Callable[[int], object] | None = None


class Seen:
    """A request as the server got it."""

    def __init__(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.method: str = handler.command
        path, _mark, query = handler.path.partition("?")
        self.path = urllib.parse.unquote(path)
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self._file = handler.rfile
        self.chunked = self.headers.get("transfer-encoding") == "chunked"
        self.left = int(self.headers.get("content-length", 0))
        self._got = b""

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}>"

    @property
    def name(self) -> str:
        """Container and object, without the account."""
        return self.path.removeprefix(ACCOUNT).lstrip("/")

    @property
    def token(self) -> str:
        """The token that it was sent with."""
        return self.headers.get("x-auth-token", "")

    def read(self, length: int) -> bytes:
        """Take a part of the body."""
        data = self._file.read(min(length, self.left))
        self.left -= len(data)
        self._got += data
        return data

    @property
    def body(self) -> bytes:
        """The whole body, as far as it comes."""
        if self.chunked:
            while size := int(self._file.readline() or b"0", 16):
                self._got += self._file.read(size)
                self._file.readline()
            self._file.readline()
            self.chunked = False
        self.read(self.left)
        return self._got


@dataclasses.dataclass
class Stored:
    """An object."""

    data: bytes
    headers: dict[str, str]
    entries: list[dict[str, Any]] | None = None  # of a static large object

    @functools.cached_property
    def digest(self) -> str:
        """The MD5 of the data."""
        return md5(self.data).hexdigest()


Act = Callable[[], Answer]
Rule = Callable[[Seen, Act], Answer]


class LittleSwift(http.server.ThreadingHTTPServer):
    """A cluster, and the identity service of it; use it as a context manager."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Stored] = {}
        self.containers = {CONTAINER}
        self.requests: list[Seen] = []
        self.rule: Rule | None = None
        self.info: dict[str, Any] | None = INFO
        self.hint = b""  # precedes each answer
        self.hidden: set[str] = set()  # objects that listings lack
        # Of the identity service.
        self.logins: list[dict[str, Any]] = []
        self.passwords: dict[str, str] = {}  # by user; an unknown user has every one
        self.project: str | None = "project"
        self._tokens = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> LittleSwift:  # noqa: PYI034 - typing.Self came with Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """Address of the account."""
        return f"http://{self.address}{ACCOUNT}"

    @property
    def auth_url(self) -> str:
        """Address of the identity service."""
        return f"http://{self.address}/v3"

    def of(self, method: str, ending: str = "") -> list[Seen]:
        """Return the requests of a kind.

        :param ending: of the path
        """
        return [
            seen
            for seen in self.requests
            if (seen.method, seen.path.endswith(ending)) == (method, True)
        ]

    def names(self) -> list[str]:
        """Return the objects that are there, with their containers."""
        return sorted(self.objects)

    def data(self, name: str) -> bytes:
        """Return the bytes of an object, of a large one those of its segments."""
        found = self.objects[name]
        if found.entries is not None:
            return b"".join(self.data(entry["path"].lstrip("/")) for entry in found.entries)
        place = urllib.parse.unquote(found.headers.get("x-object-manifest", ""))
        if place:
            return b"".join(self.data(each) for each in self._listed(place) if each != name)
        return found.data

    def _listed(self, beginning: str) -> list[str]:
        return [n for n in self.names() if n.startswith(beginning) and n not in self.hidden]

    def etag(self, name: str) -> str:
        """Return the ETag of an object."""
        found = self.objects[name]
        if found.entries is None:
            return found.digest
        etags = "".join(entry["hash"] for entry in found.entries)
        return f'"{md5(etags.encode()).hexdigest()}"'

    # -- what is done

    def answer(self, seen: Seen) -> Answer:
        """Carry a request out, as the rule says."""
        with self._lock:
            self.requests.append(seen)
        rule = self.rule
        return self.act(seen) if rule is None else rule(seen, lambda: self.act(seen))

    def act(self, seen: Seen) -> Answer:
        """Carry a request out as a good server does."""
        body = seen.body
        with self._lock:
            if seen.path == "/info":
                return Answer(404) if self.info is None else _json(self.info)
            if seen.path.startswith("/v3"):
                return self._identity(seen, body)
            if not seen.token:
                return Answer(401)
            container, _slash, obj = seen.name.partition("/")
            if not obj:
                return self._container(seen, container)
            return getattr(self, f"_{seen.method.lower()}")(seen, body)

    def _container(self, seen: Seen, name: str) -> Answer:
        there = name in self.containers
        if seen.method == "PUT":
            self.containers.add(name)
            return Answer(202 if there else 201)
        if not there:
            return Answer(404)
        listed = self._listed(f"{name}/{seen.query.get('prefix', '')}")
        if seen.method == "DELETE":
            if listed:
                return Answer(409)
            self.containers.discard(name)
        if seen.method != "GET":
            return Answer(204)
        marker = f"{name}/{seen.query.get('marker', '')}"
        return _json(
            [
                {
                    "name": each.partition("/")[2],
                    "bytes": len(self.objects[each].data),
                    "hash": self.objects[each].digest,
                }
                for each in listed
                if each > marker
            ]
        )

    def _put(self, seen: Seen, body: bytes) -> Answer:
        name = seen.name
        if name.partition("/")[0] not in self.containers:
            return Answer(404)
        if seen.headers.get("if-none-match") == "*" and name in self.objects:
            return Answer(412)
        kept = {key: value for key, value in seen.headers.items() if key.startswith("x-object-m")}
        entries = None
        if seen.query.get("multipart-manifest") == "put":
            entries = json.loads(body)
            for entry in entries:
                there = self.objects.get(entry["path"].lstrip("/"))
                found = None if there is None else there.digest
                if (
                    there is None
                    or found != entry["etag"]
                    or len(there.data) != entry["size_bytes"]
                ):
                    return Answer(400)
                entry["hash"] = found
        elif seen.headers.get("etag", "") not in ("", md5(body).hexdigest()):
            return Answer(422)
        self.objects[name] = Stored(b"" if entries else body, kept, entries)
        return Answer(201, headers={"ETag": self.etag(name)})

    def _head(self, seen: Seen, _body: bytes) -> Answer:
        if seen.name not in self.objects:
            return Answer(404)
        found = self.objects[seen.name]
        headers = {**found.headers, "ETag": self.etag(seen.name)}
        if found.entries is not None:
            headers["X-Static-Large-Object"] = "True"
        return Answer(200, headers=headers, length=str(len(self.data(seen.name))))

    def _get(self, seen: Seen, body: bytes) -> Answer:
        head = self._head(seen, body)
        if head.status != 200:
            return head
        data = self.data(seen.name)
        asked = seen.headers.get("range")
        if not asked:
            return Answer(200, data, head.headers)
        first, _dash, last = asked.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        end = int(first) + len(part) - 1
        head.headers["Content-Range"] = f"bytes {first}-{end}/{len(data)}"
        return Answer(206, part, head.headers)

    def _delete(self, seen: Seen, _body: bytes) -> Answer:
        found = self.objects.pop(seen.name, None)
        if found is None:
            return Answer(404)
        if seen.query.get("multipart-manifest") != "delete" or found.entries is None:
            return Answer(204)
        for entry in found.entries:
            self.objects.pop(entry["path"].lstrip("/"), None)
        return _json({"Response Status": "200 OK", "Errors": []})

    # -- the identity service

    def _identity(self, seen: Seen, body: bytes) -> Answer:
        if seen.path == "/v3/auth/tokens" and seen.method == "POST":
            identity = json.loads(body)["auth"]["identity"]
            self.logins.append(json.loads(body)["auth"])
            user = identity.get("password", {}).get("user", {})
            expected = self.passwords.get(user.get("name", ""), user.get("password"))
            if user.get("password") != expected:
                return Answer(401)
            self._tokens += 1
            return _json(self._token(), 201, {"X-Subject-Token": f"token{self._tokens}"})
        if seen.path == "/v3/auth/tokens":
            return _json(self._token())
        if seen.path == "/v3/OS-TRUST/trusts":
            return _json({"trust": {"id": "trust"}, "trusts": []}, 201)
        return Answer(204 if seen.method == "DELETE" else 404)

    def _token(self) -> dict[str, Any]:
        domain = {"id": "default", "name": "Default"}
        endpoint = {"interface": "public", "region": "one", "region_id": "one", "url": self.url}
        token: dict[str, Any] = {
            "methods": ["password"],
            "expires_at": "2100-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": "user", "name": "user", "domain": domain},
            "roles": [{"id": "role", "name": "member"}],
            "catalog": [{"type": "object-store", "name": "swift", "endpoints": [endpoint]}],
        }
        if self.project is not None:
            token["project"] = {"id": self.project, "name": self.project, "domain": domain}
        return {"token": token}


def _json(said: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(said).encode(), headers or {})


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # What is written at once leaves at once.
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = IDLE
    server: LittleSwift

    def _serve(self) -> None:
        try:
            self._answer()
        except OSError:
            self.close_connection = True

    def _answer(self) -> None:
        seen = Seen(self)
        answer = self.server.answer(seen)
        unread = bool(seen.left or seen.chunked)
        if not answer.status:
            self.close_connection = True
            return
        self.wfile.write(self.server.hint)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.length is not None and answer.status != 204:
            self.send_header("Content-Length", answer.length or str(len(answer.body)))
        if unread:
            # Also sets close_connection.
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self._send(answer)
        self.wfile.flush()
        if answer.silent is not None:
            answer.silent.wait()
            self.close_connection = True
        if unread:
            self._linger()

    def _linger(self) -> None:
        """Take what still comes; closed before that, the connection is reset, the answer lost."""
        self.connection.shutdown(socket.SHUT_WR)
        while self.connection.recv(_PART):
            pass

    def _send(self, answer: Answer) -> None:
        if answer.pace is None:
            self.wfile.write(answer.body)
            return
        for offset in range(0, len(answer.body), _PART):
            part = answer.body[offset : offset + _PART]
            answer.pace(len(part))
            self.wfile.write(part)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - looked for by the base

    def log_message(self, *_given: Any) -> None:
        """Be silent: `requests` has what a test may ask about."""


# -- those who ask


class Account:
    """An account that has as many tokens as are wanted.

    :param url: of the account
    :param renewable: whether it says so
    """

    def __init__(self, url: str, renewable: bool = True) -> None:
        self.url = url
        self.renewable = renewable
        self.confirmed = ""
        self.connection = swiftclient.Connection(
            preauthurl=url, preauthtoken="token1", insecure=True
        )
        self.number = 1
        self.prepared = 0
        self.closed = 0

    def token(self) -> str:
        """Return the token of the moment."""
        return f"token{self.number}"

    def renew(self, refused: str) -> str:
        """Return another one."""
        self.number += 1
        return self.token()

    def prepare(self) -> None:
        """Note that it was asked for."""
        self.prepared += 1

    def forget_url(self) -> None:
        """Stay where it is."""

    def close(self) -> None:
        """Note that it was asked for."""
        self.closed += 1


def settings(**changed: Any) -> Settings:
    """Return the options of a client, for servers that answer at once."""
    usual = Settings(
        insecure=False,
        cacert=None,
        connect_timeout=10,
        read_timeout=30,
        patience=3,
        retries=None,
        threads=2,
    )
    return dataclasses.replace(usual, **changed)


def client_of(url: str, account: Any = None, **changed: Any) -> Client:
    """Return a client of an account.

    :param url: of the account
    :param changed: options
    """
    return Client(Connections(), settings(**changed), account or Account(url))


def store_at(server: LittleSwift, configure: bool = True, **options: Any) -> BaseStore:
    """Return a store of one account, or of many with `swift_store_multi_tenant`.

    :param options: without their common beginning
    """
    conf = cfg.ConfigOpts()
    swift.Store(conf, "swift")
    values: dict[str, Any] = {
        "swift_store_auth_address": server.auth_url,
        "swift_store_user": "project:user",
        "swift_store_key": "canary",
        "swift_store_container": CONTAINER,
        "swift_store_create_container_on_put": True,
        "swift_store_retry_timeout": 3,
    }
    for name, value in options.items():
        known = name.startswith(("swift", "default_swift"))
        values[name if known else f"swift_store_{name}"] = value
    for name, value in values.items():
        conf.set_override(name, value, group="swift")
    store = swift.Store(conf, "swift")
    if configure:
        store.configure(re_raise_bsc=True)
    return store


def context_at(server: LittleSwift, token: str = "users-token") -> Any:
    """Return what an image service knows of a user of this cluster."""
    endpoints = [{"publicURL": server.url, "region": "one"}]
    return types.SimpleNamespace(
        auth_token=token, service_catalog=[{"type": "object-store", "endpoints": endpoints}]
    )
