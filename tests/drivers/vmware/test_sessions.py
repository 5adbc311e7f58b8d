# SPDX-License-Identifier: Apache-2.0
"""The session at the vCenter: shared, renewed once, given to nobody else; time-outs, TLS."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from glance_store import exceptions
from glance_store._drivers.vmware_datastore.session import Session
from glance_store._drivers.vmware_datastore.writer import DatastoreWriter
from tests.drivers.vmware.conftest import MIB, Images, MakeStore
from tests.services.base import Lab
from tests.services.vcenter import VCenter

pytestmark = pytest.mark.services


def logins(server: VCenter) -> int:
    return sum("/sdk Login " in line for line in server.requests())


@pytest.fixture
def other_server(server: VCenter) -> Iterator[VCenter]:
    """Give a second one."""
    lab = Lab([VCenter])
    yield lab.get(VCenter)
    lab.down()


def test_r224_r232_one_login_for_all_threads(images: Images, server: VCenter) -> None:
    uris = [images.add(f"image-{number}", bytes([number]) * 1000) for number in range(8)]
    before = logins(server)
    server.trouble("expire")
    wrong = []

    def read(number: int) -> None:
        if images.read(uris[number]) != bytes([number]) * 1000:
            wrong.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert logins(server) == before + 1
    sent = [line for line in server.requests() if " /folder/" in line]
    assert sent
    assert all("cookie=true" in line for line in sent)


@pytest.mark.parametrize("moment", range(4))
def test_r225_session_that_ends_during_an_upload(
    images: Images, server: VCenter, moment: int
) -> None:
    """Before it, in its data, and before the move."""
    data = io.BytesIO(os.urandom(13 * MIB))
    reads = 0

    class Source:
        def read(self, length: int) -> bytes:
            nonlocal reads
            if reads == 6 * moment:
                server.trouble("expire")
            reads += 1
            return data.read(min(length, MIB))

    uri = images.store.add("image", Source(), 13 * MIB, "sha256")[0]
    assert reads > 6 * moment or moment == 3
    assert images.read(uri) == data.getvalue()


def test_session_that_ends_during_a_download(images: Images, server: VCenter) -> None:
    data = os.urandom(40 * MIB)
    uri = images.add("image", data)
    chunks, _size = images.store.get(images.locate(uri))
    first = next(chunks)
    server.trouble("expire")
    assert first + b"".join(chunks) == data
    server.trouble("expire")
    images.delete(uri)


def test_r235_refused_again(images: Images, server: VCenter) -> None:
    """That is an error, and never an image."""
    uri = images.add("image", b"data")
    server.trouble("fault", path="/folder", status=401, times=1000)
    with pytest.raises(exceptions.Forbidden, match="401"):
        images.read(uri)
    with pytest.raises(exceptions.Forbidden):
        images.add("other", b"data")
    server.trouble("clear")
    server.trouble("fault", path="/sdk", soap="NotAuthenticated", times=1000)
    for call in (lambda: images.delete(uri), lambda: images.add("other", b"data")):
        with pytest.raises(exceptions.Forbidden, match="NotAuthenticated"):
            call()


def test_r235_upload_that_is_refused_again(images: Images, server: VCenter) -> None:
    server.trouble("fault", method="PUT", status=401)
    images.add("image", b"data")
    server.trouble("fault", method="PUT", status=401, times=1000)
    before = len(server.requests())
    with pytest.raises(exceptions.Forbidden, match="401"):
        images.add("other", b"data")
    assert sum(" PUT " in line for line in server.requests()[before:]) == 2


def test_r226_an_upload_that_is_refused_in_its_middle(
    images: Images, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not sent again: its data was read."""
    # So small that the first one is on its way before the answer comes.
    monkeypatch.setattr(DatastoreWriter, "block_size", 64 * 1024)
    server.trouble("fault", method="PUT", status=401, delay_ms=300)
    with pytest.raises(exceptions.BackendException):
        images.add("image", bytes(9 * MIB))
    assert server.files() == []


def test_missing_privileges(images: Images, server: VCenter) -> None:
    uri = images.add("image", b"data")
    server.trouble("fault", path="/folder", status=403, times=1000)
    for call in (lambda: images.read(uri), lambda: images.add("other", b"data")):
        with pytest.raises(exceptions.Forbidden, match="403 Forbidden"):
            call()


