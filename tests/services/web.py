# SPDX-License-Identifier: Apache-2.0
"""A web server with an image, as a service."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import ClassVar

from tests.services.base import Lab, Service
from tests.services.http_server import File, WebServer

MiB = 1024 * 1024


class Http(Service):
    """A web server with one image of random content, for the store `http`."""

    name = "http"
    stores: ClassVar[dict[str, str]] = {"web": "http"}

    def __init__(self) -> None:
        super().__init__()
        self._web: WebServer | None = None
        self.content = random.Random("glance_store").randbytes(8 * MiB)
        self.url = ""

    def install(self) -> None:
        """Python has all that it takes."""

    def start(self, folder: Path, lab: Lab) -> None:
        self._web = WebServer()
        self._web.__enter__()
        self.url = self._web.serve("/image.raw", File(self.content))

    def stop(self) -> None:
        web, self._web = self._web, None
        if web is not None:
            web.__exit__(None, None, None)

    def facts(self) -> dict[str, str]:
        return {
            "url": self.url,
            "bytes": str(len(self.content)),
            "sha256": hashlib.sha256(self.content).hexdigest(),
        }

    def glance_conf(self) -> str:
        return "[web]\n"
