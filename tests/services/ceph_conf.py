# SPDX-License-Identifier: Apache-2.0
"""Files of a Ceph cluster: its configuration, its keys, and the CRUSH rule of its coded pool."""

from __future__ import annotations

import base64
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

Sections = dict[str, dict[str, str]]

MiB = 1024 * 1024
GiB = 1024 * MiB
CODED_RULE = "coded"
CODED_CHUNKS = 3  # two with data, one with parity


def cluster_conf(folder: Path, fsid: str, mon_port: int, disk_bytes: int) -> Sections:
    """Return the configuration of a cluster with one monitor and one OSD, all in one folder."""
    everyone = {
        "fsid": fsid,
        # Version 2 of the protocol alone: one port, and no second handshake to try.
        "mon_host": f"[v2:127.0.0.1:{mon_port}/0]",
        "ms_bind_msgr1": "false",
        "public_addr": "127.0.0.1",
        "cluster_addr": "127.0.0.1",
        "keyring": f"{folder}/ceph.$name.keyring",
        "auth_allow_insecure_global_id_reclaim": "false",
        "run_dir": f"{folder}",
        "admin_socket": f"{folder}/$name.asok",
        "crash_dir": f"{folder}",
        "log_file": f"{folder}/$name.log",
        "log_to_stderr": "false",
        "mon_cluster_log_file": f"{folder}/cluster.log",
        "mon_initial_members": "a",
        "osd_crush_chooseleaf_type": "0",
        # For the pools that others make, such as the gateway.
        "osd_pool_default_size": "1",
        "osd_pool_default_min_size": "1",
        "osd_pool_default_pg_num": "4",
        "osd_pool_default_pgp_num": "4",
        "osd_pool_default_pg_autoscale_mode": "off",
        "max_open_files": "0",
    }
    return {
        "global": everyone,
        # Clients are many, and tests fork: neither a socket nor a log for each of them.
        "client": {"admin_socket": "", "log_file": "/dev/null"},
        "mon": _mon(folder),
        "osd": _osd(folder, disk_bytes),
    }


def _mon(folder: Path) -> dict[str, str]:
    return {
        "mon_data": f"{folder}/mon",
        "keyring": f"{folder}/mon.keyring",
        # One disk holds all: what warns of that would never be silent.
        "mon_allow_pool_size_one": "true",
        "mon_allow_pool_delete": "true",
        "mon_warn_on_pool_no_redundancy": "false",
        "mon_data_avail_warn": "1",
        "mon_data_avail_crit": "0",
        # A lost OSD comes back in the tests: nothing shall be moved meanwhile.
        "mon_osd_down_out_interval": "86400",
        "mon_osd_min_down_reporters": "1",
        "mon_max_pg_per_osd": "2000",
        # The defaults gather changes for seconds, which is most of the time of a start.
        "paxos_propose_interval": "0.05",
        "paxos_min_wait": "0.01",
        "mon_tick_interval": "1",
        "mon_memory_autotune": "false",
        "rocksdb_cache_size": str(16 * MiB),
    }


def _osd(folder: Path, disk_bytes: int) -> dict[str, str]:
    return {
        "osd_data": f"{folder}/osd.$id",
        "keyring": f"{folder}/osd.$id/keyring",
        "osd_objectstore": "bluestore",
        "bluestore_block_create": "true",
        "bluestore_block_size": str(disk_bytes),
        "bluestore_fsck_on_mkfs": "false",
        # Each stop of a thread that polls for finished I/O takes as long as one poll (250 ms).
        "bdev_aio_poll_ms": "10",
        "bluestore_cache_autotune": "false",
        "bluestore_cache_size": str(64 * MiB),
        "osd_memory_target": str(896 * MiB),
        "osd_op_num_shards": "2",
        "osd_op_num_threads_per_shard": "2",
        "osd_crush_update_on_start": "false",
        "osd_class_update_on_start": "false",
        "osd_class_load_list": "*",
        "osd_class_default_list": "*",
        "osd_heartbeat_interval": "1",
        "osd_heartbeat_grace": "5",
        # No scrubbing between the measurements.
        "osd_scrub_load_threshold": "0",
        "osd_scrub_min_interval": "1e9",
        "osd_scrub_max_interval": "1e9",
        "osd_deep_scrub_interval": "1e9",
    }


def merged(*many: Mapping[str, Mapping[str, str]]) -> Sections:
    """Return sections in which later values replace earlier ones."""
    result: Sections = {}
    for sections in many:
        for name, values in sections.items():
            result.setdefault(name, {}).update(values)
    return result


def text(sections: Mapping[str, Mapping[str, str]]) -> str:
    """Return the text of a configuration file."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for name, values in sections.items()
    )


def new_key() -> str:
    """Return a new secret of cephx: type, time of creation, length, and 16 random bytes."""
    secret = os.urandom(16)
    header = struct.pack("<hiih", 1, int(time.time()), 0, len(secret))
    return base64.b64encode(header + secret).decode()


def entity(name: str, **caps: str) -> str:
    """Return the entry of a new user in a keyring.

    :param name: such as ``client.glance``
    :param caps: what it may do, by kind of server
    """
    lines = [f"[{name}]", f"\tkey = {new_key()}"]
    lines += [f'\tcaps {server} = "{cap}"' for server, cap in caps.items()]
    return "\n".join(lines) + "\n"


def write_secret(path: Path, content: str) -> None:
    """Write a file that only this user may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(content)


def coded_rule(osd: int) -> str:
    """Return a CRUSH rule that puts all chunks on one OSD.

    It protects from nothing, and yet the pool is erasure-coded like any other. A usual rule would
    look for as many OSDs as there are chunks and leave the pool inactive.
    """
    steps = f"\tstep take osd.{osd}\n\tstep emit\n" * CODED_CHUNKS
    return f"rule {CODED_RULE} {{\n\tid 9\n\ttype erasure\n\tmin_size 1\n\tmax_size 20\n{steps}}}\n"
