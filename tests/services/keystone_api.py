# SPDX-License-Identifier: Apache-2.0
"""The few calls of Keystone's API that tests need, with nothing but the standard library."""

from __future__ import annotations

import dataclasses
import json
import time
import urllib.error
import urllib.request
from typing import Any

REGION = "RegionOne"
DOMAIN = "default"  # the id; Keystone makes it with the name below
DOMAIN_NAME = "Default"
INTERFACES = ("public", "internal", "admin")
# Seconds for which a failing Keystone is asked again, and between two requests.
PATIENCE = 20.0
PAUSE = 0.2


@dataclasses.dataclass(frozen=True)
class Account:
    """A user and the project that it works in; both belong to the default domain."""

    user: str
    password: str
    project: str
    user_id: str
    project_id: str


@dataclasses.dataclass(frozen=True)
class ApplicationCredential:
    """What stands for a user and a project without telling the password."""

    id: str
    secret: str


class KeystoneAPI:
    """Calls of the Identity API v3.

    :param url: of the API, up to its version
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def call(
        self, method: str, path: str, body: object = None, token: str | None = None
    ) -> tuple[Any, str | None]:
        """Return the answer's body, and the token that came with it if there is one.

        :param path: after the version, such as ``/projects``
        :param body: of the request, to be sent as JSON
        :raises RuntimeError: Keystone refuses
        """
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["X-Auth-Token"] = token
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                    return (json.loads(text) if text else None), answer.headers["X-Subject-Token"]
            except urllib.error.HTTPError as error:
                with error:
                    reason = error.read().decode(errors="replace")
                # A new token makes nothing that a second request could find: while other processes
                # make users and projects, Keystone's database refuses one now and then.
                again = path == "/auth/tokens" and error.code >= 500
                if not again or time.monotonic() > deadline:
                    raise RuntimeError(f"{method} {path}: {error.code} {reason}") from error
            time.sleep(PAUSE)

    def authenticate(
        self, user: str, password: str, project: str | None
    ) -> tuple[str, dict[str, Any]]:
        """Return a new token, and what Keystone says about it.

        :param project: name, or nothing for a token without a scope
        """
        domain = {"id": DOMAIN}
        who = {"user": {"name": user, "password": password, "domain": domain}}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": who}}
        if project is not None:
            auth["scope"] = {"project": {"name": project, "domain": domain}}
        body, token = self.call("POST", "/auth/tokens", {"auth": auth})
        assert token is not None
        return token, body["token"]


class Administrator:
    """What the administrator of a Keystone can do.

    :param api: where
    :param password: of the user ``admin``
    """

    def __init__(self, api: KeystoneAPI, password: str) -> None:
        self._api = api
        self._token, about = api.authenticate("admin", password, "admin")
        self.user_id: str = about["user"]["id"]
        self.project_id: str = about["project"]["id"]
        self._roles = {role["name"]: role["id"] for role in self._list("roles")}

    def _call(self, method: str, path: str, body: object = None) -> Any:
        return self._api.call(method, path, body, self._token)[0]

    def _list(self, kind: str, query: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", f"/{kind}{query}")[kind]
        return found

    def _create(self, kind: str, **values: object) -> str:
        identifier: str = self._call("POST", f"/{kind}s", {kind: values})[kind]["id"]
        return identifier

    def project(self, name: str) -> str:
        """Return the id of a project, created if it does not exist."""
        found = self._list("projects", f"?name={name}")
        return found[0]["id"] if found else self._create("project", name=name, domain_id=DOMAIN)

    def account(self, user: str, password: str, project: str, *roles: str) -> Account:
        """Create a user with some roles in a project."""
        project_id = self.project(project)
        user_id = self._create(
            "user",
            name=user,
            password=password,
            domain_id=DOMAIN,
            default_project_id=project_id,
        )
        for role in roles:
            self.grant(user_id, project_id, role)
        return Account(user, password, project, user_id, project_id)

    def grant(self, user_id: str, project_id: str, role: str) -> None:
        """Give a role, created if it does not exist, to a user in a project."""
        if role not in self._roles:
            self._roles[role] = self._create("role", name=role)
        self._call("PUT", f"/projects/{project_id}/users/{user_id}/roles/{self._roles[role]}")

    def register(self, kind: str, name: str, url: str) -> None:
        """Enter a service into the catalog, or tell where it is now.

        :param kind: type of the service, such as ``object-store``
        :param url: of its API; ``%(tenant_id)s`` stands for the id of the project
        """
        found = self._list("services", f"?type={kind}")
        service = found[0]["id"] if found else self._create("service", type=kind, name=name)
        for endpoint in self._list("endpoints", f"?service_id={service}"):
            self._call("DELETE", f"/endpoints/{endpoint['id']}")
        for interface in INTERFACES:
            self._create(
                "endpoint", interface=interface, service_id=service, url=url, region_id=REGION
            )
