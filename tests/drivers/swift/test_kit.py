# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the Swift driver, on Swift and on radosgw, behind the fault proxy."""

from __future__ import annotations

import os
import threading
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.swift import Store
from glance_store.testing import StoreConformance, image
from tests.drivers.swift.account import Account, Context
from tests.faults.proxy import FaultProxy
from tests.services.sharing import process_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glance_store._drivers.swift import BaseStore
    from tests.services.keystone import Keystone
    from tests.services.radosgw import Radosgw
    from tests.services.swift import Swift

pytestmark = pytest.mark.services

# The gateway has one namespace of containers for all accounts.
CONTAINER = f"conformance-{process_name()}"
# The smallest segment that can be configured.
SEGMENT = 1000 * 1024


class Conformance(StoreConformance):
    __test__ = False

    block_size = SEGMENT
    random_sequences = 5
    # Of users in the tests' Keystone; and how all of its tokens begin.
    secrets = ("glance-secret", "tenant-a-secret", "tenant-b-secret", "gAAAAAB")
    hostile_uris = (
        "swift+http://127.0.0.1:1/v1/AUTH_x/c/o",
        "swift+http://a:b@127.0.0.1:1/c/o",
        "swift+http://p%3Au:b@127.0.0.1:1/v3/c/o",
        "swift+http://p%3Au:b@127.0.0.1:1/v3/../o",
        "swift+config://nowhere/c/o",
    )

    account: Account
    storage_url: str
    user = "glance"

    @pytest.fixture
    def backend(self, keystone: Keystone, server_url: str) -> Iterator[None]:
        """Put the proxy in front of the server."""
        self.keystone = keystone
        self.account = Account(keystone, self.user, server_url)
        parts = urllib.parse.urlsplit(server_url)
        with FaultProxy("127.0.0.1", int(parts.port or 0), http=True) as self.proxy:
            self.storage_url = f"http://{self.proxy.address}{parts.path}"
            yield

    def options(self) -> dict[str, Any]:
        account = self.keystone.accounts[self.user]
        return {
            "swift_store_auth_address": self.keystone.auth_url,
            "swift_store_user": f"{account.project}:{account.user}",
            "swift_store_key": account.password,
            "swift_store_endpoint": self.storage_url,
        }

    def make_store(self) -> BaseStore:
        options = {
            "swift_store_container": CONTAINER,
            "swift_store_create_container_on_put": True,
            "swift_store_large_object_size": 1,
            "swift_store_large_object_chunk_size": 1,
            "swift_store_retry_timeout": 2,
            **self.options(),
        }
        conf = cfg.ConfigOpts()
        Store(conf, "swift")
        for name, value in options.items():
            conf.set_override(name, value, group="swift")
        store = Store(conf, "swift")
        store.configure(re_raise_bsc=True)
        # A request reads eight chunks: here two segments, so that images take several requests.
        store.READ_CHUNKSIZE = SEGMENT // 4
        return store

    def listing(self) -> list[str]:
        return self.account.listing(CONTAINER)

    def between_tests(self) -> None:
        self.account.clear(CONTAINER)

    def held(self) -> Counter[str]:
        """Threads; idle connections are kept on purpose."""
        return Counter(threads=threading.active_count())


class TestSwift(Conformance):
    """One account, with its credentials in the options and in the locations."""

    finds_killed_uploads = True

    @pytest.fixture
    def server_url(self, swift: Swift) -> str:
        return swift.storage_url(self.user)


class TestSwiftReferences(TestSwift):
    """One account, which the locations name by reference; single objects.

    The server and its answers are the same. Single objects are claimed like others.
    """

    variant = ("account", "locations", "layout")

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def options(self) -> dict[str, Any]:
        account = self.keystone.accounts[self.user]
        file = self.folder / "references.conf"
        file.write_text(
            f"[images]\nauth_address = {self.keystone.auth_url}\n"
            f"user = {account.project}:{account.user}\nkey = {account.password}\n"
        )
        os.chmod(file, 0o600)
        return {
            "swift_store_config_file": str(file),
            "default_swift_reference": "images",
            "swift_store_endpoint": self.storage_url,
            "swift_store_large_object_size": 100,
        }

    def test_location_round_trip(self) -> None:
        """By contract such a location is written with the account that it names."""
        data = image(10)
        uri = self.place(data)
        written = self.locate(uri).get_store_uri()
        account = self.keystone.accounts[self.user]
        assert written.startswith(f"swift+http://{account.project}%3A{account.user}:")
        assert self.locate(written).get_store_uri() == written
        assert self.read(written) == self.read(uri) == data


