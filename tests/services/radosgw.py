# SPDX-License-Identifier: Apache-2.0
"""The RADOS gateway of the Ceph cluster, with its S3 and Swift APIs."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from tests.services import ceph_conf
from tests.services.base import Lab, Service, answers, free_port
from tests.services.ceph import PATIENCE, Ceph
from tests.services.daemon import Daemon
from tests.services.environments import debian_packages
from tests.services.keystone import SWIFT_ROLE, Keystone

ENTITY = "client.rgw"


class Radosgw(Service):
    """A RADOS gateway with one user, who has keys for S3 and for Swift (v1 authentication).

    It lets the users of the Keystone in as well, each project with an account of its own.
    """

    name = "radosgw"
    needs: ClassVar[tuple[str, ...]] = ("ceph", "keystone")
    stores: ClassVar[dict[str, str]] = {"s3": "s3", "radosgw-swift": "swift"}
    # It takes seconds to say goodbye to a cluster that is about to go as well.
    ending: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGKILL,)

    # S3 buckets and Swift containers share one namespace.
    bucket: str = "images-s3"
    container = "images-swift"

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self.user = "glance"
        self.access_key = "glance-access"
        self.secret_key = "glance-secret"
        self.swift_user = f"{self.user}:swift"
        self.swift_key = "swift-secret"
        self.keystone: Keystone
        self._sections: ceph_conf.Sections = {}

    def install(self) -> None:
        debian_packages("radosgw", probe=("radosgw", "radosgw-admin"))

    def join(self, process: str) -> None:
        """Give the process a bucket of its own."""
        self.bucket = f"{self.bucket}-{process}"

    def start(self, folder: Path, lab: Lab) -> None:
        ceph, self.keystone = lab.get(Ceph), lab.get(Keystone)
        self.port = free_port()
        self._add_entity(ceph, folder)
        gateway = {**_gateway(folder), "rgw_frontends": self.frontends(folder)}
        own = {ENTITY: {**gateway, **_trusting(self.keystone)}}
        self._sections = ceph_conf.merged(ceph.sections, own)
        self.gateway = Daemon(self, ["radosgw", *self._as_gateway(), "-f", "--no-mon-config"])
        self._write_conf()
        self._add_user()
        self.heal()

    def frontends(self, folder: Path) -> str:
        """Return where it listens, as in the option of that name.

        :param folder: for what it needs
        """
        return f"beast endpoint=127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Undo what tests did to the gateway, and wait until it answers."""
        self.gateway.thaw()
        self.gateway.start()
        self.wait(lambda: answers(self.port), "the gateway")

    @property
    def conf(self) -> Path:
        """Its configuration file."""
        assert self.folder is not None
        return self.folder / "ceph.conf"

    @property
    def url(self) -> str:
        """The address of S3, in path style: buckets follow it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def swift_auth_url(self) -> str:
        """Where Swift clients get a token, with version 1 of the authentication."""
        return f"{self.url}/auth/v1.0"

    def storage_url(self, user: str) -> str:
        """Return where the Swift account of a user's project is.

        :param user: one of Keystone's accounts
        """
        return f"{self.url}/swift/v1/AUTH_{self.keystone.accounts[user].project_id}"

    def admin(self, *arguments: str) -> Any:
        """Run ``radosgw-admin`` and return its answer, such as of ``gc list --include-all``."""
        command = ["radosgw-admin", *self._as_gateway(), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE, check=True
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"{error}: {error.stderr!r}\n{self.logs()}") from error
        return json.loads(done.stdout) if done.stdout.strip() else None

    def facts(self) -> dict[str, str]:
        return {
            "s3": self.url,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "swift_auth": f"{self.swift_auth_url} (version 1)",
            "swift_user": self.swift_user,
            "swift_key": self.swift_key,
        }

    def glance_conf(self) -> str:
        account = self.keystone.accounts["glance"]
        sections = {
            "s3": {
                "s3_store_host": self.url,
                "s3_store_access_key": self.access_key,
                "s3_store_secret_key": self.secret_key,
                "s3_store_bucket": self.bucket,
                "s3_store_create_bucket_on_put": "true",
                "s3_store_bucket_url_format": "path",
            },
            # The driver of Swift knows no other authentication than Keystone's.
            "radosgw-swift": {
                "swift_store_auth_version": "3",
                "swift_store_auth_address": self.keystone.auth_url,
                "swift_store_user": f"{account.project}:{account.user}",
                "swift_store_key": account.password,
                "swift_store_endpoint": self.storage_url("glance"),
                "swift_store_container": self.container,
                "swift_store_create_container_on_put": "true",
            },
        }
        return ceph_conf.text(sections)

    def _write_conf(self) -> None:
        self.conf.write_text(ceph_conf.text(self._sections))

    def _as_gateway(self) -> list[str | Path]:
        return ["--conf", self.conf, "--name", ENTITY]

    def _add_entity(self, ceph: Ceph, folder: Path) -> None:
        caps = {"mon": "allow rw", "osd": "allow rwx"}
        flat = [part for pair in caps.items() for part in pair]
        key = ceph.command("auth get-or-create", entity=ENTITY, caps=flat)[0]["key"]
        keyring = f"[{ENTITY}]\n\tkey = {key}\n"
        ceph_conf.write_secret(folder / f"ceph.{ENTITY}.keyring", keyring)

    def _add_user(self) -> None:
        keys = (f"--access-key={self.access_key}", f"--secret-key={self.secret_key}")
        user = f"--uid={self.user}"
        self.admin("user", "create", user, f"--display-name={self.user}", *keys)
        swift = (f"--subuser={self.swift_user}", "--key-type=swift", f"--secret={self.swift_key}")
        self.admin("subuser", "create", user, *swift, "--access=full")


def _trusting(keystone: Keystone) -> dict[str, str]:
    account = keystone.accounts["swift"]
    return {
        "rgw_keystone_url": keystone.auth_url.removesuffix("/v3"),
        "rgw_keystone_api_version": "3",
        "rgw_keystone_admin_user": account.user,
        "rgw_keystone_admin_password": account.password,
        "rgw_keystone_admin_project": account.project,
        # By its name, not its id.
        "rgw_keystone_admin_domain": "Default",
        "rgw_keystone_accepted_roles": f"member, admin, {SWIFT_ROLE}",
    }


def _gateway(folder: Path) -> dict[str, str]:
    return {
        "keyring": f"{folder}/ceph.$name.keyring",
        "rgw_data": f"{folder}",
        "log_file": f"{folder}/$name.log",
        "admin_socket": f"{folder}/$name.$pid.asok",
        "rgw_thread_pool_size": "64",
        # Tests of uploads in parts need not send megabytes each.
        "rgw_multipart_min_part_size": "65536",
        # --no-mon-config leaves clients with an insecure mode that the monitors refuse.
        "ms_mon_client_mode": "crc secure",
        # One with a cache tells all others of changes, and waits half a minute for the answer of
        # one that was killed.
        "rgw_cache_enabled": "false",
        "rgw_override_bucket_index_max_shards": "1",
        "rgw_dynamic_resharding": "false",
        "rgw_enable_quota_threads": "false",
        "rgw_run_sync_thread": "false",
        "rgw_enable_usage_log": "false",
        # What is deleted goes within seconds, not hours: tests look at what is left.
        "rgw_gc_max_objs": "4",
        "rgw_gc_obj_min_wait": "5",
        "rgw_gc_processor_period": "5",
        "rgw_lc_max_objs": "4",
        "rgw_swift_account_in_url": "true",
        "rgw_swift_token_expiration": "86400",
    }
