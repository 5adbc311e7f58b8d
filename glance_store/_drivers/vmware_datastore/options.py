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

The store needs it together with the user name and the password. It becomes
part of the location of each new image. Images whose locations name another
server are looked for at this one, so that it may get another name.
""",
    ),
    cfg.StrOpt(
        "vmware_server_username",
        sample_default="root",
        help="""
User to log in as at ``vmware_server_host``.

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

Keep the configuration file readable for the service only.
""",
    ),
    cfg.IntOpt(
        "vmware_api_retry_count",
        default=10,
        min=1,
        help="""
How often a request to the server is sent again after a passing failure, at
most. ``vmware_store_retry_timeout`` limits the time.
""",
    ),
    cfg.IntOpt(
        "vmware_task_poll_interval",
        default=5,
        min=1,
        help="""
Seconds between two looks at a task that the server carries out, such as the
deletion of an image, at most.

The first looks follow each other sooner, since most tasks end at once.
""",
    ),
    cfg.StrOpt(
        "vmware_store_image_dir",
        default="/openstack_glance",
        help="""
Directory of the datastore in which images are stored.

It should be used for images alone. Changing it affects new images only: the
location of an image names its directory. Hypervisors that use the images in
place must be configured with the same directory.
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
Path of a file with the certificates, in PEM form, of the authorities that sign
the certificate of the server, or of a directory of such files, as ``c_rehash``
makes it.

When unset, the authorities that this host trusts are used. Needed for a server
with a private authority; otherwise every connection fails.

Related options: ``vmware_insecure``.
""",
    ),
    cfg.MultiStrOpt(
        "vmware_datastores",
        help="""
Datastores that take images, each as ``datacenter path:datastore name:weight``.

The option may be given many times. A new image goes to the datastore of the
highest weight that has room for it, among equal weights to the one with the
most free space. Without ``:weight`` it is 0. The path of the datacenter starts
below the root folder of the inventory, for example ``folder/datacenter1``. An
entry that names an unknown datastore disables writing.
""",
    ),
    cfg.IntOpt(
        "vmware_store_connect_timeout",
        default=10,
        min=1,
        help="""
Seconds to wait until the server accepts a connection.
""",
    ),
    cfg.IntOpt(
        "vmware_store_read_timeout",
        default=60,
        min=1,
        help="""
Seconds of silence after which a request is given up: the server sends no byte
of an answer, or takes no byte of an image.

It does not limit how long a transfer takes as a whole.
""",
    ),
    cfg.FloatOpt(
        "vmware_store_retry_timeout",
        default=30.0,
        min=0,
        help="""
Seconds for which a request that failed for a passing reason is sent again: a
lost connection, or an answer such as 503. They count from the failure. At most
``vmware_api_retry_count`` further requests are sent.

Downloads go on where they stopped. Of an upload only the beginning can be sent
again; one that breaks off later fails and leaves nothing. With 0 nothing is
sent again.
""",
    ),
    cfg.IntOpt(
        "vmware_store_task_timeout",
        default=600,
        min=1,
        help="""
Seconds after which a task of the server is given up and cancelled: the move
that gives an image its name, and deletions.

On most datastores both take less than a second. Raise it where the server
queues tasks for long, or where a move copies the data.
""",
    ),
    cfg.IntOpt(
        "vmware_store_memory",
        default=256,
        min=16,
        help="""
Mebibytes that the downloads of the store may hold together in each process, to
fetch several ranges side by side.

A download for which nothing is left fetches one range after the other.
""",
    ),
]
