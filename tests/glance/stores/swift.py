# SPDX-License-Identifier: Apache-2.0
"""Stores of Swift objects, looked at through Swift's HTTP API."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

import requests

from tests.services.conf_text import conf_text

from .base import StoreUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.services.swift import Swift

MEGABYTE = 1000 * 1024
REFERENCE = "tests"


class SwiftAccount:
    """The account of a project, as one user may see it.

    :param swift: the server
    :param user: one of Keystone's accounts
    :param owner: the one whose project owns the account; none: the user itself
    """

    def __init__(self, swift: Swift, user: str, owner: str | None = None) -> None:
        self.url = swift.storage_url(owner or user)
        self._session = requests.Session()
        self._session.trust_env = False
        # One that has been idle for seconds is closed by the server, perhaps in this very moment.
        self._session.headers["Connection"] = "close"
        self._session.headers["X-Auth-Token"] = swift.keystone.token(user)[0]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def forget_user(self) -> None:
        """Be nobody from now on."""
        del self._session.headers["X-Auth-Token"]

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request for a path of the account, or for a URL."""
        url = path if "://" in path else f"{self.url}/{path}"
        return self._session.request(method, url, timeout=60, **arguments)

    def names(self, path: str) -> list[str]:
        """Return the names of all containers, or of all objects of one."""
        answer = self.request("GET", path, params={"format": "json", "limit": "10000"})
        if answer.status_code in (204, 404):
            return []
        answer.raise_for_status()
        return [entry["name"] for entry in answer.json()]

    def objects(self, container: str) -> list[str]:
        """Return all objects of the containers whose names begin so, with their containers."""
        containers = [name for name in self.names("") if name.startswith(container)]
        return sorted(f"{place}/{name}" for place in containers for name in self.names(place))


class SwiftStore(StoreUnderTest):
    """A store of objects in a container; images of a megabyte and more are in segments.

    :param account: of the user that the store works as
    :param container: which the store has to create itself
    :param options: how to authenticate
    :param prefix: of locations, up to the container
    """

    driver = "swift"

    def __init__(
        self,
        name: str,
        account: SwiftAccount,
        container: str,
        options: dict[str, str],
        prefix: str,
    ) -> None:
        common = {
            "swift_store_container": container,
            "swift_store_create_container_on_put": "true",
            "swift_store_large_object_size": "1",
            "swift_store_large_object_chunk_size": "1",
        }
        super().__init__(name, {**common, **options})
        self._account = account
        self._container = container
        self._prefix = prefix

    @property
    def properties(self) -> dict[str, object]:
        return {
            "container": self._container,
            "large_object_size": MEGABYTE,
            "large_object_chunk_size": MEGABYTE,
        }

    def location(self, image_id: str) -> str:
        return f"{self._prefix}/{self._container}/{image_id}"

    def has(self, image_id: str) -> bool:
        return image_id in self._account.names(self._container)

    def read(self, image_id: str) -> bytes:
        answer = self._account.request("GET", f"{self._container}/{image_id}")
        answer.raise_for_status()
        return answer.content

    def remove(self, image_id: str) -> None:
        for path in self.everything():
            if image_id in path:
                self._account.request("DELETE", path)

    def everything(self) -> list[str]:
        return self._account.objects(self._container)

    def is_writing(self, image_id: str) -> bool:
        return any(image_id in path for path in self.everything())

    def put_in_the_way(self, image_id: str) -> Callable[[], bool]:
        content = b"not Glance's"
        path = f"{self._container}/{image_id}"
        self._account.request("PUT", self._container)
        self._account.request("PUT", path, data=content).raise_for_status()

        def untouched() -> bool:
            found = self.read(image_id)
            self.remove(image_id)
            return found == content

        return untouched


def swift_store_by_options(name: str, swift: Swift, account: SwiftAccount) -> SwiftStore:
    """Return a store whose credentials are among its options."""
    who = swift.keystone.accounts["glance"]
    options = {
        "swift_store_auth_version": "3",
        "swift_store_auth_address": swift.keystone.auth_url,
        "swift_store_user": f"{who.project}:{who.user}",
        "swift_store_key": who.password,
    }
    user = urllib.parse.quote(f"{who.project}:{who.user}", safe="")
    address = swift.keystone.auth_url.removeprefix("http://")
    prefix = f"swift+http://{user}:{who.password}@{address}"
    return SwiftStore(name, account, "glance-by-options", options, prefix)


def swift_store_by_reference(
    name: str, swift: Swift, account: SwiftAccount, folder: Path
) -> SwiftStore:
    """Return a store whose credentials are in a file of their own.

    :param folder: for that file
    """
    who = swift.keystone.accounts["glance"]
    reference = {
        "auth_version": "3",
        "auth_address": swift.keystone.auth_url,
        "user": f"{who.project}:{who.user}",
        "key": who.password,
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    file = folder / "swift-references.conf"
    file.write_text(conf_text({REFERENCE: reference}))
    options = {"swift_store_config_file": str(file), "default_swift_reference": REFERENCE}
    prefix = f"swift+config://{REFERENCE}"
    return SwiftStore(name, account, "glance-by-reference", options, prefix)
