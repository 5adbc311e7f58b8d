# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the facades and the registry."""

from __future__ import annotations

import functools
import http.server
import threading

import pytest


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):  # noqa: A002 - the name of the base class
        """Keep the output of the tests clean."""


@pytest.fixture
def web(tmp_path):
    """The address of a web server, and the directory that it serves."""
    site = tmp_path / "site"
    site.mkdir()
    handler = functools.partial(QuietHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}", site
        server.shutdown()
        thread.join()
