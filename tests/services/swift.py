# SPDX-License-Identifier: Apache-2.0
"""Swift: proxy, account, container and object server, one copy of everything in one folder.

Accounts whose names begin with ``AUTH_`` belong to projects of Keystone. Those with ``TEMP_``
belong to users that the proxy knows by itself: they authenticate at `Swift.v1_auth_url`, or through
S3.
"""

from __future__ import annotations

import getpass
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import ClassVar

from tests.services import swift_conf
from tests.services.base import Lab, Service, Unavailable, answers, free_port
from tests.services.conf_text import conf_text
from tests.services.environments import debian_packages
from tests.services.keystone import Keystone
from tests.services.keystone_api import REGION
from tests.services.openstack import release

SERVE_SWIFT = Path(__file__).parent / "programs" / "serve_swift.py"
REQUIREMENTS = ("swift==2.38.3", "python-swiftclient", "keystonemiddleware")
GiB = 1024**3


class Swift(Service):
    """Swift with accounts of Keystone's projects, large objects of both kinds, and S3."""

    name = "swift"
    needs = ("keystone",)
    stores: ClassVar[dict[str, str]] = {"swift": "swift", "swift_s3": "s3"}
    # For how many seconds the proxy waits for bytes that a client has announced; a test of clients
    # that break off waits as long.
    client_timeout: ClassVar[float] = 3
    # For how many seconds a revoked token still works.
    token_cache_seconds: ClassVar[int] = 1
    max_object_bytes: ClassVar[int] = 5 * GiB + 2
    # Bytes that its parts take in at a time; Swift's default. More cost it less.
    upload_chunk_size: ClassVar[int] = 64 * 1024
    # Objects on a page of a listing; a subclass may want fewer.
    container_listing_limit: ClassVar[int] = 10_000
    # Type and name of the service in Keystone's catalogue.
    catalogued: ClassVar[tuple[str, str]] = ("object-store", "swift")
    # Of the account TEMP_images: for authentication of version 1, and as the pair of keys of S3.
    s3_access_key = "images:images"
    s3_secret_key = "images-secret"
    bucket = "images"

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self.keystone: Keystone
        self._environment = Path()

    @property
    def url(self) -> str:
        """Where the proxy listens; the endpoint of S3 as well."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def v1_auth_url(self) -> str:
        """Where users that Keystone does not know authenticate."""
        return f"{self.url}/auth/v1.0"

    @property
    def python(self) -> Path:
        """The interpreter that has Swift's own client."""
        return self._environment / "bin" / "python"

    def storage_url(self, user: str) -> str:
        """Return where the account of a user's project is.

        :param user: one of Keystone's accounts
        """
        project = self.keystone.accounts[user].project_id
        return f"{self.url}/v1/{swift_conf.KEYSTONE_PREFIX}_{project}"

    def install(self) -> None:
        debian_packages("memcached", probe=["memcached"])
        self._environment = release(Swift.name, REQUIREMENTS)

    def start(self, folder: Path, lab: Lab) -> None:
        self.keystone = lab.get(Keystone)
        if not _keeps_attributes(folder):
            raise Unavailable(
                f"swift: files in {folder} cannot have extended attributes; let TMPDIR point to"
                " a folder on ext4, xfs or btrfs"
            )
        self.port = free_port()
        memcached_port = free_port()
        ports = {part: free_port() for part in swift_conf.STORAGE_PARTS}
        self._write(folder, memcached_port, ports)
        # The cache of the distribution refuses to run as root unless that is what was asked for.
        user = ["-u", getpass.getuser()]
        memcached = shutil.which("memcached")
        assert memcached is not None
        self.run([memcached, *user, "-l", "127.0.0.1", "-p", str(memcached_port), "-m", "16"])
        rings = [f"{part}={port}" for part, port in ports.items()]
        self.run([self.python, "-W", "ignore", SERVE_SWIFT, folder, *rings])
        self.wait(lambda: answers(memcached_port), "memcached")
        self.wait(lambda: all(map(answers, ports.values())), "a storage server")
        self.wait(self._serves, "the proxy")
        url = f"{self.url}/v1/{swift_conf.KEYSTONE_PREFIX}_%(tenant_id)s"
        self.keystone.register(*self.catalogued, url)

    def _write(self, folder: Path, memcached_port: int, ports: dict[str, int]) -> None:
        (folder / "devices" / "disk").mkdir(parents=True)
        common = swift_conf.common(self.max_object_bytes, self.container_listing_limit)
        (folder / "swift.conf").write_text(common)
        for part, port in ports.items():
            storage = swift_conf.storage(folder, part, port, self.upload_chunk_size)
            (folder / f"{part}.conf").write_text(storage)
        account, _colon, user = self.s3_access_key.partition(":")
        proxy = swift_conf.proxy(
            folder,
            self.port,
            memcached_port,
            upload_chunk_size=self.upload_chunk_size,
            client_timeout=self.client_timeout,
            token_cache_seconds=self.token_cache_seconds,
            authtoken=self.keystone.authtoken_conf("swift"),
            users={f"user_{account}_{user}": f"{self.s3_secret_key} .admin"},
        )
        (folder / "proxy.conf").write_text(proxy)

    def _serves(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/healthcheck", timeout=60).close()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def pid(self, part: str) -> int:
        """Return the process id of a part, for tests that freeze or kill it.

        :param part: account, container, object or proxy
        """
        assert self.folder is not None
        return int((self.folder / f"{part}.pid").read_text())

    def facts(self) -> dict[str, str]:
        return {
            "auth_url": self.keystone.auth_url,
            "url": self.url,
            "storage_url of tenant-a": self.storage_url("tenant-a"),
            "v1_auth_url": self.v1_auth_url,
            "s3_endpoint": self.url,
            "s3_access_key": self.s3_access_key,
            "s3_secret_key": self.s3_secret_key,
        }

    def glance_conf(self) -> str:
        """Return a store of Swift with the service user, and one that speaks S3."""
        account = self.keystone.accounts["glance"]
        return conf_text(
            {
                "swift": {
                    "swift_store_auth_version": 3,
                    "swift_store_auth_address": self.keystone.auth_url,
                    "swift_store_user": f"{account.project}:{account.user}",
                    "swift_store_key": account.password,
                    "swift_store_region": REGION,
                    "swift_store_container": "images",
                    "swift_store_create_container_on_put": "true",
                },
                "swift_s3": {
                    "s3_store_host": self.url,
                    "s3_store_access_key": self.s3_access_key,
                    "s3_store_secret_key": self.s3_secret_key,
                    "s3_store_bucket": self.bucket,
                    "s3_store_create_bucket_on_put": "true",
                    "s3_store_bucket_url_format": "path",
                },
            }
        )


def _keeps_attributes(folder: Path) -> bool:
    """Tell whether files can carry Swift's metadata; on some file systems they cannot."""
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.swift.metadata", b"x" * 1024)
    except OSError:
        return False
    finally:
        probe.unlink()
    return True
