# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the http driver: all that reads, with secrets in the locations."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from oslo_config import cfg

from glance_store._drivers.http import Store
from glance_store.testing import StoreConformance
from tests.faults.proxy import FaultProxy
from tests.services.http_server import WebServer


class TestHttp(StoreConformance):
    secrets = ("canary-password", "canary-token")
    hostile_uris = ("http://[fe80::1", "http://127.0.0.1:0/", "http://127.0.0.1:1\\@x/y")

    @pytest.fixture
    def backend(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("NO_PROXY", "*")
        with (
            WebServer() as self.web,
            FaultProxy("127.0.0.1", self.web.port, http=True) as self.proxy,
        ):
            yield

    def make_store(self) -> Store:
        conf = cfg.ConfigOpts()
        store = Store(conf, "web")
        conf.set_override("http_store_retry_timeout", 1, group="web")
        store.configure(re_raise_bsc=True)
        return store

    def _uri(self, path: str) -> str:
        return f"http://user:canary-password@{self.proxy.address}{path}?token=canary-token"

    def seed(self, image_id: str, data: bytes) -> str:
        self.web.serve(f"/{image_id}", data)
        return self._uri(f"/{image_id}")

    def held(self) -> Counter[str]:
        """Connections to the server, seen from the driver's end."""
        held: Counter[str] = Counter()
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as end:
                held["connections"] += end.getpeername()[1] == self.proxy.port
        return held

    def missing_uri(self) -> str:
        return self._uri("/nothing-here")
