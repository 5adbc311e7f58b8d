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
Size in MiB of the RADOS objects that an image is cut into, and of one read or
write.

Powers of two suit Ceph; other values are rounded down to the next one for the
objects. Larger objects mean fewer of them for the cluster to keep, smaller
ones spread an image over more disks. Images that are stored keep their object
size.
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

When unset, the Ceph library chooses, from the ``[client]`` section of the Ceph
configuration file or as ``admin``. Use a user that may do no more than the
pool needs (capabilities ``profile rbd``). Its keyring must be readable for the
service.

Related options: ``rbd_store_ceph_conf``.
""",
    ),
    cfg.StrOpt(
        "rbd_store_ceph_conf",
        default="",
        help="""
Path of the Ceph configuration file, which names the monitors and the keyrings.

Empty: the library looks at its usual places, first ``/etc/ceph/ceph.conf``.
Set it when several clusters are in use, one file for each store.
""",
    ),
    cfg.IntOpt(
        "rados_connect_timeout",
        default=-1,
        help="""
Seconds to wait for the cluster, when connecting and for each operation.

Negative: what the Ceph configuration file says. 0: wait for ever. With a
positive value a cluster that is down makes requests fail instead of holding
the workers of the service; too small a value breaks transfers while the
cluster recovers or is busy.
""",
    ),
    cfg.BoolOpt(
        "rbd_thin_provisioning",
        default=False,
        help="""
Do not write the parts of an image that are all zeros.

Saves space in the pool and time for raw images that are mostly empty. The
parts that were left out read back as zeros, so the image is the same.
""",
    ),
    cfg.IntOpt(
        "rbd_store_io_depth",
        default=8,
        min=1,
        max=128,
        help="""
How many reads, and how many writes, of one image are in flight at once.

One of them has up to 4 MiB, or ``rbd_store_chunk_size`` if that is less, and
memory for a few copies of it is needed for each: 8 stay below 320 MiB for a
transfer. More of them help where the network to the cluster has long delays
or the disks are many; 1 reads and writes strictly one after the other.
""",
    ),
    cfg.StrOpt(
        "rbd_store_data_pool",
        help="""
Pool for the data of new images, when it is not the one of ``rbd_store_pool``,
which then keeps only their names, sizes and snapshots.

This is how an erasure-coded pool is used: it must allow overwrites
(``allow_ec_overwrites``), and the user in ``rbd_store_user`` must be allowed to
read and write both pools. Readers need no option for such images. Changing it
affects new images only.
""",
    ),
    cfg.StrOpt(
        "rbd_store_namespace",
        help="""
Namespace of the pool in which new images are stored.

It must exist (``rbd namespace create``). A Ceph user can be given one namespace
alone (``profile rbd pool=images namespace=glance``). Locations of images in a
namespace have five components; releases before 6.0, and services that clone
images in Ceph, do not understand them: Nova and Cinder then copy the image
instead. When unset, images are stored outside of all namespaces.
""",
    ),
]
