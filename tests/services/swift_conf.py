# SPDX-License-Identifier: Apache-2.0
"""Configuration files of Swift's parts."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path

from tests.services.conf_text import conf_text

# Prefixes of accounts: whose users Keystone knows, and whose users the proxy knows by itself.
KEYSTONE_PREFIX = "AUTH"
TEMPAUTH_PREFIX = "TEMP"
STORAGE_PARTS = ("account", "container", "object")

# Seconds that the parts wait for each other. By default an object server waits one second for the
# container server; on a busy machine listings would then lack what is there, and show what is gone.
PART_PATIENCE = 60

# A name that is used twice in a pipeline is configured once.
PIPELINE = (
    "catch_errors gatekeeper healthcheck cache listing_formats bulk tempurl s3api"
    " authtoken keystoneauth tempauth copy container-quotas account-quotas slo dlo"
    " versioned_writes symlink proxy-server"
)
PLAIN_FILTERS = (
    "catch_errors",
    "gatekeeper",
    "healthcheck",
    "listing_formats",
    "bulk",
    "tempurl",
    "copy",
    "container-quotas",
    "account-quotas",
    "symlink",
)


def common(max_object_bytes: int, container_listing_limit: int) -> str:
    """Return swift.conf: what all parts have to agree on."""
    return conf_text(
        {
            "swift-hash": {"swift_hash_path_prefix": "tests", "swift_hash_path_suffix": "tests"},
            "storage-policy:0": {"name": "Policy-0", "default": "yes"},
            "swift-constraints": {
                "max_file_size": max_object_bytes,
                "container_listing_limit": container_listing_limit,
            },
        }
    )


def _default(folder: Path, port: int) -> dict[str, object]:
    return {
        "bind_ip": "127.0.0.1",
        "bind_port": port,
        "workers": 0,
        "swift_dir": folder,
        "user": getpass.getuser(),
        "log_level": "WARNING",
        "log_address": "/dev/null",
        "conn_timeout": PART_PATIENCE,
        "node_timeout": PART_PATIENCE,
        "container_update_timeout": PART_PATIENCE,
    }


def storage(folder: Path, part: str, port: int, upload_chunk_size: int) -> str:
    """Return the configuration of the account, container or object server.

    :param upload_chunk_size: bytes that an object server takes in at a time
    """
    # A line for each request, which nobody reads, is a tenth of all that these servers do.
    app: dict[str, object] = {"use": f"egg:swift#{part}", "log_requests": "false"}
    if part == "object":
        # The data need not outlive a crash of the machine.
        app["mb_per_sync"] = 0
        app["network_chunk_size"] = upload_chunk_size
    return conf_text(
        {
            "DEFAULT": {
                **_default(folder, port),
                "devices": folder / "devices",
                "mount_check": "false",
                "disable_fallocate": "true",
                "fallocate_reserve": 0,
            },
            "pipeline:main": {"pipeline": f"{part}-server"},
            f"app:{part}-server": app,
        }
    )


def proxy(
    folder: Path,
    port: int,
    memcached_port: int,
    upload_chunk_size: int,
    client_timeout: float,
    token_cache_seconds: int,
    authtoken: Mapping[str, str],
    users: Mapping[str, str],
) -> str:
    """Return the configuration of the proxy.

    :param upload_chunk_size: bytes that it takes in at a time
    :param client_timeout: seconds to wait for bytes that a client has announced
    :param token_cache_seconds: for which a token that was good is taken to be good
    :param authtoken: options with which tokens are checked in Keystone
    :param users: options of the users that the proxy knows by itself
    """
    # After ten segments a download is slowed down to one segment a second by default.
    unlimited = {"rate_limit_after_segment": 10**6, "rate_limit_segments_per_sec": 10**6}
    return conf_text(
        {
            "DEFAULT": {**_default(folder, port), "client_timeout": client_timeout},
            "pipeline:main": {"pipeline": PIPELINE},
            "app:proxy-server": {
                "use": "egg:swift#proxy",
                "client_chunk_size": upload_chunk_size,
                "account_autocreate": "true",
                "allow_account_management": "true",
            },
            "filter:authtoken": {
                "paste.filter_factory": "keystonemiddleware.auth_token:filter_factory",
                "delay_auth_decision": "true",
                "include_service_catalog": "false",
                "cache": "swift.cache",
                "token_cache_time": token_cache_seconds,
                **authtoken,
            },
            "filter:keystoneauth": {
                "use": "egg:swift#keystoneauth",
                "reseller_prefix": KEYSTONE_PREFIX,
                "operator_roles": "admin, swiftoperator",
                "reseller_admin_role": "ResellerAdmin",
                "allow_overrides": "true",
            },
            "filter:tempauth": {
                "use": "egg:swift#tempauth",
                "reseller_prefix": TEMPAUTH_PREFIX,
                "storage_url_scheme": "http",
                **users,
            },
            # Tests of uploads in parts need not send megabytes each.
            "filter:s3api": {
                "use": "egg:swift#s3api",
                "s3_acl": "false",
                "min_segment_size": "65536",
            },
            "filter:cache": {
                "use": "egg:swift#memcache",
                "memcache_servers": f"127.0.0.1:{memcached_port}",
            },
            "filter:slo": {"use": "egg:swift#slo", **unlimited},
            "filter:dlo": {"use": "egg:swift#dlo", **unlimited},
            "filter:versioned_writes": {
                "use": "egg:swift#versioned_writes",
                "allow_versioned_writes": "true",
            },
            **{
                f"filter:{name}": {"use": f"egg:swift#{name.replace('-', '_')}"}
                for name in PLAIN_FILTERS
            },
        }
    )
