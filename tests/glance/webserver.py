# SPDX-License-Identifier: Apache-2.0
"""A web server on loopback that serves images, with ranges and redirects."""

from __future__ import annotations

import http.server
import re
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class WebServer:
    """Serves byte strings by path; use it as a context manager."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def add(self, path: str, content: bytes) -> str:
        """Serve content under a path and return its URL."""
        self.files[path] = content
        return self.url(path)

    def add_redirect(self, path: str, target: str) -> str:
        """Redirect a path to a target, absolute or relative, and return the path's URL."""
        self.redirects[path] = target
        return self.url(path)

    def ranges_asked_of(self, path: str) -> list[str | None]:
        """Return the Range header of each GET of a path so far."""
        return [
            wanted for method, asked, wanted in self.requests if (method, asked) == ("GET", path)
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler_for(web: WebServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self.wfile.write(self._answer())

        def _answer(self) -> bytes:
            """Send the head of the response and return its body."""
            web.requests.append((self.command, self.path, self.headers.get("Range")))
            if self.path in web.redirects:
                return self._send(302, b"", Location=web.redirects[self.path])
            if self.path not in web.files:
                return self._send(404, b"no such file")
            content = web.files[self.path]
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked is None:
                return self._send(200, content)
            first = int(asked.group(1))
            last = min(int(asked.group(2) or len(content)), len(content) - 1)
            if first >= len(content):
                return self._send(416, b"")
            span = f"bytes {first}-{last}/{len(content)}"
            return self._send(206, content[first : last + 1], Content_Range=span)

        def _send(self, status: int, body: bytes, **headers: str) -> bytes:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            return body

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            """Keep quiet: `requests` has what a test may ask about."""

    return Handler
