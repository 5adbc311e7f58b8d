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
write to it. Give it a file system of its own: images that fill the disk of the
operating system stop the whole host. Set either this or
``filesystem_store_datadirs``; with both or none of them set the store takes no
images.

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
``filesystem_store_datadir``, do the same, and a user of the API can then
choose among them.
""",
        help="""
Several directories for the images of one store, each as ``path:priority``.

The option may be given many times. A new image goes to the directory of the
highest priority that has room for it, among equal priorities to the one with
the most free space. Without ``:priority`` it is 0. The same path twice with
different priorities is refused. Unset ``filesystem_store_datadir`` (give it an
empty value) when this one is used.
""",
    ),
    cfg.StrOpt(
        "filesystem_store_metadata_file",
        help="""
Path of a JSON file that says which storage the data directories lie on.

It holds one object or a list of objects; each has the texts ``id`` and
``mountpoint`` and any further texts. The object whose mount point contains the
new image is saved with the image's location, for consumers that reach the same
storage without going through the image service. Images that are already stored
keep what was saved with them. A file that is missing or not of this form
disables writing.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_file_perm",
        default=0,
        help="""
Permission bits of new image files, as the digits of an octal number: 640 means
rw-r-----.

0 or less leaves what the umask of the service gives. Set it when another
service, for example a hypervisor under its own user, reads the files directly.
The owner must keep the right to read, or the store refuses to start writing.
When group or others get access to the files, the data directory gets the
matching right to enter it.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_chunk_size",
        default=64 * 1024,
        min=1,
        help="""
Bytes that are read from or written to an image file in one step.

Larger values save round trips on network file systems; some MiB are a good
choice there. Each transfer that is under way needs memory in proportion, some
8 MiB at least. Values below 512 KiB for reading and 1 MiB for writing are
rounded up to these.
""",
    ),
    cfg.BoolOpt(
        "filesystem_thin_provisioning",
        default=False,
        help="""
Leave holes in the image file where the image is all zeros.

Saves disk space and time for raw images that are mostly empty. Holes read back
as zeros, so the image is the same. Leave it off where tools that copy the
directory would fill the holes, or where the space of an image has to be set
aside when it is stored.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_timeout",
        default=0,
        min=0,
        help="""
Seconds to wait for a call on an image file or its directory; 0 waits for ever.

On a network file system whose server is gone such calls never return, and one
after the other all workers of the service get stuck. With a value above 0 the
calls run in a pool of threads and a late one fails with an error instead.
Choose a value well above the slowest healthy answer.

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

A call that hangs keeps its thread until the file system answers again; when
all threads are taken, further calls wait and time out too. Without a timeout
the option has no effect.
""",
    ),
    cfg.IntOpt(
        "filesystem_store_threadpool_threshold",
        default=75,
        min=0,
        max=100,
        help="""
Percentage of busy threads in the pool from which on a warning is logged.

Warnings that keep coming mean that the file system is slow or gone, or that
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

An image that was reported as stored then survives a power failure. Turn it off
only where losing the images of the last seconds does not matter, or where the
storage below is known to be safe and flushing is too slow: after a crash an
image marked as active may be missing or damaged.
""",
    ),
    cfg.BoolOpt(
        "filesystem_store_require_mount",
        default=False,
        help="""
Take images only if every data directory lies on a mounted file system other
than the root one.

When a file system is not mounted at start-up, for example because a server was
not reachable, the empty mount point is an ordinary directory of the root disk:
images would fill that disk and vanish from sight at the next mount. Turn it on
wherever the images have a file system of their own. It must be off where the
images are meant to lie on the root file system.

Related options: ``filesystem_store_datadir``, ``filesystem_store_datadirs``.
""",
    ),
]


def reserved(identifier: str) -> list[cfg.Opt]:
    """Return the options of a reserved store, with a directory of its own as the default.

    :param identifier: name of the store, such as ``os_glance_staging_store``
    """
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
