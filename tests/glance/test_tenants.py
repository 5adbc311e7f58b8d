# SPDX-License-Identifier: Apache-2.0
"""A Glance that asks Keystone, with the images of each project in its own account of Swift."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import pytest

from .client import GlanceClient
from .images import IMAGE_SIZE, image_bytes, location_rows, pieces
from .stores.swift import SwiftAccount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.swift import Swift

    from .conftest import StartGlance
    from .server import GlanceServer
    from .webserver import WebServer

pytestmark = [pytest.mark.glance, pytest.mark.services]

A, B = "tenant-a", "tenant-b"
CONTAINER = "glance-of-tenants"


@pytest.fixture(scope="module")
def glance(start_glance: StartGlance, swift: Swift) -> GlanceServer:
    """A Glance with the multi-tenant store `tenants` as its default."""
    keystone = swift.keystone
    service = keystone.accounts["glance"]
    return start_glance(
        "tenants",
        options={
            "DEFAULT": {"enabled_backends": "tenants:swift, slow:file, web:http"},
            "glance_store": {"default_backend": "tenants"},
            "tenants": {
                "swift_store_multi_tenant": "true",
                "swift_store_container": CONTAINER,
                "swift_store_create_container_on_put": "true",
                "swift_store_large_object_size": "1",
                "swift_store_large_object_chunk_size": "1",
                "swift_store_admin_tenants": f"{keystone.accounts['admin'].project_id}:*",
                "swift_store_auth_address": keystone.auth_url,
                "swift_store_user": f"{service.project}:{service.user}",
                "swift_store_key": service.password,
            },
            "paste_deploy": {"flavor": "keystone"},
            "keystone_authtoken": keystone.authtoken_conf("glance"),
        },
        processes=2,
        prefork=True,
    )


class Tenant(GlanceClient):
    """A user of the Glance, who can also look into an account of Swift.

    :param user: one of Keystone's accounts
    """

    def __init__(self, glance: GlanceServer, swift: Swift, user: str) -> None:
        super().__init__(glance.url, token=swift.keystone.token(user)[0])
        self.user = user
        self.project_id = swift.keystone.accounts[user].project_id
        self.account = SwiftAccount(swift, user)

    def has(self, image_id: str) -> bool:
        """Tell whether an image is in this user's account."""
        return f"{container_of(image_id)}/{image_id}" in self.account.objects(CONTAINER)

    def reads_at_swift(self, owner: Tenant, image_id: str) -> int:
        """Return the status with which Swift answers to this user about somebody's image."""
        url = f"{owner.account.url}/{container_of(image_id)}/{image_id}"
        return self.account.request("GET", url).status_code


@pytest.fixture(scope="module")
def tenants(glance: GlanceServer, swift: Swift) -> Iterator[dict[str, Tenant]]:
    with contextlib.ExitStack() as stack:
        found = {}
        for user in (A, B, "admin"):
            found[user] = stack.enter_context(Tenant(glance, swift, user))
            stack.callback(found[user].account.close)
        yield found


@pytest.fixture
def owner(tenants: dict[str, Tenant]) -> Tenant:
    return tenants[A]


@pytest.fixture
def other(tenants: dict[str, Tenant]) -> Tenant:
    return tenants[B]


@pytest.fixture
def shared_image(owner: Tenant) -> tuple[str, bytes]:
    """An image of tenant A, which has no members yet."""
    data = image_bytes("shared")
    image_id = owner.create("shared", visibility="shared")
    owner.upload(image_id, data)
    return image_id, data


def container_of(image_id: str) -> str:
    return f"{CONTAINER}_{image_id}"


@pytest.mark.parametrize("length", ["known", "unknown"])
@pytest.mark.parametrize("user", [A, B])
def test_an_image_lives_in_the_account_of_its_project(
    glance: GlanceServer, tenants: dict[str, Tenant], user: str, length: str
) -> None:
    tenant = tenants[user]
    before = tenant.account.objects(CONTAINER)
    data = image_bytes(f"of {user}")
    image_id = tenant.create(f"of {user}")
    tenant.upload(image_id, data if length == "known" else pieces(data))

    address = tenant.account.url.removeprefix("http://")
    url = f"swift+http://{address}/{container_of(image_id)}/{image_id}"
    assert location_rows(glance, image_id) == [(url, {"store": "tenants"})]
    assert [someone.user for someone in tenants.values() if someone.has(image_id)] == [user]
    image = tenant.show(image_id)
    assert (image["status"], image["size"]) == ("active", len(data))
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert tenant.download(image_id).content == data
    assert tenant.download(image_id, byte_range="bytes=70000-").content == data[70000:]

    tenant.delete(image_id)
    assert tenant.account.objects(CONTAINER) == before
    assert container_of(image_id) not in tenant.account.names("")


