# SPDX-License-Identifier: Apache-2.0
"""Does the Keystone of the tests serve its own client, and tell the users apart?"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.keystone import TENANTS
from tests.services.keystone_api import DOMAIN

if TYPE_CHECKING:
    from tests.services.keystone import Keystone

pytestmark = pytest.mark.services

CLIENT = """
import json, sys
from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystoneclient.v3 import client

options = json.load(sys.stdin)
auth = v3.Password(**options)
owner = session.Session(auth=auth)
keystone = client.Client(session=owner)
created = keystone.application_credentials.create(name="smoke", user=owner.get_user_id())
stand_in = session.Session(
    auth=v3.ApplicationCredential(
        auth_url=options["auth_url"],
        application_credential_id=created.id,
        application_credential_secret=created.secret,
    )
)
print(json.dumps({
    "created": created.id,
    "listed": [found.id for found in keystone.application_credentials.list()],
    "project": stand_in.get_project_id(),
    "user": stand_in.get_user_id(),
    "identity": stand_in.get_endpoint(service_type="identity", interface="public"),
}))
keystone.application_credentials.delete(created)
"""


def catalog(about: dict[str, Any]) -> set[str]:
    return {entry["type"] for entry in about["catalog"]}


def test_client_writes_and_reads(keystone: Keystone) -> None:
    account = keystone.accounts["tenant-a"]
    options = {
        "auth_url": keystone.auth_url,
        "username": account.user,
        "password": account.password,
        "project_name": account.project,
        "user_domain_id": DOMAIN,
        "project_domain_id": DOMAIN,
    }
    done = subprocess.run(
        [keystone.python, "-W", "ignore", "-c", CLIENT],
        input=json.dumps(options),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    answer = json.loads(done.stdout)
    assert answer["created"] in answer["listed"]
    assert answer["project"] == account.project_id
    assert answer["user"] == account.user_id
    assert answer["identity"] == keystone.auth_url


def test_accounts(keystone: Keystone) -> None:
    described = {name: keystone.token(name)[1] for name in keystone.accounts}
    projects = {name: about["project"]["name"] for name, about in described.items()}
    assert projects["glance"] == projects["swift"] == projects["cinder"] == "service"
    assert [projects[name] for name in TENANTS] == list(TENANTS)
    assert "service" in {role["name"] for role in described["glance"]["roles"]}
    assert "admin" not in {role["name"] for role in described["tenant-a"]["roles"]}
    assert "identity" in catalog(described["tenant-a"])


def test_catalog_follows_a_service(keystone: Keystone) -> None:
    for url in ("http://127.0.0.1:1/old", "http://127.0.0.1:2/%(tenant_id)s"):
        keystone.register("smoke", "smoke", url)
    _token, about = keystone.token("tenant-b")
    entry = next(entry for entry in about["catalog"] if entry["type"] == "smoke")
    project = keystone.accounts["tenant-b"].project_id
    assert {e["url"] for e in entry["endpoints"]} == {f"http://127.0.0.1:2/{project}"}
    assert {e["interface"] for e in entry["endpoints"]} == {"public", "internal", "admin"}


def test_revoked_token(keystone: Keystone) -> None:
    token, _about = keystone.token("tenant-a")
    assert keystone.api.call("GET", "/auth/projects", token=token)[0]["projects"]
    keystone.revoke(token)
    with pytest.raises(RuntimeError, match="401"):
        keystone.api.call("GET", "/auth/projects", token=token)


def test_application_credential(keystone: Keystone) -> None:
    created = keystone.application_credential("glance", "smoke")
    methods = ["application_credential"]
    auth = {"methods": methods, methods[0]: {"id": created.id, "secret": created.secret}}
    about, token = keystone.api.call("POST", "/auth/tokens", {"auth": {"identity": auth}})
    assert token
    assert about["token"]["user"]["name"] == "glance"
    assert about["token"]["project"]["name"] == "service"
