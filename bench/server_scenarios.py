# SPDX-License-Identifier: Apache-2.0
"""What is measured of the drivers that need servers, and what it has to reach."""

from __future__ import annotations

from bench.model import CURRENT, REFERENCE, Goal, Scenario
from bench.worker import GIB, MIB, Task

HUGE = 4 * GIB
CPU = "CPU s/GiB"
STATED = (CPU,)

# rbd

OSD_IN, OSD_OUT = "OSD MiB in", "OSD MiB out"
SERVED = (CPU, OSD_IN, OSD_OUT)
THIN = {"rbd_thin_provisioning": True}
# One MiB in sixteen; what the OSD serves besides is the image of the warm-up, and metadata.
DATA_MIB = 4096 / 16
CODED_POOL = "images_data"
CODED = {
    # The reference has no option for it; librbd itself takes it from its configuration file.
    "options": {CURRENT: {"rbd_store_data_pool": CODED_POOL}},
    "servers": {REFERENCE: {"client": {"rbd_default_data_pool": CODED_POOL}}},
}
# One more contender each: the current library with these options, and with these sections in the
# configuration of the cluster and its clients.
DEPTHS = {f"depth {depth}": {"rbd_store_io_depth": depth} for depth in (1, 2, 4, 8, 16, 32)}
CHUNKS = {f"chunk {size} MiB": {"rbd_store_chunk_size": size} for size in (1, 2, 4, 16, 32)}
CLUSTERS = {
    "cache off": {"client": {"rbd_cache": "false"}},
    "write-back": {"client": {"rbd_cache_writethrough_until_flush": "false"}},
    "write-through": {"client": {"rbd_cache_policy": "writethrough"}},
    "1 x 1 threads": {"osd": {"osd_op_num_shards": "1", "osd_op_num_threads_per_shard": "1"}},
    "4 x 2 threads": {"osd": {"osd_op_num_shards": "4", "osd_op_num_threads_per_shard": "2"}},
    "cache 512 MiB": {"osd": {"bluestore_cache_size": str(512 * MIB)}},
    "no checksums": {
        "osd": {"bluestore_csum_type": "none", "ms_crc_data": "false"},
        "client": {"ms_crc_data": "false"},
    },
}


def _rbd(name: str, title: str, task: Task, *goals: Goal, **more: object) -> Scenario:
    settings: dict[str, object] = {"place": "ceph", "stated": SERVED, **more}
    return Scenario(name, title, task, goals, **settings)  # type: ignore[arg-type]


