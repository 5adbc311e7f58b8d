# SPDX-License-Identifier: Apache-2.0
"""Keystone: users, projects, tokens, and the catalog in which other services find each other."""

from __future__ import annotations

import getpass
import grp
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

from tests.services.base import Lab, Service, free_port
from tests.services.keystone_api import (
    DOMAIN,
    REGION,
    Account,
    Administrator,
    ApplicationCredential,
    KeystoneAPI,
)
from tests.services.openstack import manage, release, seed

SERVE_WSGI = Path(__file__).parent / "programs" / "serve_wsgi.py"
REQUIREMENTS = ("keystone==30.0.0", "waitress")
ADMIN_PASSWORD = "admin-secret"
SERVICE_USERS = ("glance", "swift", "cinder")
TENANTS = ("tenant-a", "tenant-b")
# Who has this role in a project owns the account of that project in Swift.
SWIFT_ROLE = "swiftoperator"

CONF = """\
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///{folder}/keystone.db
sqlite_synchronous = false
[token]
provider = fernet
expiration = {token_seconds}
[fernet_tokens]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[identity]
password_hash_rounds = 4
# Each check of a token without it takes longer than the tests of a whole store. There is one
# process, so that its memory is always right about what has been revoked.
[cache]
enabled = true
backend = dogpile.cache.memory
[oslo_policy]
policy_file = {folder}/policy.yaml
"""


