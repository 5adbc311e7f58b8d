# SPDX-License-Identifier: Apache-2.0
"""Options of the file system store."""

from __future__ import annotations

import copy

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "filesystem_store_datadir",
        default="/var/lib/glance/images",
        help="""
Directory that holds the images, one file each, named by the image id.

It is created if it does not exist; the user of the service must be able to
write to it. Put it on its own file system: images that fill the system disk
stop the whole host. Set either this option or ``filesystem_store_datadirs``;
with both or neither, the store takes no images.

Related options: ``filesystem_store_datadirs``,
``filesystem_store_require_mount``.
""",
    ),
    cfg.MultiStrOpt(
        "filesystem_store_datadirs",
        deprecated_for_removal=True,
        deprecated_since="Flamingo",
        deprecated_reason="""
Several stores of type ``file``, each with its own
``filesystem_store_datadir``, do the same, and let users of the API choose
among them.
""",
        help="""
Several directories for the images of one store, each as ``path:priority``.

The option may be given several times. A new image goes to the directory with
the highest priority that has room for it; among equal priorities, to the one
with the most free space. The default priority is 0. The same path with
different priorities is refused. When you use this option, set
``filesystem_store_datadir`` to an empty value.
""",
    ),
    cfg.StrOpt(
        "filesystem_store_metadata_file",
        help="""
Path of a JSON file that describes the storage under the data directories.

It holds one object or a list of objects, each with the strings ``id`` and
``mountpoint`` and any further strings. The object whose mount point contains a
new image is saved with the image's location, for consumers that reach the same
storage without the image service. Images already stored keep what was saved
with them. A missing or malformed file disables writing.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_file_perm",
        default=0,
        help="""
Permission bits of new image files, as octal digits: 640 means rw-r-----.

0 or less leaves the permissions to the umask of the service. Set it when
another service, such as a hypervisor under its own user, reads the files
directly. The owner must keep read permission, or the store refuses to start
writing. When group or others get access to the files, they also get permission
to enter the data directory.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_chunk_size",
        default=64 * 1024,
        min=1,
        help="""
Bytes to read from or write to an image file in one step.

Larger values save round trips on network file systems, where a few MiB are a
good choice. Every running transfer needs memory in proportion, about 8 MiB at
least. Values below 512 KiB for reading and 1 MiB for writing are rounded up to
these sizes.
""",
    ),
    cfg.BoolOpt(
        "filesystem_thin_provisioning",
        default=False,
        help="""
Leave holes in the image file where the image is all zeros.

This saves disk space and time for raw images that are mostly empty. Holes read
back as zeros, so the image is the same. Leave it off where tools that copy the
directory would fill the holes, or where the space for an image must be
reserved when it is stored.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_timeout",
        default=0,
        min=0,
        help="""
Seconds to wait for a call on an image file or its directory; 0 waits for ever.

On a network file system whose server is gone, such calls never return, and one
worker of the service after another gets stuck. With a value above 0, the calls
run in a pool of threads, and a late one fails with an error instead. Choose a
value well above the slowest healthy response.

Related options: ``filesystem_store_thread_pool_size``,
``filesystem_store_threadpool_threshold``.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_thread_pool_size",
        default=10,
        min=1,
        help="""
Number of threads that run calls under ``filesystem_store_timeout``.

A call that hangs keeps its thread until the file system responds; when all
threads are busy, further calls wait and time out too. Without a timeout the
option has no effect.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_threadpool_threshold",
        default=75,
        min=0,
        max=100,
        help="""
Percentage of busy threads in the pool at which a warning is logged.

Repeated warnings mean that the file system is slow or gone, or that
``filesystem_store_thread_pool_size`` is too small for the load. Without
``filesystem_store_timeout`` the option has no effect.
""",
    ),
    cfg.BoolOpt(
        "filesystem_store_fsync",
        default=True,
        help="""
Flush an image and its directory entry to stable storage before the upload
succeeds.

An image reported as stored then survives a power failure. Turn it off only
where losing the latest images does not matter, or where the storage is known
to be safe and flushing is too slow: after a crash, an image marked as active
may be missing or damaged.
""",
    ),
    cfg.BoolOpt(
        "filesystem_store_require_mount",
        default=False,
        help="""
Take images only if every data directory is on a mounted file system other than
the root file system.

When a file system is not mounted at start-up, for example because its server
was unreachable, the empty mount point is an ordinary directory on the root
disk: images would fill that disk, and disappear at the next mount. Turn it on
wherever the images have their own file system. Leave it off where they are
meant to be on the root file system.

Related options: ``filesystem_store_datadir``, ``filesystem_store_datadirs``.
""",
    ),
]


def reserved(identifier: str) -> list[cfg.Opt]:
    """Return the options of a reserved store, with its own default directory."""
    own = []
    for opt in OPTIONS:
        copied = copy.copy(opt)
        copied.help = f"For the reserved store {identifier}. {opt.help}"
        copied.deprecated_for_removal = False
        copied.deprecated_since = None
        copied.deprecated_reason = None
        if opt.name == "filesystem_store_datadir":
            copied.default = f"/var/lib/glance/{identifier}"
        own.append(copied)
    return own
