# SPDX-License-Identifier: Apache-2.0
"""The rbd driver without a cluster: missing bindings, seams, errors, sizes."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
import types
from unittest import mock

import pytest
from oslo_config import cfg

import glance_store
from glance_store import capabilities, exceptions, location
from glance_store._drivers import rbd as package
from glance_store._drivers.rbd import errors
from glance_store._drivers.rbd.connection import Settings, unknown_hosts
from glance_store._drivers.rbd.image import is_possible_name
from glance_store._drivers.rbd.writer import WriteSettings, default_features, grown
from tests.waiting import until

MIB = 1024 * 1024
GIB = 1024 * MIB


class Error(Exception):
    """Stands for the errors of the bindings, which cannot be made without them."""

    def __init__(self, number):
        super().__init__(f"[errno {number}] it failed")
        self.errno = number


Error.__module__ = "rbd"


class IncompleteWriteError(Error):
    """What `Image.write` raises when less was written than given."""


IncompleteWriteError.__module__ = "rbd"


@pytest.fixture
def link():
    return mock.Mock(timeout=7.0)


# -- bindings


def test_r147_missing_bindings(monkeypatch, caplog):
    monkeypatch.setitem(vars(package), "rados", None)
    monkeypatch.setitem(vars(package), "rbd", None)
    store = package.Store(cfg.ConfigOpts(), "ceph")
    with pytest.raises(exceptions.BadStoreConfiguration, match="python3-rados and python3-rbd"):
        store.configure(re_raise_bsc=True)
    assert "no Python package index" in caplog.text
    assert not store.is_capable(glance_store.capabilities.BitMasks.WRITE_ACCESS)
    place = location.Location("rbd", package.StoreLocation, store.conf, uri="rbd://image")
    with pytest.raises(exceptions.BadStoreConfiguration, match="python3-rados"):
        store.get(place)


def test_bindings_are_imported_when_they_are_asked_for():
    code = """
import sys
import glance_store._drivers.rbd as package
print("rados" in sys.modules or "rbd" in sys.modules)
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("rados", "rbd"):
            raise ImportError("not here")
sys.meta_path.insert(0, Refuse())
print(package.rados, package.rbd)
try:
    package.other
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = "module 'glance_store._drivers.rbd' has no attribute 'other'"
    assert done.stdout.splitlines() == ["False", "None None", said]


# -- seams


@pytest.fixture
def mocked(monkeypatch):
    monkeypatch.setitem(vars(package), "rados", mock.MagicMock())
    monkeypatch.setitem(vars(package), "rbd", mock.MagicMock())


def test_stores_can_be_created_without_a_cluster(mocked, process_conf):
    """As the image service's own tests do it."""
    process_conf.set_override("enabled_backends", {"fast": "rbd"})
    glance_store.register_store_opts(process_conf)
    with mock.patch.object(package.Store, "get_connection") as connect:
        connect.return_value.__enter__.return_value.get_fsid.return_value = "FSID"
        glance_store.create_multi_stores(process_conf)
    store = location.SCHEME_TO_CLS_BACKEND_MAP["rbd"]["fast"]["store"]
    assert store.url_prefix == "rbd://FSID/images/"
    assert (store.pool, store.chunk_size, store.thin_provisioning) == ("images", 8 * MIB, False)
    assert store.READ_CHUNKSIZE == store.WRITE_CHUNKSIZE == 8 * MIB


def test_r138_fsid_as_bytes(mocked):
    store = package.Store(cfg.ConfigOpts(), "ceph")
    with mock.patch.object(package.Store, "get_connection") as connect:
        connect.return_value.__enter__.return_value.get_fsid.return_value = b"FSID"
        store.configure(re_raise_bsc=True)
    assert store.url_prefix == "rbd://FSID/images/"


def test_r149_user_that_is_not_set(mocked):
    """librados decides then; it is not asked for a user called None."""
    store = package.Store(cfg.ConfigOpts(), "ceph")
    with store.get_connection():
        pass
    _args, options = package.rados.Rados.call_args
    assert options["rados_id"] is None
    assert options["conffile"] == ""


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ECONNREFUSED, errno.EIO])
def test_cluster_that_is_down_when_the_service_starts(mocked, conf, caplog, number):
    conf.set_override("enabled_backends", {"ceph": "rbd", "files": "file"})
    store = package.Store(conf, "ceph")
    connect = package.rados.Rados.return_value.connect
    connect.side_effect = Error(number)
    store.configure(re_raise_bsc=True)
    assert store.is_capable(capabilities.BitMasks.WRITE_ACCESS)
    assert (store.configuration_error, store.url_prefix) == (None, "rbd://")
    assert "The store tries again when it is used" in caplog.text
    # Told from other stores all the same.
    assert store.storage_ids() == {"pool images of Ceph cluster of ceph.conf"}
    with pytest.raises(exceptions.BackendUnavailable), store.get_connection():
        pytest.fail("there is no connection")
    connect.side_effect = None
    with store.get_connection():
        pass