def test_images_are_deleted_without_the_privilege_to_browse(
    images: Images, server: VCenter
) -> None:
    """Only listings need it."""
    uri = images.add("image", b"data")
    server.trouble("fault", operation="SearchDatastore_Task", soap="NoPermission", times=1000)
    images.delete(uri)
    assert server.files() == []
    with pytest.raises(exceptions.NotFound):
        images.delete(uri)
    # In the place of a directory, the server has a list of its files, or redirects to one.
    directory = uri.replace("/openstack_glance/image?", "/openstack_glance?")
    images.store._directory = ""
    with pytest.raises(exceptions.Forbidden, match="it is a directory"):
        images.delete(directory)


def test_redirects(images: Images, server: VCenter, other_server: VCenter) -> None:
    uri = images.add("image", b"data")
    (file,) = server.files()
    datastore = file.parts[0].replace(" ", "+")
    target = f"/folder/openstack_glance/image?dcPath=DC0&dsName={datastore}&hop=1"
    server.trouble("fault", method="GET", status=302, location=server.url + target)
    assert images.read(uri) == b"data"
    server.trouble("fault", path="/folder", status=302, location=target, times=1000)
    with pytest.raises(exceptions.MaxRedirectsExceeded):
        images.read(uri)
    server.trouble("clear")
    # The usual port is not another server.
    server.trouble("fault", method="GET", status=302, location=f"{server.url}:443{target}")
    assert images.read(uri) == b"data"
    # Another server sees no cookie: here it refuses for that reason.
    server.trouble("fault", method="GET", status=302, location=other_server.url + target, times=9)
    with pytest.raises(exceptions.GlanceStoreException):
        images.read(uri)
    seen = [line for line in other_server.requests() if "/folder" in line]
    assert not any("cookie=true" in line for line in seen)
    server.trouble("clear")
    server.trouble("fault", method="PUT", status=302, location=other_server.url + target)
    server.trouble("fault", method="GET", status=301, location=f"http://{server.host}/x")
    server.trouble("fault", method="GET", status=301, location="https://[x/", times=9)
    for call in (lambda: images.add("other", b"data"), *2 * [lambda: images.read(uri)]):
        with pytest.raises(exceptions.BackendException, match="redirects"):
            call()


def test_login_is_sent_to_no_other_server(
    make_store: MakeStore, server: VCenter, other_server: VCenter
) -> None:
    server.trouble("fault", operation="Login", status=307, location=other_server.url + "/sdk")
    with pytest.raises(exceptions.GlanceStoreException, match="307"):
        make_store()
    assert not any("Login" in line for line in other_server.requests())