class TestSwiftMultiTenant(Conformance):
    """Images in the account of the user who sends the request, each in a container of its own.

    Locations lead to the account instead of holding credentials.
    """

    variant = ("account", "locations", "layout")
    user = "tenant-a"

    @pytest.fixture
    def server_url(self, swift: Swift) -> str:
        return swift.storage_url(self.user)

    def options(self) -> dict[str, Any]:
        service = self.keystone.accounts["glance"]
        return {
            "swift_store_multi_tenant": True,
            # Tests of trusts are elsewhere; here they would only take time.
            "swift_store_use_trusts": False,
            "swift_store_auth_address": self.keystone.auth_url,
            "swift_store_user": f"{service.project}:{service.user}",
            "swift_store_key": service.password,
        }

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Bring the context of the user along."""
        operations = ("add", "get", "get_size", "delete", "open_reader", "open_writer")
        if getattr(function, "__name__", "") in operations:
            kwargs.setdefault("context", self.context())
        return super().call(function, *args, **kwargs)

    def context(self) -> Context:
        """Return what the image service knows of the user."""
        return Context(self.keystone, self.user, self.storage_url)


class TestSwiftSecondTenant(TestSwiftMultiTenant):
    """Another user of the same store: what depends on the account, and that accounts are apart."""

    variant = ("account",)
    user = "tenant-b"

    @pytest.fixture
    def neighbour(self, keystone: Keystone, swift: Swift) -> Iterator[Context]:
        """The other tenant, with the same image id in use; its account is cleared afterwards."""
        found = Account(keystone, "tenant-a", swift.storage_url("tenant-a"))
        path = urllib.parse.urlsplit(found.url).path
        yield Context(keystone, "tenant-a", f"http://{self.proxy.address}{path}")
        found.clear(CONTAINER)

    @pytest.mark.parametrize("size", [10, 2 * SEGMENT + 7], ids=["object", "segments"])
    def test_tenants_are_apart(self, neighbour: Context, size: int) -> None:
        """One id is another image for each; nobody reads or removes that of the other."""
        image_id, mine, other = self.new_id(), image(size), image(size, seed=1)
        uri = self.add(image_id, mine)
        others = self.add(image_id, other, context=neighbour)
        assert uri != others
        for operation in (self.store.get, self.store.delete, self.store.set_acls):
            with pytest.raises(exceptions.Forbidden):
                self.call(operation, self.locate(uri), context=neighbour)
            with pytest.raises(exceptions.Forbidden):
                operation(self.locate(others), context=self.context())
        with pytest.raises(exceptions.BadStoreUri):
            self.call(self.store.get_size, self.locate(uri), context=neighbour)
        assert self.read(uri) == mine
        assert self.read(others, context=neighbour) == other
        project = self.keystone.accounts["tenant-a"].project_id
        self.store.set_acls(self.locate(uri), read_tenants=[project], context=self.context())
        assert self.read(uri, context=neighbour) == mine
        with pytest.raises(exceptions.Forbidden):
            self.call(self.store.delete, self.locate(uri), context=neighbour)
        self.delete(uri)
        assert self.read(others, context=neighbour) == other


class TestRadosgw(Conformance):
    """The other server that speaks Swift's language, with a dialect of its own.

    It has other limits of manifests, does not show them and removes them in its own way, which
    changes the layout as well. Credentials come from the same Keystone.
    """

    variant = ("wire", "layout")

    @pytest.fixture
    def server_url(self, radosgw: Radosgw, keystone: Keystone) -> str:
        return radosgw.storage_url(self.user)