def test_cluster_that_is_silent_when_the_service_starts(mocked, conf, caplog, monkeypatch):
    """By default librados waits for five minutes, and other stores of the service with it."""
    monkeypatch.setattr(package.store, "_START_TIMEOUT", 0.1)
    answered = threading.Event()
    native = package.rados.Rados.return_value
    native.connect.side_effect = lambda: answered.wait(30)
    native.get_fsid.return_value = "cluster"
    store = package.Store(conf, "ceph")
    store.configure(re_raise_bsc=True)
    assert store.is_capable(capabilities.BitMasks.WRITE_ACCESS)
    assert (store.configuration_error, store.url_prefix) == (None, "rbd://")
    assert "has not answered within 0.1 seconds" in caplog.text
    answered.set()
    until(lambda: store.url_prefix == "rbd://cluster/images/", "the late answer counts")
    with store.get_connection():
        assert native.connect.call_count == 1


@pytest.mark.parametrize(
    ("number", "monitors", "missing"),
    [
        (errno.EINVAL, "[v2:mon.invalid:3300/0], 127.0.0.1", "mon.invalid"),
        (errno.ENOENT, "", "the DNS records (SRV) of the monitors"),
    ],
)
def test_monitors_that_dns_does_not_find_when_the_service_starts(
    mocked, conf, caplog, number, monitors, missing
):
    """The library says the same of mistakes, and these make a store read-only."""
    store = package.Store(conf, "ceph")
    native = package.rados.Rados.return_value
    native.conf_get.side_effect = {"mon_host": monitors}.get
    native.connect.side_effect = Error(number)
    store.configure(re_raise_bsc=True)
    assert store.is_capable(capabilities.BitMasks.WRITE_ACCESS)
    assert f"DNS does not find {missing}: check DNS" in caplog.text
    with pytest.raises(exceptions.BackendUnavailable), store.get_connection():
        pytest.fail("there is no connection")
    native.conf_get.side_effect = {"mon_host": "127.0.0.1"}.get
    with pytest.raises(errors.ClusterRefused), store.get_connection():
        pytest.fail("there is no connection")


def test_hosts_of_monitors(monkeypatch):
    """Addresses are not looked up."""
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, _port: asked.append(host))
    monitors = "a:6789, b;[v2:c:3300/0,v1:c:6789/0] [v2:[2001:db8::1]:3300,v1:[fe80::12]:1] ::1"
    assert unknown_hosts(monitors) == []
    assert asked == ["a", "b", "c"]


class Files:
    """Ceph's configuration file, keyring and keyfile, and the connections made with them."""

    def __init__(self, folder):
        self.paths = [folder / "ceph.conf", folder / "keyring", folder / "key"]
        for path in self.paths:
            path.write_text("old")
        self.made = []
        package.rados.Rados.side_effect = self._connect

    def _connect(self, **_options):
        answers = {"keyring": f"{self.paths[1]},/nowhere/keyring", "keyfile": str(self.paths[2])}
        answers["rados_osd_op_timeout"] = "0"
        native = mock.MagicMock()
        native.conf_get.side_effect = answers.get
        native.get_fsid.return_value = f"cluster-{len(self.made)}"
        self.made.append(native)
        return native


@pytest.fixture
def files(mocked, tmp_path):
    return Files(tmp_path)


@pytest.mark.parametrize("changed", [0, 1, 2])
@pytest.mark.parametrize("by_variable", [False, True])
def test_file_that_changes_under_a_running_process(files, monkeypatch, changed, by_variable):
    """The next operation connects anew: the old key, for one, is of no use any more."""
    conf = cfg.ConfigOpts()
    store = package.Store(conf, "ceph")
    if by_variable:
        monkeypatch.setenv("CEPH_CONF", str(files.paths[0]))
    else:
        conf.set_override("rbd_store_ceph_conf", str(files.paths[0]), group="ceph")
    with store.get_connection() as first, store.get_connection() as second:
        assert first is second
    files.paths[changed].write_text("something new")
    with store.get_connection() as third:
        assert third is not first
    files.paths[changed].unlink()
    with store.get_connection() as fourth:
        assert fourth is third


def test_cluster_that_was_made_anew(files):
    """The id of the cluster in new locations is that of the connection in use."""
    conf = cfg.ConfigOpts()
    store = package.Store(conf, "ceph")
    conf.set_override("rbd_store_ceph_conf", str(files.paths[0]), group="ceph")
    store.configure(re_raise_bsc=True)
    for number in range(2):
        with store._lease():
            assert store.url_prefix == f"rbd://cluster-{number}/images/"
            assert store._location_of("x").fsid == f"cluster-{number}"
        files.paths[0].write_text("of another cluster")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_cluster_that_refuses_the_options(mocked, conf, number):
    store = package.Store(conf, "ceph")
    package.rados.Rados.return_value.connect.side_effect = Error(number)
    store.configure()
    assert not store.is_capable(capabilities.BitMasks.WRITE_ACCESS)
    assert "the Ceph cluster cannot be used" in store.configuration_error


