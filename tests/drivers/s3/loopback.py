# SPDX-License-Identifier: Apache-2.0
"""Small servers on loopback for what neither of the real ones does, and stores that use them."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import sys
import threading
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from glance_store._drivers.s3 import Store, client
from tests.drivers.s3.conftest import Images
from tests.drivers.s3.service import ONCE_MORE
from tests.services.http_server import Answer, Request
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

BUCKET = "images"
IDLE = 5.0  # seconds after which an idle connection is closed


class Recorder(http.server.ThreadingHTTPServer):
    """A web server that takes every method and remembers requests with their bodies.

    :param answer: is asked for the answer to each request; the body is the second argument
    :param tls: context for https; None for http
    """

    daemon_threads = False
    request_queue_size = 64

    def __init__(
        self, answer: Callable[[Request, bytes], Answer], tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _RecordingHandler)
        self._scheme = "https" if tls else "http"
        if tls is not None:
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.answer = answer
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away, which is what some tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Recorder:  # noqa: PYI034 - typing.Self came with Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _RecordingHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE
    server: Recorder

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers)
        body = self._body(headers)
        self.server.requests.append(request)
        self.server.bodies.append(body)
        answer = self.server.answer(request, body)
        # One connection for a request: nothing is left open when the test ends.
        self.close_connection = True
        if not answer.status:
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers and answer.framing == "length":
            self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        # The limit is one for a whole body, however slowly it is to come.
        self.connection.settimeout(PATIENCE)
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the base class looks for them

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet: `requests` has what a test may ask about."""


def unconfigured_store_at(url: str, **options: Any) -> Images:
    """Return a store that tries everything twice, as it is before `configure`.

    :param url: of the service
    :param options: of the store
    """
    conf = cfg.ConfigOpts()
    store = Store(conf, "objects")
    all_options = {
        "s3_store_host": url,
        "s3_store_access_key": "loopback-access",
        "s3_store_secret_key": "loopback-secret",
        "s3_store_bucket": BUCKET,
        "s3_store_bucket_url_format": "path",
        "s3_store_retry_timeout": ONCE_MORE,
        "s3_store_connect_timeout": 5,
        "s3_store_read_timeout": 15,
        **options,
    }
    for name, value in all_options.items():
        conf.set_override(name, value, group="objects")
    return Images(store)


def store_at(url: str, **options: Any) -> Images:
    """Return a configured store.

    :param url: of the service
    :param options: of the store
    """
    images = unconfigured_store_at(url, **options)
    images.store.configure(re_raise_bsc=True)
    return images


def close(images: Images) -> None:
    """Close the connections of a store.

    :param images: the store
    """
    images.store._client().s3.close()


@contextlib.contextmanager
def older_client_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take away the options of the client that boto3 1.35 does not know.

    :param monkeypatch: undoes it
    """
    import botocore.config

    newer = {
        "ignore_configured_endpoint_urls",
        "request_checksum_calculation",
        "response_checksum_validation",
    }

    class Config(botocore.config.Config):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            for name in newer & set(options):
                raise TypeError(f"Got unexpected keyword argument '{name}'")
            super().__init__(**options)

    monkeypatch.setattr(botocore.config, "Config", Config)
    # It is given once in a process.
    client._warn_of_missing_checksums.cache_clear()
    yield
    client._warn_of_missing_checksums.cache_clear()