class Keystone(Service):
    """Keystone with a service user, two tenants, and a catalog."""

    name = "keystone"
    # How long a token is good for; a subclass may want less.
    token_seconds: ClassVar[int] = 3600

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        # By name of the user: admin, glance, swift, cinder, tenant-a and tenant-b.
        self.accounts: dict[str, Account] = {}
        self._environment = Path()
        self._state = Path()

    @property
    def auth_url(self) -> str:
        """Where clients authenticate."""
        return f"http://127.0.0.1:{self.port}/v3"

    @property
    def api(self) -> KeystoneAPI:
        """Calls of any kind, for what has no method here."""
        return KeystoneAPI(self.auth_url)

    @property
    def administrator(self) -> Administrator:
        """The administrator, authenticated anew."""
        return Administrator(self.api, ADMIN_PASSWORD)

    @property
    def python(self) -> Path:
        """The interpreter that has Keystone's own client (keystoneclient, keystoneauth1)."""
        return self._environment / "bin" / "python"

    def install(self) -> None:
        self._environment = release(self.name, REQUIREMENTS)
        recipe = f"{self._environment.name}{ADMIN_PASSWORD}{REGION}{CONF}"
        self._state = seed(self.name, recipe, self._bootstrap)

    def _bootstrap(self, folder: Path) -> None:
        conf = self._write_conf(folder)
        for keys in ("fernet", "credential"):
            (folder / keys).mkdir(mode=0o700)
        group = grp.getgrgid(os.getgid()).gr_name
        owner = ["--keystone-user", getpass.getuser(), "--keystone-group", group]
        bootstrap = ["--bootstrap-password", ADMIN_PASSWORD, "--bootstrap-region-id", REGION]
        for arguments in (
            ["db_sync"],
            ["fernet_setup", *owner],
            ["credential_setup", *owner],
            ["bootstrap", *bootstrap],
        ):
            manage(self._environment / "bin" / "keystone-manage", conf, *arguments)

    def _write_conf(self, folder: Path) -> Path:
        conf = folder / "keystone.conf"
        conf.write_text(CONF.format(folder=folder, token_seconds=self.token_seconds))
        (folder / "policy.yaml").write_text("{}\n")
        return conf

    def start(self, folder: Path, lab: Lab) -> None:
        shutil.copytree(self._state, folder, dirs_exist_ok=True)
        conf = self._write_conf(folder)
        self.port = free_port()
        self.run(
            [
                self.python,
                "-W",
                "ignore",
                SERVE_WSGI,
                str(self.port),
                "keystone.wsgi.api:application",
            ],
            env={
                **os.environ,
                "OS_KEYSTONE_CONFIG_DIR": str(folder),
                "OS_KEYSTONE_CONFIG_FILES": str(conf),
            },
        )
        self.wait(self._serves, "the API")
        self._populate()

    def _serves(self) -> bool:
        try:
            urllib.request.urlopen(self.auth_url, timeout=60).close()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def _populate(self) -> None:
        administrator = self.administrator
        admin = Account(
            "admin", ADMIN_PASSWORD, "admin", administrator.user_id, administrator.project_id
        )
        administrator.grant(admin.user_id, admin.project_id, SWIFT_ROLE)
        self.accounts["admin"] = admin
        for name in SERVICE_USERS:
            self.accounts[name] = _service_account(administrator, name)
        for name in TENANTS:
            self.accounts[name] = _tenant(administrator, name)
        administrator.register("identity", "keystone", self.auth_url)

    def join(self, process: str) -> None:
        """Give the process users and projects of its own, and so accounts in all services.

        They replace `glance` and the tenants; passwords and roles are the same.
        """
        administrator = self.administrator
        self.accounts = {
            **self.accounts,
            "glance": _service_account(administrator, "glance", f"-{process}"),
            **{name: _tenant(administrator, name, f"-{process}") for name in TENANTS},
        }

    def register(self, kind: str, name: str, url: str) -> None:
        """Enter a service into the catalog, or tell where it is now.

        :param kind: type of the service, such as ``object-store``
        :param url: of its API; ``%(tenant_id)s`` stands for the id of the project
        """
        self.administrator.register(kind, name, url)

    def token(self, user: str) -> tuple[str, dict[str, Any]]:
        """Return a new token of a user for its project, and its description with the catalog.

        :param user: one of `accounts`
        """
        account = self.accounts[user]
        return self.api.authenticate(account.user, account.password, account.project)

    def revoke(self, token: str) -> None:
        """End the life of a token."""
        path = f"{self.auth_url}/auth/tokens"
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        request = urllib.request.Request(path, headers=headers, method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()

    def application_credential(self, user: str, name: str) -> ApplicationCredential:
        """Create an application credential of a user, good for all that the user may do.

        :param user: one of `accounts`
        :param name: not yet used by this user
        """
        path = f"/users/{self.accounts[user].user_id}/application_credentials"
        body = {"application_credential": {"name": name}}
        answer, _token = self.api.call("POST", path, body, self.token(user)[0])
        created = answer["application_credential"]
        return ApplicationCredential(created["id"], created["secret"])

    def authtoken_conf(self, user: str) -> dict[str, str]:
        """Return the options with which a service checks the tokens of its clients.

        :param user: of the service, one of `accounts`
        """
        account = self.accounts[user]
        return {
            "www_authenticate_uri": self.auth_url,
            "auth_url": self.auth_url,
            "auth_type": "password",
            "username": account.user,
            "password": account.password,
            "project_name": account.project,
            "user_domain_id": DOMAIN,
            "project_domain_id": DOMAIN,
            "service_token_roles": "service",
            "service_token_roles_required": "true",
        }

    def facts(self) -> dict[str, str]:
        found = {"auth_url": self.auth_url, "region": REGION, "domain_id": DOMAIN}
        for name, account in self.accounts.items():
            found[name] = f"{account.user}:{account.password} in project {account.project}"
        return found

    def glance_conf(self) -> str:
        """Return the section by which Glance itself checks tokens."""
        options = self.authtoken_conf("glance")
        lines = "".join(f"{name} = {value}\n" for name, value in options.items())
        return f"[keystone_authtoken]\n{lines}"


def _service_account(administrator: Administrator, name: str, suffix: str = "") -> Account:
    roles = ("admin", "service", SWIFT_ROLE)
    return administrator.account(name + suffix, f"{name}-secret", f"service{suffix}", *roles)


def _tenant(administrator: Administrator, name: str, suffix: str = "") -> Account:
    roles = ("member", "reader", SWIFT_ROLE)
    return administrator.account(name + suffix, f"{name}-secret", name + suffix, *roles)