@pytest.mark.parametrize(("timeout", "expected"), [(-1, None), (0, "0"), (17, "17")])
def test_r136_timeouts(timeout, expected):
    options = Settings("", None, timeout).options()
    names = ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout")
    assert [options.get(name) for name in names] == [expected] * 3


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        ({"ceph": "rbd"}, exceptions.BackendException),
        ({"ceph": "rbd", "files": "file"}, exceptions.BadStoreConfiguration),
        (None, exceptions.BackendException),
    ],
)
@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ETIMEDOUT, errno.EIO])
def test_r155_cluster_that_cannot_be_reached(mocked, conf, backends, expected, number):
    conf.set_override("enabled_backends", backends)
    store = package.Store(conf, "ceph" if backends else None)
    package.rados.Rados.return_value.connect.side_effect = Error(number)
    with pytest.raises(expected, match="cluster cannot be used"), store.get_connection():
        pytest.fail("there is no connection")


# -- errors


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOENT, exceptions.NotFound),
        (errno.EEXIST, exceptions.Duplicate),
        (errno.EBUSY, exceptions.InUseByStore),
        (errno.ENOTEMPTY, exceptions.InUseByStore),
        (errno.ENOSPC, exceptions.StorageFull),
        (errno.EDQUOT, exceptions.StorageFull),
        (errno.EPERM, exceptions.StorageWriteDenied),
        (errno.ETIMEDOUT, exceptions.TimeoutError),
        (errno.ESHUTDOWN, exceptions.RemoteServiceUnavailable),
        (errno.EIO, exceptions.BackendException),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_r139_errors(link, number, expected, sign):
    with (
        pytest.raises(expected) as caught,
        errors.translated("Doing it", link, "image", exceptions.StorageWriteDenied),
    ):
        raise Error(sign * number)
    assert "image" in str(caught.value) or "Doing it" in str(caught.value)
    lost = number in (errno.ETIMEDOUT, errno.ESHUTDOWN)
    assert errors.is_lost(caught.value) == lost
    assert link.lose.called == lost
    # A client keeps the rights that it had when it connected.
    assert link.retire.called == (number == errno.EPERM)


def test_incomplete_write(link):
    with pytest.raises(exceptions.Invalid), errors.translated("Writing", link, "image"):
        raise IncompleteWriteError(errno.EIO)


def test_other_errors_pass(link):
    with pytest.raises(ZeroDivisionError), errors.translated("Doing it", link, "image"):
        raise ZeroDivisionError
    with pytest.raises(OSError, match="disk"), errors.expected(errno.EIO):
        raise OSError(errno.EIO, "disk")


def test_calls_in_time_and_late(link):
    import threading

    calls = errors.bounded_calls(link, 1)
    assert errors.bounded(calls, lambda: 5, "Doing it", link) == 5
    with pytest.raises(Error):
        errors.bounded(calls, mock.Mock(side_effect=Error(1)), "Doing it", link)
    never = threading.Event()
    calls.timeout = link.timeout = 0.05
    with pytest.raises(exceptions.TimeoutError, match=r"Doing it: .* 0\.05 seconds"):
        errors.bounded(calls, never.wait, "Doing it", link)
    assert link.lose.called
    never.set()
    link.timeout = 0
    calls = errors.bounded_calls(link, 1)
    here = errors.bounded(calls, threading.current_thread, "Doing it", link)
    assert here is threading.current_thread()


# -- sizes and names


@pytest.mark.parametrize(("mib", "order"), [(1, 20), (2, 21), (3, 21), (7, 22), (8, 23), (32, 25)])
def test_r131_r151_order(mib, order):
    assert WriteSettings(mib * MIB, MIB, 1, False, None).order == order


def test_r140_r141_growth():
    allocated, step, ends = 0, 2 * MIB, []
    for _number in range(20):
        allocated, step = grown(allocated, step, allocated + 1)
        ends.append(allocated)
    assert ends[:3] == [2 * MIB, 6 * MIB, 14 * MIB]
    assert ends[-1] - ends[-2] == 8 * GIB
    assert grown(10, 20, 99)[0] == 99


@pytest.mark.parametrize(
    ("text", "expected"), [("61", 61), ("0", 1), ("", 1), (None, 1), ("4", 5), ("12", 13)]
)
def test_r134_r135_features(text, expected):
    """Without layering, the cluster refuses the last step of each upload."""
    assert default_features(types.SimpleNamespace(conf_get=lambda _name: text)) == expected


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\ud800", "x" * 1901])
def test_impossible_names(name):
    assert not is_possible_name(name)
    assert is_possible_name("a/b@c ü")
    store = package.Store(cfg.ConfigOpts(), "ceph")
    with pytest.raises(exceptions.Invalid, match="cannot be the name"):
        store.open_writer(name, 1)
