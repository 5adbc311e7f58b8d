# SPDX-License-Identifier: Apache-2.0
"""Parts of the Cinder store without a server, and faults that no real one can be made to show."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import socket
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers import cinder
from glance_store._drivers.cinder import (
    attachment,
    client,
    connector,
    errors,
    host,
    nfs,
    volumes,
    writer,
)
from glance_store._drivers.cinder.device import FileDevice, HandleDevice, of_handle
from glance_store.transfer.retry import Patience
from tests.waiting import until

GiB = 1024**3


# -- growth


def test_r193_growth() -> None:
    """3.2 GiB take two extensions, 100 GiB eight; no step is larger than 64 GiB."""

    def sizes(needed: int) -> list[int]:
        found = [1]
        while found[-1] < needed:
            found.append(writer.grown(found[-1], found[-1] + 1))
        return found

    assert sizes(4) == [1, 2, 4]
    assert sizes(100) == [1, 2, 4, 8, 16, 24, 36, 54, 81, 121]
    large = sizes(5000)
    assert max(b - a for a, b in itertools.pairwise(large)) == 64
    assert writer.grown(1, 40) == 40


@pytest.mark.parametrize(
    ("size", "expected"), [(0, 1), (1, 1), (GiB, 1), (GiB + 1, 2), (10 * GiB, 10)]
)
def test_gigabytes(size: int, expected: int) -> None:
    assert writer.gigabytes(size) == expected


@pytest.mark.parametrize("noted", [{}, {"image_size": "x"}, {"image_size": "-5"}], ids=str)
def test_size_that_nobody_has_noted(noted: dict[str, str]) -> None:
    assert volumes.image_bytes(types.SimpleNamespace(metadata=noted, size=2)) == 2 * GiB


# -- the package


def test_prefixes() -> None:
    assert cinder.Store.url_prefix.fget is not None
    for backend, prefix in ((None, "cinder://"), ("fast", "cinder://fast")):
        store = cinder.Store(cfg.ConfigOpts(), backend)
        store.configure()
        assert store.url_prefix == prefix


@pytest.mark.parametrize("missing", ["cinderclient", "os_brick", "oslo_privsep"])
def test_r182_missing_library(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is read-only, and says what to install."""
    if missing == "cinderclient":
        monkeypatch.setattr(cinder, "cinderclient", None)
    else:
        monkeypatch.setitem(__import__("sys").modules, missing, None)
    store = cinder.Store(cfg.ConfigOpts())
    with pytest.raises(exceptions.BadStoreConfiguration, match="pip install"):
        store.configure(re_raise_bsc=True)
    with pytest.raises(exceptions.StoreAddDisabled):
        store.add("id", None, 0, "sha256")


def test_authorization_failure_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    conf = cfg.ConfigOpts()
    store = cinder.Store(conf, "fast")
    for name in ("auth_address", "user_name", "password", "project_name"):
        conf.set_override(f"cinder_store_{name}", "x", group="fast")
    conf.set_override("cinder_volume_type", "x", group="fast")

    def refuse(*_arguments: object, **_more: object) -> None:
        raise exceptions.AuthorizationFailure

    monkeypatch.setattr(cinder.Store, "get_cinderclient", refuse)
    with pytest.raises(exceptions.AuthorizationFailure):
        store.configure()


def test_catalogue_and_template() -> None:
    conf = cfg.ConfigOpts()
    store = cinder.Store(conf, "fast")
    context = types.SimpleNamespace(
        auth_token="t",
        user_id="u",
        project_id="p",
        service_catalog=[
            {
                "type": "volumev3",
                "name": "cinder",
                "endpoints": [
                    {"region": "one", "publicURL": "http://one/v3/p"},
                    {"region": "two", "publicURL": "http://two/v3/p"},
                ],
            }
        ],
    )
    for region in ("one", "two"):
        # r162
        conf.set_override("cinder_os_region_name", region, group="fast")
        client = store.get_cinderclient(context, version="3.54")
        assert client.client.get_endpoint() == f"http://{region}/v3/p"
        assert client.api_version.get_string() == "3.54"
    conf.set_override("cinder_os_region_name", "three", group="fast")
    with pytest.raises(exceptions.BadStoreConfiguration, match="three"):
        store.get_cinderclient(context)
    conf.set_override("cinder_endpoint_template", "http://x/v3/%(tenant)s", group="fast")
    assert store.get_cinderclient(context).client.get_endpoint() == "http://x/v3/p"
    # Without a name it would mean all values, and the token is one of them.
    for template, said in (
        ("http://x/%(nothing)s", "nothing"),
        ("http://x/%s", "%s is unknown"),
        ("x:8776/v3/%(tenant)s", "http://"),
    ):
        conf.set_override("cinder_endpoint_template", template, group="fast")
        with pytest.raises(exceptions.BadStoreConfiguration, match=said):
            store.get_cinderclient(context)