RBD = (
    _rbd("add", "add 1 GiB, random", Task("add", GIB), Goal("speed", 1.7), rivals=("rbd import",)),
    _rbd("get", "get 1 GiB", Task("read", GIB), Goal("speed", 1.9), rivals=("rbd export",)),
    _rbd(
        "add-thin",
        "add 4 GiB, 94 % zeros, thin",
        Task("add", HUGE, options=THIN),
        Goal("speed", 2.1),
        content="scattered",
        at_most=2,
        rivals=("rbd import",),
    ),
    _rbd(
        "get-thin",
        "get 4 GiB, 94 % holes",
        Task("read", HUGE, options=THIN),
        Goal("speed", 1.0),
        Goal("figure", DATA_MIB * 1.05, figure=OSD_OUT),
        content="scattered",
        at_most=2,
        rivals=("rbd export",),
    ),
    _rbd(
        "memory-known",
        "add 4 GiB, size known",
        Task("add", HUGE, source="generated"),
        Goal("peak", 256 * MIB),
        at_most=1,
        warm=False,
    ),
    _rbd(
        "memory-unknown",
        "add 4 GiB, size unknown",
        Task("add", HUGE, source="generated", declared=False),
        Goal("peak", 256 * MIB),
        at_most=1,
        warm=False,
    ),
    _rbd(
        "memory-get",
        "get 2 GiB",
        Task("read", HUGE // 2, source="generated"),
        Goal("peak", 256 * MIB),
        at_most=1,
        warm=False,
    ),
    _rbd("add-coded", "add 1 GiB to a coded pool", Task("add", GIB), extra=True, **CODED),
    _rbd("get-coded", "get 1 GiB from a coded pool", Task("read", GIB), extra=True, **CODED),
    _rbd("add-depths", "add 1 GiB at depths", Task("add", GIB), extra=True, options=DEPTHS),
    _rbd("get-depths", "get 1 GiB at depths", Task("read", GIB), extra=True, options=DEPTHS),
    _rbd("add-chunks", "add 1 GiB in chunks", Task("add", GIB), extra=True, options=CHUNKS),
    _rbd("get-chunks", "get 1 GiB in chunks", Task("read", GIB), extra=True, options=CHUNKS),
    _rbd(
        "add-clusters",
        "add 1 GiB to clusters of other settings",
        Task("add", GIB),
        extra=True,
        options={label: {} for label in CLUSTERS},
        servers=CLUSTERS,
    ),
    _rbd(
        "get-clusters",
        "get 1 GiB from clusters of other settings",
        Task("read", GIB),
        extra=True,
        options={label: {} for label in CLUSTERS},
        servers=CLUSTERS,
    ),
)

# s3

BOTO3 = "boto3"
BOTO3_HASHING = "boto3 + hashes"
# Without the hash that only the service sees, which boto3 computes as well.
UNVERIFIED = {"parts not verified": {"s3_store_verify_parts": False}}
NOT_SLOWER = Goal("speed", 1.0, against=BOTO3)
S3_PEAK = Goal("peak", 250 * MIB)
TLS = "radosgw-tls"
# MiB that the transfers of a store share, unless configured.
MEMORY = 256


def _s3(name: str, title: str, task: Task, *goals: Goal, **more: object) -> Scenario:
    settings: dict[str, object] = {"place": "radosgw", "stated": STATED, **more}
    return Scenario(name, title, task, goals, **settings)  # type: ignore[arg-type]


S3 = (
    _s3(
        "add",
        "add 1 GiB, random",
        Task("add", GIB),
        Goal("speed", 1.1),
        NOT_SLOWER,
        rivals=(BOTO3, BOTO3_HASHING),
        options=UNVERIFIED,
    ),
    _s3(
        "add-network",
        "add 1 GiB, 64 KiB reads",
        Task("add", GIB, source="network"),
        Goal("speed", 2.0),
    ),
    _s3("add-tls", "add 1 GiB over TLS", Task("add", GIB), Goal("speed", 1.15), place=TLS),
    _s3(
        "add-tls-network",
        "add 1 GiB over TLS, 64 KiB reads",
        Task("add", GIB, source="network"),
        Goal("speed", 1.15),
        place=TLS,
    ),
    _s3("get-tls", "get 1 GiB over TLS", Task("read", GIB), place=TLS),
    _s3(
        "add-eight",
        "add 8 images of 1 GiB at once",
        Task("add", GIB, count=8, threads=8, source="generated"),
        Goal("peak", (MEMORY + 100) * MIB),
        at_most=1,
        warm=False,
        alone=True,
    ),
    _s3("get", "get 1 GiB", Task("read", GIB), Goal("speed", 1.0), NOT_SLOWER, rivals=(BOTO3,)),
    _s3(
        "add-far",
        "add 1 GiB, 20 ms, 40 MiB/s a connection",
        Task("add", GIB),
        Goal("speed", 1.2),
        link="far",
        at_most=2,
        warm=False,
    ),
    _s3(
        "get-far",
        "get 1 GiB, 20 ms, 40 MiB/s a connection",
        Task("read", GIB),
        Goal("speed", 4.0),
        link="far",
        at_most=2,
        warm=False,
    ),
    _s3(
        "memory-known",
        "add 4 GiB, size known",
        Task("add", HUGE, source="generated"),
        S3_PEAK,
        at_most=1,
        warm=False,
    ),
    _s3(
        "memory-unknown",
        "add 4 GiB, size unknown",
        Task("add", HUGE, source="generated", declared=False),
        S3_PEAK,
        at_most=1,
        warm=False,
        # The reference needs more than ten minutes: its time grows faster than the size.
        alone=True,
    ),
    _s3(
        "memory-512",
        "add 512 MiB, size unknown",
        Task("add", GIB // 2, source="generated", declared=False),
        S3_PEAK,
        at_most=1,
        warm=False,
    ),
    _s3(
        "memory-slow",
        "add 1 GiB, 20 MiB/s in all",
        Task("add", GIB, source="generated"),
        S3_PEAK,
        link="slow",
        at_most=1,
        warm=False,
    ),
    _s3(
        "memory-slow-unknown",
        "add 1 GiB, 20 MiB/s in all, size unknown",
        Task("add", GIB, source="generated", declared=False),
        S3_PEAK,
        link="slow",
        at_most=1,
        warm=False,
        # With its one connection the reference would need nine minutes.
        alone=True,
        extra=True,
    ),
    _s3(
        "memory-get",
        "get 4 GiB",
        Task("read", HUGE, source="generated"),
        S3_PEAK,
        at_most=1,
        warm=False,
        extra=True,
    ),
    _s3(
        "add-s3api",
        "add 1 GiB to Swift's s3api",
        Task("add", GIB),
        place="swift",
        rivals=(BOTO3,),
        extra=True,
    ),
    _s3(
        "get-s3api",
        "get 1 GiB from Swift's s3api",
        Task("read", GIB),
        place="swift",
        rivals=(BOTO3,),
        extra=True,
    ),
)

# swift

THREADS = 4
# Bytes of the driver's unit for sizes; the reference wants whole segments.
SEGMENT = 32 * 1000 * 1024
LARGE_SEGMENT = 200 * 1000 * 1024
SEGMENTS_32 = {"swift_store_large_object_size": 100, "swift_store_large_object_chunk_size": 32}
SEGMENTS_200 = {"swift_store_large_object_size": 200, "swift_store_large_object_chunk_size": 200}
TENANT = {"swift_store_multi_tenant": True, **SEGMENTS_32}
FOUR = {
    CURRENT: {
        "swift_store_thread_pool_size": THREADS,
        "swift_store_read_concurrency": THREADS,
    }
}
UNVERIFIED_SEGMENTS = {"segments not verified": {"swift_store_verify_segments": False}}
# The option for memory says how much all transfers together may take; 256 MiB unless set.
HOLDING = {CURRENT: {**FOUR[CURRENT], "swift_store_memory": 1200}}
# What a process takes that has loaded the library and its client.
PROCESS = 64 * MIB


def _swift(name: str, title: str, task: Task, *goals: Goal, **more: object) -> Scenario:
    settings: dict[str, object] = {
        "place": "swift",
        "stated": STATED,
        "options": FOUR,
        "unit": SEGMENT,
        **more,
    }
    return Scenario(name, title, task, goals, **settings)  # type: ignore[arg-type]


SWIFT = (
    _swift(
        "add",
        "add 1000 MiB, random, 32 segments",
        Task("add", 32 * SEGMENT, options=SEGMENTS_32),
        Goal("speed", 1.4),
        rivals=("SwiftService",),
    ),
    _swift(
        "add-default",
        "add 1000 MiB, random, as configured by default",
        Task("add", 32 * SEGMENT),
        Goal("speed", 1.4),
        options={},
    ),
    _swift(
        "add-default-network",
        "add 1000 MiB by default, 64 KiB reads",
        Task("add", 32 * SEGMENT, source="network"),
        Goal("speed", 1.4),
        options=UNVERIFIED_SEGMENTS,
    ),
    _swift("get-default", "get 1000 MiB by default", Task("read", 32 * SEGMENT), options={}),
    _swift(
        "add-default-far",
        "add 1000 MiB by default, 20 ms, 40 MiB/s a connection",
        Task("add", 32 * SEGMENT),
        Goal("speed", 3.0),
        options={},
        link="far",
        at_most=2,
        warm=False,
    ),
    _swift(
        "add-five",
        "add 5 images of 200 MiB at once, by default",
        Task("add", 200 * MIB, count=5, threads=5, source="generated"),
        Goal("peak", 400 * MIB),
        options={},
        unit=MIB,
    ),
    _swift(
        "get",
        "get 1000 MiB, 32 segments",
        Task("read", 32 * SEGMENT, options=SEGMENTS_32),
        Goal("speed", 1.0),
    ),
    _swift(
        "add-far",
        "add 1000 MiB, 20 ms, 40 MiB/s a connection",
        Task("add", 32 * SEGMENT, options=SEGMENTS_32),
        Goal("speed", 3.5),
        link="far",
        at_most=2,
        warm=False,
    ),
    _swift(
        "get-far",
        "get 1000 MiB, 20 ms, 40 MiB/s a connection",
        Task("read", 32 * SEGMENT, options=SEGMENTS_32),
        Goal("speed", 3.5),
        link="far",
        at_most=2,
        warm=False,
    ),
    _swift(
        "memory-32",
        "add 2000 MiB, size unknown, segments of 32 MB",
        Task("add", 64 * SEGMENT, source="generated", declared=False, options=SEGMENTS_32),
        Goal("peak", (THREADS + 2) * SEGMENT + PROCESS),
        at_most=1,
        warm=False,
    ),
    _swift(
        "memory-200",
        "add 1953 MiB, size known, segments of 200 MB",
        Task("add", 10 * LARGE_SEGMENT, source="generated", options=SEGMENTS_200),
        Goal("peak", 256 * MIB + PROCESS),
        unit=LARGE_SEGMENT,
        at_most=1,
        warm=False,
    ),
    _swift(
        "memory-200-held",
        "add 1953 MiB, segments of 200 MB, memory for six",
        Task("add", 10 * LARGE_SEGMENT, source="generated", options=SEGMENTS_200),
        Goal("peak", (THREADS + 2) * LARGE_SEGMENT + PROCESS),
        options=HOLDING,
        unit=LARGE_SEGMENT,
        at_most=1,
        warm=False,
        extra=True,
    ),
    _swift(
        "memory-get",
        "get 2000 MiB, segments of 32 MB",
        Task("read", 64 * SEGMENT, source="generated", options=SEGMENTS_32),
        Goal("peak", (THREADS + 2) * SEGMENT + PROCESS),
        at_most=1,
        warm=False,
        extra=True,
    ),
    _swift(
        "add-tenant",
        "add 1000 MiB, multi-tenant",
        Task("add", 32 * SEGMENT, options=TENANT),
        extra=True,
    ),
    _swift(
        "get-tenant",
        "get 1000 MiB, multi-tenant",
        Task("read", 32 * SEGMENT, options=TENANT),
        extra=True,
    ),
)

# cinder

EXTENSIONS = "extensions"
ONLINE = {"cinder_do_extend_attached": True}
UNKNOWN = 3277 * MIB  # 3.2 GiB
FEW = Goal("figure", 4, figure=EXTENSIONS)


def _cinder(name: str, title: str, task: Task, *goals: Goal, **more: object) -> Scenario:
    settings: dict[str, object] = {"place": "cinder", "stated": STATED, **more}
    return Scenario(name, title, task, goals, **settings)  # type: ignore[arg-type]


CINDER = (
    _cinder("add", "add 1 GiB, random", Task("add", GIB), Goal("speed", 1.3)),
    _cinder("get", "get 1 GiB", Task("read", GIB), Goal("speed", 1.2)),
    _cinder(
        "unknown",
        "add 3.2 GiB, size unknown",
        Task("add", UNKNOWN, source="generated", declared=False),
        FEW,
        stated=(CPU, EXTENSIONS),
        at_most=1,
        warm=False,
    ),
    _cinder(
        "unknown-online",
        "add 3.2 GiB, size unknown, extended while attached",
        Task("add", UNKNOWN, source="generated", declared=False, options=ONLINE),
        FEW,
        stated=(CPU, EXTENSIONS),
        at_most=1,
        warm=False,
    ),
)

# vmware

VMWARE_PEAK = Goal("peak", 150 * MIB)


def _vmware(name: str, title: str, task: Task, *goals: Goal, **more: object) -> Scenario:
    settings: dict[str, object] = {"place": "vcenter", "stated": STATED, **more}
    return Scenario(name, title, task, goals, **settings)  # type: ignore[arg-type]


VMWARE = (
    _vmware("add", "add 1 GiB, random", Task("add", GIB), Goal("speed", 1.4), VMWARE_PEAK),
    _vmware("get", "get 1 GiB", Task("read", GIB), Goal("speed", 1.0), VMWARE_PEAK),
)
