# SPDX-License-Identifier: Apache-2.0
"""Options of the Ceph RBD store."""

from __future__ import annotations

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt(
        "rbd_store_chunk_size",
        default=8,
        min=1,
        help="""
Size in MiB of an image's RADOS objects, and of one read or write.

Use a power of two: other values are rounded down to one for the objects.
Larger objects mean fewer of them for the cluster to manage; smaller objects
spread an image over more disks. Stored images keep their object size.
""",
    ),
    cfg.StrOpt(
        "rbd_store_pool",
        default="images",
        help="""
Pool in which images are stored.

It must exist and be initialised for RBD, and the user in ``rbd_store_user``
must be allowed to read and write it. Changing it affects new images only: the
location of an image names its pool.
""",
    ),
    cfg.StrOpt(
        "rbd_store_user",
        help="""
Ceph user (the part after ``client.``) that the store authenticates as.

When unset, the Ceph library chooses: the user of the ``[client]`` section in
the Ceph configuration file, or ``admin``. Use a user with no more rights than
the pool needs (capabilities ``profile rbd``). The service must be able to read
its keyring.

Related options: ``rbd_store_ceph_conf``.
""",
    ),
    cfg.StrOpt(
        "rbd_store_ceph_conf",
        default="",
        help="""
Path of the Ceph configuration file, which names the monitors and the keyrings.

When empty, the library looks in its default locations, first
``/etc/ceph/ceph.conf``. To use several clusters, set it for each store.
""",
    ),
    cfg.IntOpt(
        "rados_connect_timeout",
        default=-1,
        help="""
Seconds to wait for the cluster, when connecting and for each operation.

Negative: use what the Ceph configuration file says. 0: wait forever. With a
positive value, requests fail when the cluster is down, instead of blocking the
workers of the service. Too small a value breaks transfers while the cluster
recovers or is busy.
""",
    ),
    cfg.BoolOpt(
        "rbd_thin_provisioning",
        default=False,
        help="""
Do not write the parts of an image that are all zeros.

Saves space in the pool, and time for raw images that are mostly empty. The
parts that are left out read back as zeros, so the image is the same.
""",
    ),
    cfg.IntOpt(
        "rbd_store_io_depth",
        default=8,
        min=1,
        max=128,
        help="""
How many reads or writes of one image are in flight at once.

Each covers up to 4 MiB, or ``rbd_store_chunk_size`` if that is less, and takes
memory for a few copies of it: a transfer with 8 stays below 320 MiB. Higher
values help if the network to the cluster has a high latency or the cluster has
many disks. With 1, reads and writes run strictly one after the other.
""",
    ),
    cfg.StrOpt(
        "rbd_store_data_pool",
        help="""
Pool for the data of new images, if not ``rbd_store_pool``, which then keeps
only their names, sizes and snapshots.

Use it for an erasure-coded pool, which must allow overwrites
(``allow_ec_overwrites``). The user in ``rbd_store_user`` must be allowed to
read and write both pools. Readers of such images need no option. Changing it
affects new images only.
""",
    ),
    cfg.StrOpt(
        "rbd_store_namespace",
        help="""
Pool namespace in which new images are stored.

It must exist (``rbd namespace create``). A Ceph user can be restricted to one
namespace (``profile rbd pool=images namespace=glance``). Locations of images
in a namespace have five components. Releases before 6.0, and services that
clone images in Ceph, do not understand them: Nova and Cinder copy the image
instead. When unset, images are stored outside any namespace.
""",
    ),
]
