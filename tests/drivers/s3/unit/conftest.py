# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the S3 store that need no real server."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.drivers.s3.loopback import close, store_at
from tests.drivers.s3.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.drivers.s3.conftest import Images


@pytest.fixture
def objects() -> Iterator[Objects]:
    """A service in memory."""
    with Objects() as service:
        yield service


@pytest.fixture
def at(objects: Objects) -> Iterator[Callable[..., Images]]:
    """Configure a store for it."""
    with contextlib.ExitStack() as stack:

        def create(**options: Any) -> Images:
            images = store_at(objects.url, **options)
            stack.callback(close, images)
            return images

        yield create


@pytest.fixture
def tls_objects(tmp_path: Path) -> Iterator[tuple[Objects, Callable[..., Images]]]:
    """A service with TLS, and what configures a store for it."""
    authority = trustme.CA()
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    made: list[Images] = []

    with Objects(tls=context) as service:

        def create(**options: Any) -> Images:
            made.append(store_at(service.url, s3_store_cacert=str(path), **options))
            return made[-1]

        yield service, create
        for images in made:
            close(images)