def test_r231_certificates(
    make_store: MakeStore,
    server: VCenter,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The options hold, whatever the environment says."""
    foreign = tmp_path / "foreign.pem"
    import trustme

    trustme.CA().cert_pem.write_to_path(foreign)
    with pytest.raises(exceptions.BackendUnavailable, match="vmware_ca_file"):
        make_store(vmware_ca_file=str(foreign))
    with pytest.raises(exceptions.BackendUnavailable, match="TLS failed"):
        make_store(vmware_ca_file=None)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(foreign))
    images = Images(make_store())
    assert images.read(images.add("image", b"data")) == b"data"
    foreign.write_text("no certificate")
    for name in ("/nowhere.pem", str(foreign)):
        with pytest.raises(
            exceptions.BadStoreConfiguration, match=r"vmware_ca_file = .* cannot be used"
        ):
            make_store(vmware_ca_file=name)
    assert "is not verified" not in caplog.text


def test_credentials_of_the_home_directory_are_not_sent(
    make_store: MakeStore, sent_with_netrc: list[requests.PreparedRequest]
) -> None:
    """requests sends them where a session does not say who asks."""
    images = Images(make_store())
    assert images.read(images.add("image", b"data")) == b"data"
    assert {request.method for request in sent_with_netrc} >= {"GET", "POST", "PUT"}
    assert not any("Authorization" in request.headers for request in sent_with_netrc)


def test_directory_of_authorities(make_store: MakeStore, server: VCenter, tmp_path: Path) -> None:
    """As ``openssl rehash`` makes it; it holds for the API and for files."""
    with pytest.raises(exceptions.BackendUnavailable, match="vmware_ca_file"):
        make_store(vmware_ca_file=str(tmp_path))
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(server.authority)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.copy(server.authority, tmp_path / f"{done.stdout.strip()}.0")
    images = Images(make_store(vmware_ca_file=str(tmp_path)))
    assert images.read(images.add("image", b"data")) == b"data"


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_unverified(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    images = Images(make_store(vmware_ca_file=None, vmware_insecure=True))
    assert images.read(images.add("image", b"data")) == b"data"
    assert "is not verified" in caplog.text


@pytest.mark.parametrize("path", ["/sdk", "/folder"])
def test_silent_server(make_store: MakeStore, server: VCenter, path: str) -> None:
    """Every request ends."""
    images = Images(
        make_store(
            vmware_store_read_timeout=1,
            vmware_store_retry_timeout=0,
            vmware_datastores=["DC0:ds1"],
        )
    )
    server.trouble("fault", path=path, delay_ms=2000)
    with pytest.raises(exceptions.BackendUnavailable, match="timed out"):
        images.add("image", b"data")
    assert images.read(images.add("image", b"data")) == b"data"


def test_silent_description(make_store: MakeStore, server: VCenter) -> None:
    from glance_store._drivers.vmware_datastore import soap

    soap._descriptions.cache_clear()
    server.trouble("fault", path="/sdk/vimService.wsdl", delay_ms=3000)
    with pytest.raises(exceptions.BackendUnavailable, match="timed out"):
        make_store(vmware_store_read_timeout=1)
    soap._descriptions.cache_clear()
    server.trouble("fault", path="/sdk/vimService.wsdl", status=503)
    with pytest.raises(exceptions.BackendUnavailable, match="503"):
        make_store()
    make_store()


def test_server_that_is_down(make_store: MakeStore) -> None:
    words = r"Connection refused \(vmware_server_host = 127.0.0.9\)"
    with pytest.raises(exceptions.BackendUnavailable, match=words):
        make_store(vmware_server_host="127.0.0.9")


_PROGRAM = """
import io, os, sys, threading
before = set(sys.modules)
from oslo_config import cfg
from glance_store._drivers.vmware_datastore import Store
assert "oslo_vmware" not in sys.modules
conf = cfg.ConfigOpts()
store = Store(conf, "datastores")
for name, value in {options!r}.items():
    conf.set_override(name, value, group="datastores")
store.configure(re_raise_bsc=True)
store.add("parent", io.BytesIO(b"data"), 4, "sha256")
child = os.fork()
store.add(f"image-{{bool(child)}}", io.BytesIO(b"data"), 4, "sha256")
thread = threading.Thread(target=store.add, args=(f"t-{{bool(child)}}", io.BytesIO(), 0, "md5"))
thread.start()
thread.join()
assert not {{"eventlet", "oslo_service"}} & set(sys.modules)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_processes(server: VCenter) -> None:
    """A child has a session of its own; each ends with its process; no eventlet is imported."""
    before = server.requests()
    program = _PROGRAM.format(options=server.store_options())
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(server.files()) == 5
    lines = server.requests()[len(before) :]
    assert sum("/sdk Login " in line for line in lines) == 2
    assert sum("/sdk Logout " in line for line in lines) == 2


def test_server_that_is_no_vcenter(make_store: MakeStore, server: VCenter) -> None:
    from glance_store._drivers.vmware_datastore import soap

    soap._descriptions.cache_clear()
    server.trouble("fault", path="/sdk", status=200, times=9)
    with pytest.raises(exceptions.BadStoreConfiguration, match="does not speak the vSphere API"):
        make_store()


def test_a_task_that_does_not_end(
    make_store: MakeStore, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here they end before their call returns."""
    images = Images(make_store(vmware_store_task_timeout=1, vmware_task_poll_interval=1))
    found = Session.property

    def running(self: Session, target: object, name: str, action: str) -> object:
        info = found(self, target, name, action)
        if name == "info" and action.startswith("Storing"):
            info.state = "running"
        return info

    monkeypatch.setattr(Session, "property", running)
    # The move has been done all the same, as a look at the files shows.
    assert images.read(images.add("image", b"data")) == b"data"
    assert any("CancelTask" in line for line in server.requests())

    def lost(self: DatastoreWriter, file: object) -> bool:
        raise exceptions.BackendUnavailable("The server has gone")

    monkeypatch.setattr(DatastoreWriter, "_is_there", lost)
    with pytest.raises(exceptions.BackendUnavailable, match="has gone"):
        images.add("other", b"data")
    assert [path.name for path in server.files()] == ["image"]
