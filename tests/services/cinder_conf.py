# SPDX-License-Identifier: Apache-2.0
"""Configuration of Cinder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Sections = dict[str, dict[str, object]]

RBD = "rbd"
NFS = "nfs"


def cinder_conf(
    folder: Path, environment: Path, port: int, backends: Mapping[str, Mapping[str, object]]
) -> Sections:
    """Return the configuration of all parts of Cinder.

    :param folder: for state
    :param environment: in which Cinder is installed
    :param port: of the API
    :param backends: their options by name
    """
    installed = environment / "etc" / "cinder"
    default = {
        "transport_url": "fake://",
        "auth_strategy": "keystone",
        "host": "tests",
        "my_ip": "127.0.0.1",
        "state_path": folder / "state",
        "api_paste_config": installed / "api-paste.ini",
        "resource_query_filters_file": installed / "resource_filters.json",
        "rootwrap_config": installed / "rootwrap.conf",
        "osapi_volume_listen": "127.0.0.1",
        "osapi_volume_listen_port": port,
        "osapi_volume_workers": 1,
        "enabled_backends": ", ".join(backends),
        "default_volume_type": "plain",
        "quota_volumes": -1,
        "quota_gigabytes": -1,
        "report_interval": 60,
        # All parts are one process, whose reports stop while it waits: none is ever down alone.
        "service_down_time": 86400,
        "periodic_interval": 60,
        # Every 5 seconds this was a sixth of all that Cinder did.
        "backend_stats_polling_interval": 30,
    }
    own = {name: dict(options) for name, options in backends.items()}
    return {
        "DEFAULT": default,
        "database": {
            "connection": f"sqlite:///{folder}/cinder.db",
            "sqlite_synchronous": "false",
        },
        "coordination": {"backend_url": f"file://{folder}/state"},
        "oslo_concurrency": {"lock_path": folder / "lock"},
        "oslo_messaging_notifications": {"driver": "noop"},
        **own,
    }


def rbd_backend(conf: Path, keyring: Path, pool: str, user: str, secret: str) -> dict[str, object]:
    """Return the options of the backend on Ceph.

    :param conf: of a client that may use the pool
    :param keyring: of the user, which clients get with each connection
    :param secret: any UUID; hypervisors would know the user's key by it
    """
    return {
        "volume_driver": "cinder.volume.drivers.rbd.RBDDriver",
        "volume_backend_name": RBD,
        "rbd_ceph_conf": conf,
        "rbd_keyring_conf": keyring,
        "rbd_pool": pool,
        "rbd_user": user,
        "rbd_secret_uuid": secret,
        "rbd_exclusive_cinder_pool": "true",
        "rados_connect_timeout": 5,
        # A Ceph without a manager tells no capacity; nothing shall be refused for that.
        "max_over_subscription_ratio": 1000,
    }


def nfs_backend(folder: Path) -> dict[str, object]:
    """Return the options of the backend on files.

    :param folder: with the file ``shares``
    """
    return {
        "volume_driver": "cinder.volume.drivers.nfs.NfsDriver",
        "volume_backend_name": NFS,
        "nfs_shares_config": folder / "shares",
        "nfs_mount_point_base": folder / "mounted",
        "nfs_mount_attempts": 1,
        "nas_secure_file_operations": "false",
        "nas_secure_file_permissions": "false",
    }
