# SPDX-License-Identifier: Apache-2.0
"""Options of the VMware datastore store."""

from __future__ import annotations

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.HostAddressOpt(
        "vmware_server_host",
        sample_default="127.0.0.1",
        help="""
Name or IP address of the vCenter server or ESX(i) host that manages the
datastores.

Required, together with the user name and the password. It becomes part of the
location of each new image. Images whose locations name another server are
looked for on this one, so the server may be renamed.
""",
    ),
    cfg.StrOpt(
        "vmware_server_username",
        sample_default="root",
        help="""
User to log in to ``vmware_server_host``.

It needs the privileges ``Datastore.Browse`` and ``Datastore.FileManagement`` on
the datastores.

Related options: ``vmware_server_password``.
""",
    ),
    cfg.StrOpt(
        "vmware_server_password",
        sample_default="vmware",
        secret=True,
        help="""
Password of ``vmware_server_username``.

Make the configuration file readable only for the service.
""",
    ),
    cfg.IntOpt(
        "vmware_api_retry_count",
        default=10,
        min=1,
        help="""
Maximum number of retries of a request to the server after a passing failure.
``vmware_store_retry_timeout`` limits the time.
""",
    ),
    cfg.IntOpt(
        "vmware_task_poll_interval",
        default=5,
        min=1,
        help="""
Maximum number of seconds between two checks of a task on the server, such as
the deletion of an image.

The first checks follow more quickly, since most tasks end at once.
""",
    ),
    cfg.StrOpt(
        "vmware_store_image_dir",
        default="/openstack_glance",
        help="""
Datastore directory in which images are stored.

Use it only for images. Changing it affects new images only: the location of an
image names its directory. Configure hypervisors that use the images in place
with the same directory.
""",
    ),
    cfg.BoolOpt(
        "vmware_insecure",
        default=False,
        deprecated_name="vmware_api_insecure",
        help="""
Accept any certificate from the server.

Anyone between this host and the server could then read the password and
replace images: use it for tests only. It has no effect when ``vmware_ca_file``
is set.
""",
    ),
    cfg.StrOpt(
        "vmware_ca_file",
        sample_default="/etc/ssl/certs/ca-certificates.crt",
        help="""
Path of a PEM file with the CA certificates to verify the server's certificate,
or of a directory of such files as ``c_rehash`` creates it.

Set it if the server uses a private CA; otherwise every connection fails. When
unset, the CAs that this host trusts are used.

Related options: ``vmware_insecure``.
""",
    ),
    cfg.MultiStrOpt(
        "vmware_datastores",
        help="""
Datastores that take images, each as ``datacenter path:datastore name:weight``.

The option may be given more than once. A new image goes to the datastore with
the highest weight that has room for it, and among equal weights to the one
with the most free space. Without ``:weight``, the weight is 0. The datacenter
path starts below the root folder of the inventory, for example
``folder/datacenter1``. An entry that names an unknown datastore disables
writing.
""",
    ),
    cfg.IntOpt(
        "vmware_store_connect_timeout",
        default=10,
        min=1,
        help="""
Seconds to wait for the server to accept a connection.
""",
    ),
    cfg.IntOpt(
        "vmware_store_read_timeout",
        default=60,
        min=1,
        help="""
Seconds of silence after which a request fails: the server sends no byte of an
answer, or accepts no byte of an image.

It does not limit the duration of a whole transfer.
""",
    ),
    cfg.FloatOpt(
        "vmware_store_retry_timeout",
        default=30.0,
        min=0,
        help="""
Seconds, counted from the failure, to retry a request that failed for a passing
reason, such as a lost connection or a 503 answer. At most
``vmware_api_retry_count`` retries are sent.

Downloads resume where they stopped. Only the beginning of an upload can be
retried; one that breaks off later fails and leaves nothing. With 0, nothing is
retried.
""",
    ),
    cfg.IntOpt(
        "vmware_store_task_timeout",
        default=600,
        min=1,
        help="""
Seconds after which a task on the server is cancelled: a move that gives an
image its name, or a deletion.

On most datastores, both take less than a second. Raise it if the server queues
tasks for long, or if a move copies the data.
""",
    ),
    cfg.IntOpt(
        "vmware_store_memory",
        default=256,
        min=16,
        help="""
Mebibytes of memory that all downloads of the store share in each process, to
fetch several ranges at once.

A download that finds no memory left fetches one range after the other.
""",
    ),
]
