# SPDX-License-Identifier: Apache-2.0
"""Backends that are gone: the image service says 503, and uses them as soon as they are back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from glance_store._drivers.filesystem.mounts import mount_point
from tests.drivers.cinder.stores import Listing
from tests.drivers.file.conftest import need
from tests.faults.proxy import FaultProxy
from tests.services.fixtures import ceph_of, client_module
from tests.waiting import until

from .client import GlanceClient
from .images import MIB, image_bytes, location_rows
from .scenes import ATTACH_WITHOUT_SUDO
from .server import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.services.vcenter import VCenter

    from .conftest import StartGlance
    from .server import GlanceServer

pytestmark = pytest.mark.glance

NAME = "far"
# Of tries and time-outs, so that a test need not wait.
IMPATIENT: dict[str, dict[str, str]] = {
    "file": {},
    "s3": {"s3_store_retry_timeout": "0", "s3_store_connect_timeout": "5"},
    "swift": {"swift_store_retry_timeout": "0", "swift_store_connect_timeout": "5"},
    "cinder": {"cinder_http_retries": "0"},
    "rbd": {"rados_connect_timeout": "2"},
    "vmware": {"vmware_store_retry_timeout": "0"},
}
# Refused for lack of a server, each at its address.
ELSEWHERE: dict[str, Callable[[str], dict[str, str]]] = {
    "s3": lambda address: {
        "s3_store_host": f"http://{address}",
        "s3_store_access_key": "key",
        "s3_store_secret_key": "secret",
        "s3_store_bucket": "images",
        "s3_store_bucket_url_format": "path",
    },
    "swift": lambda address: {
        "swift_store_auth_address": f"http://{address}/v3",
        "swift_store_user": "project:user",
        "swift_store_key": "key",
    },
    "cinder": lambda address: {
        "cinder_store_auth_address": f"http://{address}/v3",
        "cinder_store_user_name": "user",
        "cinder_store_password": "password",
        "cinder_store_project_name": "project",
    },
    # The option takes no port.
    "vmware": lambda _address: {
        "vmware_server_host": "127.0.0.9",
        "vmware_server_username": "user",
        "vmware_server_password": "password",
        "vmware_datastores": "datacenter:datastore",
    },
}


def arguments(driver: str, options: dict[str, str], **more: Any) -> dict[str, Any]:
    """Return with which arguments a Glance has a store that may be out of reach."""
    return {
        "options": {
            "DEFAULT": {"enabled_backends": f"{NAME}:{driver}, slow:file"},
            # A service whose default store is out of reach starts all the same.
            "glance_store": {"default_backend": NAME},
            NAME: {**IMPATIENT[driver], **options},
        },
        **more,
    }


def refused(client: GlanceClient, glance: GlanceServer, name: str) -> str:
    """Assert that an upload is answered with 503, and leaves an image that waits for its data."""
    image_id = client.create(name)
    client.upload(image_id, image_bytes(name), store=NAME, expect=503)
    assert client.show(image_id)["status"] == "queued"
    assert location_rows(glance, image_id) == []
    return image_id


def stored(client: GlanceClient, image_id: str) -> None:
    """Assert that an image can be stored, read and deleted."""
    data = image_bytes("back again")
    client.upload(image_id, data, store=NAME)
    assert client.download(image_id).content == data
    client.delete(image_id)


@pytest.mark.parametrize("driver", ELSEWHERE)
def test_upload_to_a_port_where_nobody_listens(start_glance: StartGlance, driver: str) -> None:
    with FaultProxy("127.0.0.1", 9) as nobody:
        nobody.inject(refuse=True)
        options = ELSEWHERE[driver](nobody.address)
        glance = start_glance(f"{driver}-nobody", **arguments(driver, options))
        with GlanceClient(glance.url) as client:
            refused(client, glance, "nobody there")
            # The others are not affected.
            image_id = client.create("elsewhere")
            client.upload(image_id, image_bytes("elsewhere"), store="slow")
            client.delete(image_id)


@dataclass
class Far:
    """A store whose server is behind proxies.

    :ivar first: the proxy of the first server that is asked
    :ivar data: the proxy in front of the server that stores the images
    """

    options: dict[str, str]
    first: FaultProxy
    data: FaultProxy
    surroundings: Surroundings | None = None


@contextlib.contextmanager
def _s3(request: pytest.FixtureRequest) -> Iterator[Far]:
    client_module("boto3", "s3")
    server = request.getfixturevalue("radosgw")
    with FaultProxy("127.0.0.1", server.port) as proxy:
        options = {
            **ELSEWHERE["s3"](proxy.address),
            "s3_store_access_key": server.access_key,
            "s3_store_secret_key": server.secret_key,
            "s3_store_bucket": "outages",
            "s3_store_create_bucket_on_put": "true",
        }
        yield Far(options, proxy, proxy)


def _port_of(url: str) -> int:
    port = urllib.parse.urlsplit(url).port
    assert port is not None
    return port


@contextlib.contextmanager
def _swift(request: pytest.FixtureRequest) -> Iterator[Far]:
    server = request.getfixturevalue("swift")
    who = server.keystone.accounts["glance"]
    storage = urllib.parse.urlsplit(server.storage_url("glance"))
    with (
        FaultProxy("127.0.0.1", _port_of(server.keystone.auth_url)) as keystone,
        FaultProxy("127.0.0.1", _port_of(server.url)) as proxy,
    ):
        identity = urllib.parse.urlsplit(server.keystone.auth_url)
        yield Far(
            {
                "swift_store_auth_address": f"http://{keystone.address}{identity.path}",
                "swift_store_user": f"{who.project}:{who.user}",
                "swift_store_key": who.password,
                "swift_store_endpoint": f"http://{proxy.address}{storage.path}",
                "swift_store_container": "outages",
                "swift_store_create_container_on_put": "true",
            },
            keystone,
            proxy,
        )


@contextlib.contextmanager
def _cinder(request: pytest.FixtureRequest) -> Iterator[Far]:
    server = request.getfixturevalue("cinder")
    ceph = request.getfixturevalue("ceph")
    identity = urllib.parse.urlsplit(server.keystone.auth_url)
    options = {key: str(value) for key, value in server.store_options("plain").items()}
    with (
        FaultProxy("127.0.0.1", _port_of(server.keystone.auth_url)) as keystone,
        FaultProxy("127.0.0.1", server.port) as proxy,
    ):
        options["cinder_store_auth_address"] = f"http://{keystone.address}{identity.path}"
        options["cinder_endpoint_template"] = f"http://{proxy.address}/v3/%(project_id)s"
        yield Far(
            options,
            keystone,
            proxy,
            Surroundings(
                modules=(ceph.bindings(),),
                programs=(server.mount_folder,),
                site=ATTACH_WITHOUT_SUDO,
            ),
        )
        # What an upload has left that lost Cinder on its way.
        Listing(server).clear()


BUILDERS = {"s3": _s3, "swift": _swift, "cinder": _cinder}


@pytest.mark.services
@pytest.mark.parametrize("driver", BUILDERS)
def test_backend_comes_back(
    start_glance: StartGlance, request: pytest.FixtureRequest, driver: str
) -> None:
    request.getfixturevalue("environment")  # without it no server need be started
    with BUILDERS[driver](request) as far:
        far.first.inject(refuse=True)
        glance = start_glance(
            driver, **arguments(driver, far.options, surroundings=far.surroundings)
        )
        with GlanceClient(glance.url) as client:
            image_id = refused(client, glance, "down at the start")
            far.first.inject(refuse=False)
            stored(client, image_id)
            # Gone in the middle of an image.
            image_id = client.create("gone in the middle")

            def lose() -> None:
                if driver == "cinder":
                    # Only requests go there: the data have another way.
                    far.data.inject(refuse=True, reset_after=0)
                else:
                    far.data.inject(reset_after=MIB // 2, direction="up", times=None)

            client.upload(image_id, half_and_half(lose), store=NAME, expect=503)
            assert client.show(image_id)["status"] == "queued"
            far.data.clear()
            stored(client, image_id)


def half_and_half(between: Callable[[], object]) -> Iterator[bytes]:
    """Yield an image, and do something in the middle."""
    block = image_bytes("block", 64 * 1024)
    for number in range(256):
        if number == 128:
            between()
        yield block


@pytest.mark.services
def test_ceph_comes_back(
    start_glance: StartGlance, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue("environment")
    ceph = ceph_of(request.getfixturevalue("own_lab"))
    ceph.command("config set", who="osd", name="osd_client_watch_timeout", value="8")
    conf = tmp_path / "ceph.conf"
    with FaultProxy("127.0.0.1", 9) as nobody:
        nobody.inject(refuse=True)
        # The monitor speaks of its own address: no proxy can stand before it. What changes is where
        # the clients look for it.
        there = ceph.conf.read_text()
        conf.write_text(there.replace(f":{ceph.mon_port}", f":{nobody.port}"))
        assert conf.read_text() != there
        options = {
            "rbd_store_ceph_conf": str(conf),
            "rbd_store_user": ceph.user,
            "rbd_store_pool": ceph.pool,
        }
        surroundings = Surroundings(modules=(ceph.bindings(),))
        glance = start_glance("rbd", **arguments("rbd", options, surroundings=surroundings))
        with GlanceClient(glance.url) as client:
            image_id = refused(client, glance, "down at the start")
            conf.write_text(there)
            stored(client, image_id)
            # Gone in the middle of an image.
            image_id = client.create("gone in the middle")

            def lose() -> None:
                ceph.osd.kill()
                ceph.mon.kill()

            client.upload(image_id, half_and_half(lose), store=NAME, expect=503)
            assert client.show(image_id)["status"] == "queued"
            ceph.heal()
            data = image_bytes("back again")

            def is_stored() -> bool:
                # Not before the cluster has noticed that the upload is over.
                answer = client.upload(image_id, data, store=NAME, expect=None)
                return answer.status_code == 204

            until(is_stored, "the image can be stored", seconds=60, pause=0.5)
            assert client.download(image_id).content == data
            client.delete(image_id)


def test_a_file_system_comes_back(start_glance: StartGlance, tmp_path: Path) -> None:
    """Not mounted at the start, and gone in the middle of an image, as when its server dies."""
    need("bindfs", "bindfs")
    below, share = tmp_path / "below", tmp_path / "share"
    below.mkdir()
    share.mkdir()
    served: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        served.append(subprocess.Popen(["bindfs", "-f", below, share]))
        until(lambda: os.path.ismount(share), "the file system")

    def lose() -> None:
        served[-1].kill()
        served[-1].wait()

    def unmount() -> None:
        subprocess.run(["umount", "--lazy", share], check=False)

    options = {
        "filesystem_store_datadir": str(share / "images"),
        "filesystem_store_require_mount": "true",
    }
    # Where the temporary folder is a file system of its own nothing is missing.
    missing = mount_point(str(tmp_path)) == "/"
    try:
        if not missing:
            serve()
        glance = start_glance("file-gone", **arguments("file", options))
        with GlanceClient(glance.url) as client:
            if missing:
                image_id = refused(client, glance, "not mounted")
                serve()
                stored(client, image_id)
            image_id = client.create("gone in the middle")
            client.upload(image_id, half_and_half(lose), store=NAME, expect=503)
            assert client.show(image_id)["status"] == "queued"
            unmount()
            serve()
            stored(client, image_id)
    finally:
        lose()
        unmount()


@pytest.mark.services
def test_a_vcenter_comes_back(start_glance: StartGlance, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("environment")
    server: VCenter = request.getfixturevalue("vcenter")
    options = {name: str(value) for name, value in server.store_options().items()}
    options["vmware_datastores"] = f"{server.datacenter}:{server.datastores[0]}"
    options["vmware_store_image_dir"] = "/comes-back"
    server.trouble("fault", path="/", status=503, times=100_000)
    glance = start_glance("vmware-gone", **arguments("vmware", options))
    with GlanceClient(glance.url) as client:
        image_id = refused(client, glance, "down at the start")
        server.trouble("clear")
        stored(client, image_id)
        image_id = client.create("gone in the middle")
        server.trouble("fault", method="PUT", cut=9 * MIB)
        client.upload(image_id, half_and_half(lambda: None), store=NAME, expect=503)
        assert client.show(image_id)["status"] == "queued"
        server.trouble("clear")
        stored(client, image_id)
        # Other stores of this Glance's tests have theirs elsewhere.
        assert not [path for path in server.files() if "comes-back" in path.parts]
