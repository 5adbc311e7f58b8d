# SPDX-License-Identifier: Apache-2.0
"""Cinder: API, scheduler, and volumes on Ceph and, where this user may mount, on NFS.

Volumes of the types `plain` and `multi` are images of Ceph: os-brick attaches them through librbd,
without the kernel. Those of type `nfs` are files of an export. Where no kernel has an NFS client a
bind mount stands for it: see ``programs/mount_nfs.sh``. For what the tests themselves mount, put
`Cinder.mount_folder` in front of PATH.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any, ClassVar

from tests.services import ceph_conf, cinder_conf
from tests.services.base import Lab, Service, Unavailable, free_port
from tests.services.ceph import Ceph
from tests.services.conf_text import conf_text
from tests.services.environments import debian_packages
from tests.services.keystone import Keystone
from tests.services.keystone_api import DOMAIN_NAME, REGION, KeystoneAPI
from tests.services.openstack import manage, release, seed

PROGRAMS = Path(__file__).parent / "programs"
REQUIREMENTS = ("cinder==29.0.0", "os-brick", "python-cinderclient")
POOL = "volumes"
CEPH_USER = "cinder"

# Backend and extra specifications of the volume types.
TYPES: dict[str, dict[str, str]] = {
    "plain": {"volume_backend_name": cinder_conf.RBD},
    "multi": {"volume_backend_name": cinder_conf.RBD, "multiattach": "<is> True"},
    "nfs": {"volume_backend_name": cinder_conf.NFS},
}


class Cinder(Service):
    """Cinder with volumes that attach without the kernel: on Ceph, and on NFS."""

    name = "cinder"
    needs = ("keystone", "ceph")
    stores: ClassVar[dict[str, str]] = {"cinder": "cinder", "cinder_multi": "cinder"}

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self.keystone: Keystone
        self.ceph: Ceph
        # Why there are no volumes of type `nfs`; nothing if there are.
        self.nfs_missing: str | None = None
        self._environment = Path()
        self._state = Path()

    @property
    def url(self) -> str:
        """Of the API, without the project."""
        return f"http://127.0.0.1:{self.port}/v3"

    @property
    def python(self) -> Path:
        """The interpreter that has Cinder's own client and os-brick."""
        return self._environment / "bin" / "python"

    @property
    def mount_folder(self) -> Path:
        """A folder with a program `mount` that knows NFS, to be put in front of PATH."""
        return self._inside("bin")

    @property
    def types(self) -> list[str]:
        """The volume types there are."""
        return [name for name in TYPES if name != "nfs" or self.nfs_missing is None]

    def require_nfs(self) -> None:
        """Say why volumes of type `nfs` are not there.

        :raises Unavailable: they are not
        """
        if self.nfs_missing is not None:
            raise Unavailable(self.nfs_missing)

    def install(self) -> None:
        debian_packages("qemu-utils", probe=["qemu-img"])
        self._environment = release(self.name, REQUIREMENTS)
        self._state = seed(self.name, self._environment.name, self._make_database)

    def _make_database(self, folder: Path) -> None:
        conf = folder / "cinder.conf"
        conf.write_text(conf_text(cinder_conf.cinder_conf(folder, self._environment, 0, {})))
        manage(self._environment / "bin" / "cinder-manage", conf, "db", "sync")

    def start(self, folder: Path, lab: Lab) -> None:
        self.keystone, self.ceph = lab.get(Keystone), lab.get(Ceph)
        bindings = self.ceph.bindings()
        self.port = free_port()
        self.nfs_missing = _why_not_mount()
        shutil.copytree(self._state, folder, dirs_exist_ok=True)
        for name in ("state", "lock", "bin"):
            (folder / name).mkdir(exist_ok=True)
        for name in ("mount", "mount.nfs"):
            shutil.copy(PROGRAMS / "mount_nfs.sh", folder / "bin" / name)
        self._remember_monitors(folder)
        conf = self._configure(folder)
        serve: list[str | Path] = [self.python, "-W", "ignore", PROGRAMS / "serve_cinder.py", conf]
        # What it mounts is seen by nobody else, and goes when it ends.
        alone = [] if self.nfs_missing else ["unshare", "--mount"]
        self.run([*alone, *serve], env=self.client_environment(bindings))
        self.wait(self._serves, "the API")
        for kind in ("volumev3", "block-storage"):
            self.keystone.register(kind, "cinder", f"{self.url}/%(tenant_id)s")
        self._make_types()
        self.wait(self._has_pools, "a backend")

    def client_environment(self, bindings: Path | None = None) -> dict[str, str]:
        """Return variables for processes that attach volumes.

        :param bindings: folder with those of Ceph, looked up if not given
        """
        place = bindings or self.ceph.bindings()
        path = f"{self.mount_folder}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(place)}

    def _remember_monitors(self, folder: Path) -> None:
        """Spare each attachment the start of `ceph`, which takes longer than all the rest."""
        (found,) = self.ceph.admin([{"command": {"prefix": "mon dump", "format": "json"}}])
        (folder / "bin" / "monitors.json").write_text(json.dumps(found))
        shutil.copy(PROGRAMS / "ceph_monitors.sh", folder / "bin" / "ceph")

    def _configure(self, folder: Path) -> Path:
        conf, keyring = self._make_pool(folder)
        backends = {
            cinder_conf.RBD: cinder_conf.rbd_backend(
                conf, keyring, POOL, CEPH_USER, secret=str(uuid.uuid4())
            )
        }
        if self.nfs_missing is None:
            place = folder / "nfs"
            (place / "export").mkdir(parents=True)
            (place / "mounted").mkdir()
            (place / "shares").write_text(f"127.0.0.1:{place}/export\n")
            backends[cinder_conf.NFS] = cinder_conf.nfs_backend(place)
        sections = cinder_conf.cinder_conf(folder, self._environment, self.port, backends)
        authtoken = self.keystone.authtoken_conf("cinder")
        target = folder / "cinder.conf"
        target.write_text(conf_text({**sections, "keystone_authtoken": authtoken}))
        return target

    def _make_pool(self, folder: Path) -> tuple[Path, Path]:
        """Make pool and user in Ceph; return the configuration and keyring of a client."""
        may = ["mon", "profile rbd", "osd", f"profile rbd pool={POOL}"]
        user: dict[str, Any] = {"entity": f"client.{CEPH_USER}", "caps": may}
        commands: list[dict[str, Any]] = [
            {"prefix": "osd pool create", "pool": POOL, "pool_type": "replicated"},
            {"prefix": "osd pool application enable", "pool": POOL, "app": "rbd"},
            {"prefix": "auth get-or-create", **user},
        ]
        steps: list[dict[str, Any]] = [{"command": command} for command in commands]
        steps += [{"writable": POOL}, {"rbd_init": POOL}]
        (created,) = self.ceph.admin(steps)[2]
        keyring = folder / f"ceph.client.{CEPH_USER}.keyring"
        ceph_conf.write_secret(keyring, f"[{created['entity']}]\n\tkey = {created['key']}\n")
        conf = folder / "ceph.conf"
        client = {"client": {"keyring": str(keyring)}}
        conf.write_text(ceph_conf.text(ceph_conf.merged(self.ceph.sections, client)))
        return conf, keyring

    def _serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthcheck", timeout=60):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def call(self, user: str, method: str, path: str, body: object = None) -> Any:
        """Return the answer of Cinder's API.

        :param user: one of Keystone's accounts
        :param path: after the project, such as ``/types``
        """
        project = self.keystone.accounts[user].project_id
        api = KeystoneAPI(f"{self.url}/{project}")
        return api.call(method, path, body, self.keystone.token(user)[0])[0]

    def _make_types(self) -> None:
        for name in self.types:
            body = {"volume_type": {"name": name, "extra_specs": TYPES[name]}}
            self.call("admin", "POST", "/types", body)

    def _has_pools(self) -> bool:
        """Tell whether the scheduler has heard of all backends."""
        pools = self.call("admin", "GET", "/scheduler-stats/get_pools")["pools"]
        # Names are like tests@backend#pool.
        found = {pool["name"].partition("@")[2].partition("#")[0] for pool in pools}
        return found >= {TYPES[name]["volume_backend_name"] for name in self.types}

    def stop(self) -> None:
        # Its own way to end waits for periodic tasks; nothing is worth keeping.
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        super().stop()
        if self.folder is not None:
            _unmount_below(self.folder)

    def facts(self) -> dict[str, str]:
        return {
            "auth_url": self.keystone.auth_url,
            "url": f"{self.url}/PROJECT",
            "types": ", ".join(self.types),
            "nfs": self.nfs_missing or f"PATH={self.mount_folder}:$PATH for those who mount",
            "bindings": f"PYTHONPATH={self.ceph.bindings()} for those who attach",
        }

    def store_options(self, kind: str) -> dict[str, object]:
        """Return the options of a store whose images are volumes of the service user.

        :param kind: volume type, one of `types`
        """
        account = self.keystone.accounts["glance"]
        return {
            "cinder_store_auth_address": self.keystone.auth_url,
            "cinder_store_user_name": account.user,
            "cinder_store_password": account.password,
            "cinder_store_project_name": account.project,
            "cinder_store_user_domain_name": DOMAIN_NAME,
            "cinder_store_project_domain_name": DOMAIN_NAME,
            "cinder_os_region_name": REGION,
            "cinder_catalog_info": "volumev3:cinder:publicURL",
            "cinder_mount_point_base": self._inside("glance-mounted"),
            "cinder_volume_type": kind,
        }

    def glance_conf(self) -> str:
        """Return a store of volumes on Ceph, and one of volumes that attach more than once."""
        of_type = {"cinder": "plain", "cinder_multi": "multi"}
        return conf_text({store: self.store_options(kind) for store, kind in of_type.items()})

    def _inside(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name


def _why_not_mount() -> str | None:
    """Return why this user has no file systems of its own; nothing if it can have them."""
    if shutil.which("unshare") is None:
        return "cinder: NFS needs the program unshare of util-linux"
    probe = ["unshare", "--mount", "mount", "--bind", "/", "/"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"cinder: NFS needs a user who may mount, such as root: {done.stderr.strip()}"
    return None


def _unmount_below(folder: Path) -> None:
    """Unmount what tests have left mounted, the latest first."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    for place in reversed([line.split()[1] for line in mounts]):
        if Path(place).is_relative_to(folder):
            subprocess.run(["umount", place], check=True)