def test_nobody_else_gets_a_private_image(
    glance: GlanceServer, owner: Tenant, other: Tenant
) -> None:
    data = image_bytes("private")
    image_id = owner.create("private", visibility="private")
    owner.upload(image_id, data)

    other.download(image_id, expect=404)
    assert other.reads_at_swift(owner, image_id) == 403
    other.request("DELETE", f"images/{image_id}", expect=404)
    with GlanceClient(glance.url) as liar:  # claims to be an administrator, without a token
        liar.download(image_id, expect=401)
    assert owner.download(image_id).content == data


def test_a_location_does_not_open_somebody_elses_image(owner: Tenant, other: Tenant) -> None:
    """Who knows where an image is gets no further than the token lets him."""
    image_id = owner.create("private place", visibility="private")
    owner.upload(image_id, image_bytes("private place"))
    url = owner.show(image_id)["direct_url"]
    stolen = other.create("stolen")
    value = {"url": url, "metadata": {}}
    answer = other.patch(stolen, {"op": "add", "path": "/locations/-", "value": value}, expect=None)
    assert answer.status_code == 400
    assert image_id not in answer.text
    assert other.show(stolen)["status"] == "queued"
    assert owner.has(image_id)


def test_members_may_read(owner: Tenant, other: Tenant, shared_image: tuple[str, bytes]) -> None:
    image_id, data = shared_image
    assert other.reads_at_swift(owner, image_id) == 403
    body = {"member": other.project_id}
    owner.request("POST", f"images/{image_id}/members", json=body, expect=200)
    assert other.download(image_id).content == data
    assert other.download(image_id, byte_range="bytes=-500").content == data[-500:]
    assert other.reads_at_swift(owner, image_id) == 200
    other.request("DELETE", f"images/{image_id}", expect=403)

    member = f"images/{image_id}/members/{other.project_id}"
    owner.request("DELETE", member, expect=204)
    other.download(image_id, expect=404)
    assert other.reads_at_swift(owner, image_id) == 403
    assert owner.download(image_id).content == data


def test_everybody_may_read_what_belongs_to_the_community(
    swift: Swift, owner: Tenant, other: Tenant, shared_image: tuple[str, bytes]
) -> None:
    image_id, data = shared_image
    owner.patch(image_id, {"op": "replace", "path": "/visibility", "value": "community"})
    assert other.download(image_id).content == data
    assert other.reads_at_swift(owner, image_id) == 200
    with contextlib.closing(SwiftAccount(swift, A)) as nobody:
        nobody.forget_user()
        assert nobody.request("GET", f"{container_of(image_id)}/{image_id}").status_code == 401

    owner.patch(image_id, {"op": "replace", "path": "/visibility", "value": "private"})
    other.download(image_id, expect=404)
    assert other.reads_at_swift(owner, image_id) == 403


def test_the_administrators_project_may_read(
    owner: Tenant, tenants: dict[str, Tenant], shared_image: tuple[str, bytes]
) -> None:
    image_id, data = shared_image
    admin = tenants["admin"]
    assert admin.download(image_id).content == data
    assert admin.reads_at_swift(owner, image_id) == 200


@pytest.mark.parametrize("method", ["glance-direct", "web-download"])
def test_import(glance: GlanceServer, owner: Tenant, web: WebServer, method: str) -> None:
    data = image_bytes(method)
    image_id = owner.create(method)
    if method == "glance-direct":
        owner.stage(image_id, data)
        owner.import_image(image_id, method, ["tenants", "slow"])
    else:
        uri = web.add("/for-a-tenant.raw", data)
        owner.import_image(image_id, method, ["tenants", "slow"], uri=uri)
    assert owner.has(image_id)
    assert (glance.datadir("slow") / image_id).read_bytes() == data
    assert sorted(owner.show(image_id)["stores"].split(",")) == ["slow", "tenants"]
    assert owner.download(image_id, prefer="tenants").content == data
    owner.delete(image_id)
    assert not owner.has(image_id)


def test_an_interrupted_upload_leaves_nothing(owner: Tenant) -> None:
    before = owner.account.objects(CONTAINER)
    image_id = owner.create("interrupted")
    data = image_bytes("interrupted")
    with owner.begin_upload(image_id, "tenants", 2 * IMAGE_SIZE, data):
        owner.wait_for(image_id, lambda _: owner.account.objects(CONTAINER) != before)
    owner.wait_for_status(image_id, "queued")
    assert owner.account.objects(CONTAINER) == before
    assert container_of(image_id) not in owner.account.names("")

    owner.upload(image_id, data)
    assert owner.download(image_id).content == data
    owner.delete(image_id)


def test_no_trust_is_left(swift: Swift, owner: Tenant) -> None:
    """Long transfers go on in the user's name by a trust, which ends with the transfer."""
    keystone = swift.keystone

    def trusts() -> list[str]:
        token = keystone.token("admin")[0]
        found = keystone.api.call("GET", "/OS-TRUST/trusts", token=token)[0]
        return sorted(trust["id"] for trust in found["trusts"])

    before = trusts()
    image_id = owner.create("trusting")
    owner.upload(image_id, image_bytes("trusting"))
    owner.download(image_id)
    owner.delete(image_id)
    assert trusts() == before
