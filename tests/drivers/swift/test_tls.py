# SPDX-License-Identifier: Apache-2.0
"""Encrypted connections to Swift and to Keystone: private authorities, and none at all."""

from __future__ import annotations

import io
import shutil
import ssl
import subprocess
import urllib.parse
from typing import TYPE_CHECKING

import pytest
import trustme

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.swift.conftest import SEGMENT, locate, read
from tests.drivers.swift.tls import encrypted

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.services

SIZE = 2 * SEGMENT + 7


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def authority_file(authority, tmp_path) -> str:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def addresses(authority, keystone, swift) -> Iterator[dict[str, str]]:
    """Options with encrypted addresses of both servers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = urllib.parse.urlsplit(swift.storage_url("glance")).path
    with encrypted(context, keystone.port) as identity, encrypted(context, swift.port) as storage:
        yield {
            "auth_address": f"https://127.0.0.1:{identity}/v3",
            "endpoint": f"https://127.0.0.1:{storage}{path}",
        }


def add(store) -> str:
    return store.add("image", io.BytesIO(image(SIZE)), SIZE, "sha256")[0]


def test_r101_r102_private_authority(make, account, addresses, authority_file):
    store = make(cacert=authority_file, **addresses)
    uri = add(store)
    assert uri.startswith("swift+https://")
    assert read(store, uri) == image(SIZE)
    store.delete(locate(store, uri))


@pytest.mark.parametrize("server", ["auth_address", "endpoint"])
def test_unknown_authority(make, account, addresses, server):
    """Neither server is believed without its authority."""
    with pytest.raises(exceptions.BackendException):
        add(make(retry_timeout=0, **{server: addresses[server]}))


def test_unknown_authority_of_swift_says_what_to_do(make, account, addresses):
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="swift_store_cacert"):
        add(make(retry_timeout=0, endpoint=addresses["endpoint"]))


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_r100_insecure(make, account, addresses):
    """Regression 100: the option is for both servers."""
    store = make(swift_store_auth_insecure=True, **addresses)
    uri = add(store)
    assert read(store, uri) == image(SIZE)
    store.delete(locate(store, uri))


def test_directory_of_authorities(make, account, addresses, authority_file, tmp_path):
    """As ``openssl rehash`` makes it; Keystone and Swift are both believed."""
    folder = tmp_path / "authorities"
    folder.mkdir()
    command = ["openssl", "x509", "-hash", "-noout", "-in", authority_file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.copy(authority_file, folder / f"{done.stdout.strip()}.0")
    store = make(cacert=str(folder), **addresses)
    uri = add(store)
    assert read(store, uri) == image(SIZE)
    store.delete(locate(store, uri))
    # Without that authority in it, nothing is.
    (folder / f"{done.stdout.strip()}.0").unlink()
    with pytest.raises(exceptions.BackendException):
        add(make(cacert=str(folder), retry_timeout=0, **addresses))
