# SPDX-License-Identifier: Apache-2.0
"""A Ceph cluster: one monitor, and one OSD with BlueStore on a sparse file.

Pool `images` is replicated, pool `images_data` is erasure-coded and takes the data of images whose
headers are in `images`. There is no manager: capacities read 0, `ceph osd df` would wait for ever.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import importlib
import json
import signal
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.services import ceph_conf
from tests.services.base import CACHE, Lab, Service, Unavailable, answers, free_port
from tests.services.daemon import Daemon
from tests.services.environments import debian_packages, locked

# The distribution's Python and modules: no package index has the bindings.
SYSTEM_PYTHON = "/usr/bin/python3"
SYSTEM_MODULES = Path("/usr/lib/python3/dist-packages")
BINDINGS = ("rados", "rbd")

POOL = "images"
DATA_POOL = "images_data"
USER = "glance"
DISK_BYTES = 20 * ceph_conf.GiB
PATIENCE = 90.0


class Ceph(Service):
    """A Ceph cluster with pools for images, and a cephx user who may use these alone."""

    name = "ceph"
    stores: ClassVar[dict[str, str]] = {"ceph": "rbd", "ceph_coded": "rbd"}
    # Nothing is worth keeping, and a frozen daemon would not hear a polite signal.
    ending: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGKILL,)

    def __init__(self) -> None:
        super().__init__()
        self.fsid = str(uuid.uuid4())
        self.user = USER
        self.pool = POOL
        self.data_pool = DATA_POOL
        self.mon_port = 0
        self.sections: ceph_conf.Sections = {}

    def install(self) -> None:
        debian_packages(
            "ceph-mon",
            "ceph-osd",
            "ceph-common",
            "python3-rados",
            "python3-rbd",
            probe=(
                *("ceph-mon", "ceph-osd", "monmaptool", "crushtool", "rbd"),
                *(f"/var/lib/dpkg/info/python3-{name}.list" for name in BINDINGS),
            ),
        )

    @property
    def conf(self) -> Path:
        """The configuration file for servers and clients; it names the users' keyrings."""
        return self._inside("ceph.conf")

    @property
    def keyring(self) -> Path:
        """The keyring of the driver's user."""
        return self.keyring_of(self.user)

    def keyring_of(self, user: str) -> Path:
        """Return the keyring of a user, such as ``admin``."""
        return self._inside(f"ceph.client.{user}.keyring")

    def client_conf(self, name: str, **options: str) -> Path:
        """Write a configuration file for clients that differs in some options.

        :param name: of the file
        :param options: such as ``rados_osd_op_timeout="5"``
        """
        path = self._inside(name)
        path.write_text(ceph_conf.text(ceph_conf.merged(self.sections, {"client": options})))
        return path

    def start(self, folder: Path, lab: Lab) -> None:
        self.mon_port = free_port()
        self.sections = ceph_conf.cluster_conf(folder, self.fsid, self.mon_port, DISK_BYTES)
        self.conf.write_text(ceph_conf.text(self.sections))
        self._write_keys()
        self.mon = Daemon(self, ["ceph-mon", "--conf", self.conf, "--id", "a", "-f"])
        self.osd = Daemon(self, ["ceph-osd", "--conf", self.conf, "--id", "0", "-f"])
        osd_uuid = str(uuid.uuid4())
        # The OSD's file system is made while the monitor starts.
        making = self.run([*self.osd.command, "--mkfs", "--osd-uuid", osd_uuid])
        try:
            self._make_mon()
            self.mon.start()
            # It ends by itself, unlike the others.
            self.processes.remove(making)
            self.wait(lambda: answers(self.mon_port), "the monitor")
            self._make_crush_map(osd_uuid)
            made = making.wait(PATIENCE)
        finally:
            if making.poll() is None:
                making.kill()
                making.wait()
        if made:
            raise RuntimeError(f"ceph-osd --mkfs failed ({made})\n{self.logs()}")
        self.osd.start()
        self._make_pools()

    def join(self, process: str) -> None:
        """Give the process a pool of its own, and a user who may use it."""
        self.pool = self.user = f"images-{process}"
        self.add_pool(self.pool)

    def add_pool(self, name: str) -> None:
        """Make a pool for the headers of images, and a user of the same name who may use it.

        The data of the images may go to the erasure-coded pool.
        """
        pools = ", ".join(f"profile rbd pool={pool}" for pool in (name, self.data_pool))
        user = {"entity": f"client.{name}", "caps": ["mon", "profile rbd", "osd", pools]}
        answers = self.admin(
            [
                _step("osd pool create", pool=name, pool_type="replicated"),
                _step("osd pool application enable", pool=name, app="rbd"),
                _step("auth get-or-create", **user),
                {"writable": name},
                {"rbd_init": name},
            ]
        )
        created = answers[2][0]
        keyring = f"[{created['entity']}]\n\tkey = {created['key']}\n"
        ceph_conf.write_secret(self.keyring_of(name), keyring)

    def heal(self) -> None:
        """Undo what tests did to the daemons, and wait until the cluster takes writes again."""
        self.mon.thaw()
        self.mon.start()
        if self.osd.pid is None:
            # Else clients would ask the one that is no more, and take ten seconds to notice.
            self.command("osd down", ids=["0"])
        self.osd.thaw()
        self.osd.start()
        self.admin([{"osds_up": 1}, *({"writable": pool} for pool in (self.pool, self.data_pool))])

    def command(self, prefix: str, **arguments: Any) -> Any:
        """Send a command to the monitor, as ``ceph`` does.

        :param prefix: such as ``osd pool set-quota``
        :returns: its answer
        """
        (answer,) = self.admin([_step(prefix, **arguments)])
        return answer

    def shut_out(self, pool: str, parts: Collection[str]) -> None:
        """Have the cluster forget clients with open images; by itself it takes half a minute.

        :param pool: of the images
        :param parts: an image whose name has one of these is meant
        """
        with concurrent.futures.ThreadPoolExecutor(1) as pool_of_one:
            # On this thread librados may draw the address that a process forked from it has.
            found = pool_of_one.submit(self._clients_of, pool, parts).result()
        for addr in found:
            self.command("osd blocklist", blocklistop="add", addr=addr)

    def _clients_of(self, pool: str, parts: Collection[str]) -> set[str]:
        """Return the addresses of the clients that have images open."""
        import rados
        import rbd

        found = set()
        with (
            rados.Rados(conffile=str(self.conf), rados_id="admin") as cluster,
            cluster.open_ioctx(pool) as ioctx,
        ):
            for name in rbd.RBD().list(ioctx):
                if any(part in name for part in parts):
                    with (
                        contextlib.suppress(rbd.ImageNotFound),
                        rbd.Image(ioctx, name, read_only=True) as image,
                    ):
                        found.update(one["addr"] for one in image.watchers_list())
        return found

    def admin(self, steps: Sequence[Mapping[str, object]]) -> list[Any]:
        """Run steps of `ceph_admin` and return a result for each."""
        try:
            done = subprocess.run(
                [SYSTEM_PYTHON, Path(__file__).with_name("ceph_admin.py"), self.conf],
                input=json.dumps(steps),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"ceph: {error}: {error.stderr!r}\n{self.logs()}") from error
        results: list[Any] = json.loads(done.stdout)
        return results

    def bindings(self) -> Path:
        """Return a folder with the modules `rados` and `rbd`, for sys.path or PYTHONPATH.

        It holds links to the distribution's two modules and nothing else, so that no other package
        of the distribution gets into the tests.

        :raises Unavailable: the distribution made them for another Python
        """
        suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
        place = CACHE / f"ceph-bindings{suffix.removesuffix('.so')}"
        for name in BINDINGS:
            if not (SYSTEM_MODULES / f"{name}{suffix}").exists():
                there = ", ".join(sorted(so.name for so in SYSTEM_MODULES.glob(f"{name}.*.so")))
                raise Unavailable(
                    f"{name}{suffix} is missing, this system has {there or 'none'}: run the tests"
                    " with the Python version that the distribution made its Ceph packages for"
                )
        with locked("ceph-bindings"):
            place.mkdir(exist_ok=True)
            for name in BINDINGS:
                link = place / f"{name}{suffix}"
                if not link.is_symlink():
                    link.symlink_to(SYSTEM_MODULES / link.name)
        return place

    def add_bindings(self) -> None:
        """Make `rados` and `rbd` importable in this process.

        :raises Unavailable: the distribution made them for another Python
        """
        place = str(self.bindings())
        if place not in sys.path:
            # At the end: bindings that somebody installed in the environment come first.
            sys.path.append(place)
        brick = sys.modules.get("os_brick.initiator.linuxrbd")
        if brick is not None and brick.rbd is None:
            # A test without a cluster has had it imported before there were any.
            importlib.reload(brick)

    def facts(self) -> dict[str, str]:
        return {
            "conf": str(self.conf),
            "fsid": self.fsid,
            "user": self.user,
            "keyring": str(self.keyring),
            "pool": self.pool,
            "data_pool": f"{self.data_pool} (erasure-coded)",
            "try": f"rbd --conf {self.conf} --id {self.user} ls {self.pool}",
            "bindings": f"PYTHONPATH={CACHE}/ceph-bindings.*",
        }

    def glance_conf(self) -> str:
        common = f"rbd_store_ceph_conf = {self.conf}\nrbd_store_user = {self.user}\n"
        plain = f"[ceph]\n{common}rbd_store_pool = {self.pool}\n"
        coded = plain.replace("[ceph]", "[ceph_coded]")
        return f"{plain}\n{coded}rbd_store_data_pool = {self.data_pool}\n"

    def _inside(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def _write_keys(self) -> None:
        pools = ", ".join(f"profile rbd pool={pool}" for pool in (self.pool, self.data_pool))
        users = {
            "mon.keyring": ceph_conf.entity("mon.", mon="allow *"),
            "osd.0/keyring": ceph_conf.entity("osd.0", mon="allow profile osd", osd="allow *"),
            "ceph.client.admin.keyring": ceph_conf.entity(
                "client.admin", mon="allow *", osd="allow *", mgr="allow *"
            ),
            self.keyring.name: ceph_conf.entity(
                f"client.{self.user}", mon="profile rbd", osd=pools
            ),
        }
        for name, content in users.items():
            ceph_conf.write_secret(self._inside(name), content)
        # The first start of the monitor reads all of them from here.
        ceph_conf.write_secret(self._inside("initial.keyring"), "".join(users.values()))

    def _make_mon(self) -> None:
        monmap = self._inside("monmap")
        address = f"[v2:127.0.0.1:{self.mon_port}/0]"
        release = ["--set-min-mon-release", "pacific"]
        create = ["--create", "--addv", "a", address, "--fsid", self.fsid]
        self._call("monmaptool", *create, *release, monmap)
        keyring = self._inside("initial.keyring")
        mkfs = [*self.mon.command, "--mkfs", "--monmap", monmap, "--keyring", keyring]
        self._call(*mkfs)

    def _make_crush_map(self, osd_uuid: str) -> None:
        host = ["root=default", "host=here"]
        profile = ["k=2", "m=1", "plugin=jerasure", "crush-failure-domain=osd"]
        *_, binary = self.admin(
            [
                _step("osd crush add-bucket", name="here", type="host", args=["root=default"]),
                {**_step("osd new", uuid=osd_uuid, id=0), "input": _base64(b"{}")},
                _step("osd crush add", id=0, weight=1.0, args=host),
                _step("osd erasure-code-profile set", name="k2m1", profile=profile),
                {**_step("osd getcrushmap"), "binary": True},
            ]
        )
        compiled, plain = self._inside("crush.bin"), self._inside("crush.txt")
        compiled.write_bytes(base64.b64decode(binary))
        self._call("crushtool", "--decompile", compiled, "-o", plain)
        with plain.open("a") as rules:
            rules.write(ceph_conf.coded_rule(osd=0))
        self._call("crushtool", "--compile", plain, "-o", compiled)
        self.admin([{**_step("osd setcrushmap"), "input": _base64(compiled.read_bytes())}])

    def _make_pools(self) -> None:
        coded = {
            "pool_type": "erasure",
            "erasure_code_profile": "k2m1",
            "rule": ceph_conf.CODED_RULE,
        }
        self.admin(
            [
                _step("osd pool create", pool=self.pool, pool_type="replicated"),
                _step("osd pool create", pool=self.data_pool, **coded),
                _step("osd pool set", pool=self.data_pool, var="allow_ec_overwrites", val="true"),
                *(
                    _step("osd pool application enable", pool=pool, app="rbd")
                    for pool in (self.pool, self.data_pool)
                ),
                {"osds_up": 1},
                {"writable": self.pool},
                {"writable": self.data_pool},
                {"rbd_init": self.pool},
            ]
        )

    def _call(self, *command: str | Path) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command} failed: {done.stderr}\n{self.logs()}")


def _step(prefix: str, **arguments: Any) -> dict[str, Any]:
    return {"command": {"prefix": prefix, **arguments}}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
