# SPDX-License-Identifier: Apache-2.0
"""An account of Swift as the tests see it: past the driver, with plain requests."""

from __future__ import annotations

import functools
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.services.keystone import Keystone


class Answer:
    """What a server has answered."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body


@functools.lru_cache(maxsize=64)
def token_of(keystone: Keystone, user: str) -> str:
    """Return a token that the tests themselves use; it is never revoked."""
    return keystone.token(user)[0]


class Account:
    """The account of a user's project.

    :param user: one of Keystone's accounts
    :param url: of the account
    """

    def __init__(self, keystone: Keystone, user: str, url: str) -> None:
        self._keystone = keystone
        self._user = user
        self.url = url

    def call(
        self,
        method: str,
        path: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request; `path` is in the account, and may have a query."""
        sent = {"X-Auth-Token": token_of(self._keystone, self._user), **(headers or {})}
        request = urllib.request.Request(self.url + path, body, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def _entries(self, path: str, prefix: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            marker = found[-1]["name"] if found else ""
            query = urllib.parse.urlencode({"format": "json", "prefix": prefix, "marker": marker})
            answer = self.call("GET", f"{path}?{query}")
            page = json.loads(answer.body) if answer.status == 200 else []
            if not page:
                return found
            found += page

    def containers(self, prefix: str) -> list[str]:
        """Return the names of containers."""
        return [entry["name"] for entry in self._entries("", prefix)]

    def objects(self, container: str) -> list[str]:
        """Return the names of the objects in a container."""
        path = "/" + urllib.parse.quote(container)
        return [entry["name"] for entry in self._entries(path, "")]

    def listing(self, prefix: str) -> list[str]:
        """Return all objects in containers whose names begin so."""
        return [
            f"{container}/{name}"
            for container in self.containers(prefix)
            for name in self.objects(container)
        ]

    def clear(self, prefix: str) -> None:
        """Remove all objects in containers whose names begin so."""
        for container in self.containers(prefix):
            for name in self.objects(container):
                self.call("DELETE", f"/{container}/{urllib.parse.quote(name)}")

    def remove(self, prefix: str) -> None:
        """Remove containers whose names begin so, with all that is in them."""
        self.clear(prefix)
        for container in self.containers(prefix):
            self.call("DELETE", f"/{container}")


class Context:
    """What an image service knows of the user who has sent a request.

    :param user: one of Keystone's accounts
    :param storage_url: address of the account, as the catalogue names it
    :param token: another one than that of the tests
    """

    def __init__(
        self, keystone: Keystone, user: str, storage_url: str, token: str | None = None
    ) -> None:
        account = keystone.accounts[user]
        self.auth_token = token or token_of(keystone, user)
        self.user_id = account.user_id
        self.project_id = account.project_id
        self.service_catalog = [
            {"type": "identity", "endpoints": [{"publicURL": keystone.auth_url}]},
            {
                "type": "object-store",
                "endpoints": [{"region": "RegionOne", "publicURL": storage_url}],
            },
        ]


def revoke(keystone: Keystone, token: str) -> None:
    """Revoke a token, and wait until Swift has forgotten that it was good.

    :param keystone: that has issued it
    :param token: the token
    """
    (url,) = (
        endpoint["url"]
        for service in keystone.token("glance")[1]["catalog"]
        for endpoint in service["endpoints"]
        if service["type"] == "object-store" and endpoint["interface"] == "public"
    )
    keystone.revoke(token)
    head = urllib.request.Request(url, headers={"X-Auth-Token": token}, method="HEAD")

    def refused() -> bool:
        try:
            urllib.request.urlopen(head, timeout=60).close()
        except urllib.error.HTTPError as error:
            with error:
                # Other accounts are forbidden to a token that is good.
                return error.code == 401
        return False

    until(refused, "Swift refuses a token that was revoked")