def test_certificates() -> None:
    conf = cfg.ConfigOpts()
    store = cinder.Store(conf, "fast")
    assert store._clients.settings.verify is True
    conf.set_override("cinder_ca_certificates_file", "/some/file", group="fast")
    store.configure()
    assert store._clients.settings.verify == "/some/file"
    conf.set_override("cinder_api_insecure", True, group="fast")
    store.configure()
    assert store._clients.settings.verify is False


def test_what_is_set_is_known_from_the_start() -> None:
    """Before anything else has looked at the options, a default did not differ from a value."""
    conf = cfg.ConfigOpts()
    assert cinder.Store(conf, "fast")._clients.settings.retries is None
    other = cinder.Store(conf, "slow")
    conf.set_override("cinder_http_retries", 3, group="slow")
    assert other._clients.settings.retries == 3


@pytest.mark.parametrize("text", [None, "none"], ids=["missing", "damaged"])
def test_certificates_that_cannot_be_used(tmp_path: Path, text: str | None) -> None:
    """They are a mistake of the operator; later they would look like an outage."""
    file = tmp_path / "authorities.pem"
    if text is not None:
        file.write_text(text)
    conf = cfg.ConfigOpts()
    store = cinder.Store(conf, "fast")
    conf.set_override("cinder_ca_certificates_file", str(file), group="fast")
    with pytest.raises(exceptions.BadStoreConfiguration, match="cinder_ca_certificates_file"):
        store.configure(re_raise_bsc=True)


# -- this host


def test_r176_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPv6 address is preferred, a name is never taken for an address."""
    known = {socket.AF_INET6: "fd00::1", socket.AF_INET: "192.0.2.1"}

    def resolve(_name: str, _port: None, family: int, _kind: int) -> Any:
        if family not in known:
            raise socket.gaierror("unknown")
        return [(family, 1, 6, "", (known[family], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert host.address_of("here") == "fd00::1"
    del known[socket.AF_INET6]
    assert host.address_of("here") == "192.0.2.1"
    known.clear()
    with pytest.raises(exceptions.BackendException, match="/etc/hosts"):
        host.address_of("here")


def test_r164_multipath_to_properties_and_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    from os_brick.initiator import connector as of_brick

    given: dict[str, Any] = {}

    def properties(_helper: str, _ip: str, multipath: bool, enforce: bool, host: str) -> Any:
        given["properties"] = (multipath, enforce)
        return {"host": host}

    def factory(_protocol: str, _helper: str, **options: Any) -> None:
        given["connector"] = options["use_multipath"]

    monkeypatch.setattr(of_brick, "get_connector_properties", properties)
    monkeypatch.setattr(of_brick.InitiatorConnector, "factory", factory)
    here = dataclasses.replace(make_host("/nowhere"), use_multipath=True, enforce_multipath=True)
    # r163
    assert here.properties()["mountpoint"] == "glance_store"
    connector.Connector(here, {"driver_volume_type": "iscsi"}, volume(), "a")._brick()
    assert given == {"properties": (True, True), "connector": True}


def test_r186_lock_path(tmp_path: Path) -> None:
    store = cinder.Store(cfg.ConfigOpts(), "fast")
    store.configure()
    store.conf.set_override("lock_path", str(tmp_path / "general"), group="oslo_concurrency")
    assert host.prepare(store.conf, store.store_conf, "fast").lock_path == f"{tmp_path}/general"
    store.conf.set_override("lock_path", str(tmp_path / "own"), group="os_brick")
    assert host.prepare(store.conf, store.store_conf, "fast").lock_path == f"{tmp_path}/own"


# -- devices


def make_host(folder: Path | str) -> host.Host:
    return host.Host("", False, False, str(folder), str(folder), 5.0)


def volume(size: int = 1) -> Any:
    return types.SimpleNamespace(id="volume", size=size, encrypted=False)


class Brick:
    """Stands for a connector of os-brick: a device of the host, one for all attachments."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Any] = []

    def connect_volume(self, _info: Any) -> dict[str, Any]:
        self.path.touch()
        return {"path": str(self.path), "type": "block"}

    def disconnect_volume(self, _info: Any, device: Any, force: bool = False) -> None:
        self.calls.append(force)
        self.path.unlink()


@pytest.fixture
def brick_of_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Brick:
    found = Brick(tmp_path / "device")
    monkeypatch.setattr(connector.Connector, "_brick", lambda _self: found)
    return found


def test_r169_device_stays_for_the_last_attachment(tmp_path: Path, brick_of_test: Brick) -> None:
    """r181: and goes by force."""
    info = {"driver_volume_type": "iscsi"}
    two = [connector.Connector(make_host(tmp_path), info, volume(), name) for name in "ab"]
    devices = [one.connect(writable=True) for one in two]
    devices[0].write_at(3, memoryview(b"data"))
    devices[0].flush()
    assert devices[1].read_at(0, 10) == b"\0\0\0data"
    two[0].disconnect(devices[0])
    assert brick_of_test.calls == []
    two[1].disconnect(devices[1])
    assert brick_of_test.calls == [True]


@pytest.mark.parametrize(
    ("others", "calls"), [(False, [True]), (None, [False]), (True, [])], ids=str
)
def test_device_that_cinder_knows_another_user_of(
    tmp_path: Path,
    brick_of_test: Brick,
    others: bool | None,
    calls: list[bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its process may share no folder with this one: the device stays, or goes without force."""
    one = connector.Connector(make_host(tmp_path), {}, volume(), "a", lambda: others)
    one.disconnect(one.connect(writable=True))
    assert brick_of_test.calls == calls
    assert ("stays at this host" in caplog.text) == bool(others)


def test_detached_in_the_middle_of_another_connect(tmp_path: Path, brick_of_test: Brick) -> None:
    """As the collector does it, in a thread that holds the lock of the volume."""
    one = connector.Connector(make_host(tmp_path), {}, volume(), "a")
    found = object.__new__(attachment.Attachment)
    found.volume, found.device = volume(), one.connect(writable=True)
    found._volumes = volumes.Volumes(types.SimpleNamespace(call=lambda *_arguments: None))  # type: ignore[arg-type]
    found._lock, found._process, found._detached = threading.Lock(), os.getpid(), False
    found._connector, found._id = one, "a"
    with one._lock():
        found.detach()
        assert brick_of_test.calls == []
    until(lambda: brick_of_test.calls == [True], "the device goes")


def test_use_that_cannot_be_counted(tmp_path: Path, brick_of_test: Brick) -> None:
    """Nothing is connected, and so nothing is disconnected from others."""
    (tmp_path / "glance_store-attachments").write_text("no directory")
    one = connector.Connector(make_host(tmp_path), {}, volume(), "a")
    with pytest.raises(exceptions.BackendException):
        one.connect(writable=True)
    assert not brick_of_test.path.exists()
    assert brick_of_test.calls == []


def test_r197_device_that_stays_is_reported(tmp_path: Path, brick_of_test: Brick) -> None:
    one = connector.Connector(make_host(tmp_path), {}, volume(), "a")
    device = one.connect(writable=False)
    os.unlink(brick_of_test.path)
    with pytest.raises(exceptions.BackendException, match=str(brick_of_test.path)):
        one.disconnect(device)


def test_r177_scaleio_waits_for_the_size(
    tmp_path: Path, brick_of_test: Brick, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def size(_device: FileDevice) -> int:
        seen.append(1)
        return 2 * GiB if len(seen) > 2 else GiB

    monkeypatch.setattr(FileDevice, "size", size)
    monkeypatch.setattr(connector, "_SCALEIO_POLL", 0.01)
    one = connector.ScaleIOConnector(make_host(tmp_path), {}, volume(2), "a")
    one.disconnect(one.connect(writable=True))
    assert len(seen) == 3
    monkeypatch.setattr(connector, "_SCALEIO_TIMEOUT", 0.0)
    monkeypatch.setattr(FileDevice, "size", lambda _device: GiB)
    with pytest.raises(exceptions.BackendException, match="did not get"):
        one.connect(writable=True)
    assert brick_of_test.calls == [True, True]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ESTALE, exceptions.BackendUnavailable), (-errno.ETIMEDOUT, errors.CinderUnavailable)],
)
def test_storage_that_is_gone_when_a_volume_is_connected(
    number: int,
    expected: type[Exception],
    tmp_path: Path,
    brick_of_test: Brick,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may come back; os-brick hides what librados says behind an error of its own."""

    def refuse(_info: object) -> None:
        error = OSError("no answer")
        error.errno = number
        try:
            raise error
        except OSError:
            if number > 0:
                raise
            raise RuntimeError("Error connecting to ceph cluster.")  # noqa: B904 - as os-brick

    monkeypatch.setattr(brick_of_test, "connect_volume", refuse)
    one = connector.Connector(make_host(tmp_path), {}, volume(), "a")
    with pytest.raises(expected, match="cannot be connected"):
        one.connect(writable=False)


@pytest.mark.parametrize(
    ("info", "words"),
    [({"format": "qcow2"}, "nfs_qcow2_volumes"), ({"encrypted": True}, "encrypted")],
    ids=["r168-qcow2", "r167-encrypted"],
)
def test_nfs_volumes_that_would_damage_images(
    tmp_path: Path, info: dict[str, Any], words: str
) -> None:
    """They are refused before anything is mounted."""
    share = {"driver_volume_type": "nfs", "export": "10.0.0.1:/x", "name": "volume", **info}
    one = nfs.NFSConnector(make_host(tmp_path), share, volume(), "a")
    with pytest.raises(exceptions.BackendException, match=words):
        one.connect(writable=True)
    assert not os.path.exists(one.mount_point)


@pytest.mark.parametrize("name", ["../secret", "a/b", "..", "", "link"])
def test_nfs_name_that_leads_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Who may write to the share must not get at other files of this host."""
    share = {"driver_volume_type": "nfs", "export": "10.0.0.1:/x", "name": name}
    monkeypatch.setattr(nfs, "is_mounted", lambda _path: True)
    monkeypatch.setattr(host.Host, "execute", lambda *_arguments: None)
    one = nfs.NFSConnector(make_host(tmp_path), share, volume(), "a")
    os.makedirs(one.mount_point)
    (tmp_path / "secret").write_text("secret")
    os.symlink(tmp_path / "secret", os.path.join(one.mount_point, "link"))
    with pytest.raises(exceptions.BackendException):
        one.connect(writable=True)
    assert (tmp_path / "secret").read_text() == "secret"


def test_owner_of_a_link_on_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link may get another owner for a while, and what it leads to never does."""
    run: list[tuple[str, ...]] = []
    monkeypatch.setattr(host.Host, "execute", lambda _self, *command: run.append(command))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    os.symlink("/etc/passwd", tmp_path / "link")
    with make_host(tmp_path).owning(str(tmp_path / "link"), follow=False):
        pass
    assert [command[:2] for command in run] == [("chown", "-h")] * 2


def test_share_that_lets_nobody_change_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that this process may use anyway can be used."""

    def refuse(_host: host.Host, *_command: str) -> None:
        raise errors.CinderError("chown: Operation not permitted")

    monkeypatch.setattr(host.Host, "execute", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (tmp_path / "volume").write_bytes(b"x")
    with make_host(tmp_path).owning(str(tmp_path / "volume"), follow=False):
        pass
    monkeypatch.setattr(os, "access", lambda *_arguments, **_options: False)
    with (
        pytest.raises(errors.CinderError, match="not permitted"),
        make_host(tmp_path).owning(str(tmp_path / "volume"), follow=False),
    ):
        pytest.fail("it may not be used")


def test_process_that_has_chosen_keeps_its_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """How it gets the rights of root, and which threads it waits with."""
    import os_brick.privileged
    from oslo_privsep import priv_context
    from oslo_service import backend

    monkeypatch.setattr(priv_context, "_HELPER_COMMAND_PREFIX", ["sudo", "its-own"])
    monkeypatch.setattr(os_brick.privileged.default, "client_mode", True)
    monkeypatch.setattr(backend, "_backend_hook", mine := lambda: backend.BackendType.THREADING)
    store = cinder.Store(cfg.ConfigOpts(), "fast")
    store.configure()
    assert os_brick.privileged.default.client_mode
    assert priv_context._HELPER_COMMAND_PREFIX == ["sudo", "its-own"]
    assert backend._backend_hook is mine


def test_mount_points_with_spaces(tmp_path: Path) -> None:
    """The kernel writes them in another way."""
    assert nfs.is_mounted("/proc")
    assert not nfs.is_mounted(str(tmp_path))
    assert nfs._ESCAPE.sub(lambda found: chr(int(found[1], 8)), r"/a\040b\134") == "/a b\\"


def test_handles(tmp_path: Path) -> None:
    with open(tmp_path / "handle", "w+b") as handle:
        device = of_handle(handle)
        assert isinstance(device, HandleDevice)
        device.write_at(5, memoryview(b"data")[1:])
        device.flush()
        assert device.size() == 8
        assert device.read_at(4, 100) == b"\0ata"
        device.close()


# -- errors


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, exceptions.StorageFull),
        (-errno.EFBIG, exceptions.StorageFull),
        (errno.EACCES, exceptions.StorageWriteDenied),
        (errno.EIO, exceptions.BackendUnavailable),
        (errno.ESHUTDOWN, exceptions.BackendUnavailable),
        (errno.EINVAL, exceptions.BackendException),
    ],
)
def test_device_errors(number: int, expected: type[Exception]) -> None:
    error = OSError("words")
    error.errno = number
    with pytest.raises(expected, match="words"), errors.device_errors("x", writing=True):
        raise error
    with pytest.raises(errors.CinderError), errors.device_errors("x", writing=False):
        raise error


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, exceptions.NotFound),
        (401, exceptions.NotAuthenticated),
        (403, exceptions.Forbidden),
        (413, exceptions.StorageFull),
        (429, exceptions.BackendUnavailable),
        (520, exceptions.BackendUnavailable),
        (503, exceptions.RemoteServiceUnavailable),
        (400, exceptions.BackendException),
    ],
)
def test_answers(status: int, expected: type[Exception]) -> None:
    from cinderclient import exceptions as of_client

    error = of_client.ClientException(status, "words\nof Cinder")
    found = errors.translate(error, "Doing it", 5)
    assert isinstance(found, expected)
    assert isinstance(found, exceptions.BackendException)
    assert "Doing it" in str(found)
    assert "words of Cinder" in str(found)


def test_catalogue_without_cinder() -> None:
    """With credentials of the store as with those of a request: an option is wrong."""
    from keystoneauth1 import exceptions as of_keystone

    error = of_keystone.EndpointNotFound("publicURL endpoint for volumev3 service not found")
    found = errors.translate(error, "Doing it", 5)
    assert isinstance(found, exceptions.BadStoreConfiguration)
    assert isinstance(found, exceptions.BackendException)
    assert "volumev3 service not found; correct cinder_catalog_info" in str(found)


def test_quota_that_is_said_in_words() -> None:
    from cinderclient import exceptions as of_client

    for words, expected in (
        ("Quota exceeded for resources: ['volumes']", exceptions.StorageFull),
        ("Policy doesn't allow quotas to be shown", exceptions.Forbidden),
    ):
        found = errors.translate(of_client.ClientException(403, words), "Doing it", 5)
        assert isinstance(found, expected)


def test_what_an_upload_has_made_is_no_missing_image() -> None:
    with pytest.raises(errors.CinderError, match="gone") as caught, errors.never_missing():
        raise errors.VolumeNotFound("gone")
    assert not isinstance(caught.value, exceptions.NotFound)


class Refusing:
    """Stands for a Cinder that does not delete a volume, whose record says why, or does not."""

    def __init__(self, **record: Any) -> None:
        self.record = {"id": "v", "status": "available", "attachments": [], **record}
        self.volumes, self.volume_snapshots, self.asked = self, self, 0

    def get(self, _volume: str) -> Any:
        return types.SimpleNamespace(**self.record)

    def list(self, search_opts: object) -> list[object]:
        return []

    def delete(self, _volume: str) -> None:
        from cinderclient import exceptions as of_client

        self.asked += 1
        if self.asked > 1 and self.record.get("passes"):
            return
        raise of_client.ClientException(400, "must not be migrating or belong to a group")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"status": "maintenance"}, exceptions.InUseByStore),
        ({"status": "backing-up"}, exceptions.InUseByStore),
        ({"attachments": ["one"]}, exceptions.InUseByStore),
        ({"status": "deleting"}, exceptions.NotFound),
        ({"status": "error_deleting"}, errors.CinderError),
        ({"passes": True}, None),
        ({}, exceptions.InUseByStore),
    ],
    ids=str,
)
def test_why_a_volume_is_not_deleted(
    record: dict[str, Any], expected: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once where its record says it; else what is said last counts."""
    monkeypatch.setattr(volumes, "_DETACHING_LASTS", 0.3)
    refusing = Refusing(**record)
    own = volumes.Volumes(client.Api(refusing, client.Settings(True, None, 5, 5)))
    if expected is None:
        own.delete("v")
        return
    with pytest.raises(expected, match=r"its status|migrating|already"):
        own.delete("v")
    assert (refusing.asked == 1) == bool(record)


def note_answer(status: int, asked: str | None) -> None:
    """Let a request of this thread have been answered."""
    headers = {"Retry-After": asked}
    client._note_answer(types.SimpleNamespace(status_code=status, headers=headers))


@pytest.mark.parametrize(
    ("status", "asked", "again"),
    [(429, "7", True), (429, None, True), (413, "7", True), (413, "0", False), (503, "7", False)],
)
def test_time_that_is_asked_for(
    status: int, asked: str | None, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of requests that must not be carried out twice only what was not begun is sent again."""
    from cinderclient import exceptions as of_client

    waited: list[float] = []
    monkeypatch.setattr(Patience, "wait", lambda _self, seconds: waited.append(seconds))
    answers = iter([status])

    def request(_client: object) -> str:
        if found := next(answers, None):
            note_answer(found, asked)
            raise of_client.ClientException(found, "later")
        return "done"

    api = client.Api(None, client.Settings(True, None, 5, 5))
    if not again:
        with pytest.raises(exceptions.BackendException):
            api.call("Doing it", request, again=False)
        assert waited == []
        return
    assert api.call("Doing it", request, again=False) == "done"
    assert len(waited) == 1
    assert waited[0] >= float(asked or 0)


@pytest.mark.parametrize("answer", ["503", "a page of a proxy"])
def test_request_whose_answer_is_lost(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent again when nothing of it is found, and taken for done when something is."""
    from cinderclient import exceptions as of_client

    sent: list[int] = []
    waited: list[float] = []
    monkeypatch.setattr(Patience, "wait", lambda _self, seconds: waited.append(seconds))

    def request(_client: object) -> str:
        sent.append(1)
        client._note_answer(None)
        if len(sent) < 3:
            if answer == "503":
                note_answer(503, "7")
                raise of_client.ClientException(503, "out of order")
            raise TypeError("'NoneType' object is not subscriptable")
        return "made"

    api = client.Api(None, client.Settings(True, None, 5, 5))
    assert api.settle("Making it", request, lambda: None) == "made"
    assert len(sent) == 3
    assert (min(waited) >= 7) == (answer == "503")
    sent.clear()
    assert api.settle("Making it", request, lambda: "found") == "found"
    assert len(sent) == 1
