# SPDX-License-Identifier: Apache-2.0
"""Options of the Swift store."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

_REPLACED: dict[str, Any] = {
    "deprecated_for_removal": True,
    "deprecated_reason": """
Put accounts into the file named by ``swift_store_config_file``: the locations
of images then name a section of that file instead of holding a password.
""",
}

_FIRST: list[cfg.Opt] = [
    cfg.BoolOpt(
        "swift_store_auth_insecure",
        default=False,
        help="""
Accept any certificate from the identity service and from Swift.

Anyone between this host and the servers could then read the password and
replace images: use it for tests only. For a private authority, set
``swift_store_cacert`` instead.
""",
    ),
    cfg.StrOpt(
        "swift_store_cacert",
        sample_default="/etc/ssl/certs/ca-certificates.crt",
        help="""
Path of a PEM file, or of a directory made by ``openssl rehash``, with the
certificates of the authorities that the identity service and Swift use.

When unset, the authorities that this host trusts are used. Servers with a
private authority need this option.
""",
    ),
    cfg.StrOpt(
        "swift_store_region",
        sample_default="RegionTwo",
        help="""
Region whose Swift endpoint is taken from the service catalogue.

Set it when the catalogue has several regions: the first matching endpoint is
used otherwise, which may be far away. It has no effect with
``swift_store_endpoint``.
""",
    ),
    cfg.StrOpt(
        "swift_store_endpoint",
        sample_default="https://swift.openstack.example.org/v1/path_not_including_container_name",
        help="""
URL of the storage, up to the account and without a container, to use instead
of the one in the service catalogue.

Set it when this host reaches Swift at another address than the users of the
catalogue. Images written to a wrong account cannot be found again later.
""",
    ),
    cfg.StrOpt(
        "swift_store_endpoint_type",
        default="publicURL",
        choices=["publicURL", "adminURL", "internalURL"],
        help="""
Which of the addresses in the service catalogue is used.

``internalURL`` keeps image traffic inside the cloud's own network, if the
catalogue has it. It has no effect with ``swift_store_endpoint``.
""",
    ),
    cfg.StrOpt(
        "swift_store_service_type",
        default="object-store",
        help="""
Type under which the service catalogue lists Swift.

Change it only for a catalogue that uses another name. It has no effect with
``swift_store_endpoint``.
""",
    ),
    cfg.StrOpt(
        "swift_store_container",
        default="glance",
        help="""
Container that holds the images, or the first part of the containers' names.

With one account and one container it is the whole name. With
``swift_store_multiple_containers_seed`` or ``swift_store_multi_tenant``, an
underscore and the image id, or a part of it, follow. A change affects new
images only.
""",
    ),
    cfg.IntOpt(
        "swift_store_large_object_size",
        default=5 * 1024,
        min=1,
        help="""
Images of this size, or larger, are stored in segments. The unit is MB of
1,024,000 bytes.

When neither this option nor ``swift_store_large_object_chunk_size`` is set,
the store chooses: from 64 MiB on, it sends segments of 32 MiB in parallel, or
larger ones if the cluster would not accept so many. If either option is set,
both apply as they are.

Swift refuses single objects above its own limit, usually 5 GB: do not set more
than that. An image whose size is not known when the upload begins is always
stored in segments.
""",
    ),
    cfg.IntOpt(
        "swift_store_large_object_chunk_size",
        default=200,
        min=1,
        help="""
Size of one segment in MB of 1,024,000 bytes.

Smaller segments mean less to send again after an error; larger ones mean fewer
objects to store and delete. Stored images keep their segments.

A cluster accepts a limited number of segments per image, usually 9,999. An
image that would need more gets larger ones; if its size is not known
beforehand, they grow with it, but not beyond what the cluster allows.
""",
    ),
    cfg.BoolOpt(
        "swift_store_create_container_on_put",
        default=False,
        help="""
Create the container at an upload if it does not exist.

Needed with ``swift_store_multi_tenant`` or
``swift_store_multiple_containers_seed``. When off, an upload to a missing
container fails, which also reveals a misspelt name.
""",
    ),
    cfg.BoolOpt(
        "swift_store_multi_tenant",
        default=False,
        help="""
Store each image in the Swift account of the project that uploads it, in a
container of its own, instead of in one account of the service.

Projects then pay for their images from their own quota. It cannot be combined
with ``swift_store_config_file``.

Related options: ``swift_store_admin_tenants``, ``swift_store_use_trusts``.
""",
    ),
    cfg.IntOpt(
        "swift_store_multiple_containers_seed",
        default=0,
        min=0,
        max=32,
        help="""
Number of characters of the image id that are added to the container's name.

0 keeps all images in one container. A value N spreads new images over up to 16
to the power N containers, which helps where Swift slows down with, or limits,
the objects of one container. It works only with a single account; also enable
``swift_store_create_container_on_put``.
""",
    ),
    cfg.ListOpt(
        "swift_store_admin_tenants",
        default=[],
        help="""
Projects that may read and write every image container, separated by commas:
the id of a project, for all of its users, or ``project:user`` for one of them;
``project:*`` means the same as the id alone. Roles cannot be named.

The option takes effect only with ``swift_store_multi_tenant``. Without an
entry for the service's own project, only the owners can maintain images in
their accounts.
""",
    ),
    cfg.BoolOpt(
        "swift_store_ssl_compression",
        default=True,
        help="""
Let encrypted connections compress the data.

Turn it off to save processor time for images that do not shrink. Current TLS
libraries do not compress at all; the option then has no effect.
""",
    ),
    cfg.IntOpt(
        "swift_store_retry_get_count",
        default=0,
        min=0,
        help="""
No longer has an effect: a download that breaks off resumes for as long as
``swift_store_retry_timeout`` says.
""",
    ),
    cfg.IntOpt(
        "swift_store_expire_soon_interval",
        default=60,
        min=0,
        help="""
Seconds before a token expires at which it is replaced by a new one.

Make the interval longer than one request (one segment) takes; otherwise
requests fail with 401 in the middle of an image.
""",
    ),
    cfg.BoolOpt(
        "swift_store_use_trusts",
        default=True,
        help="""
Let the user who uploads an image trust the service during the upload, so that
it can continue when the user's token expires.

The option takes effect only with ``swift_store_multi_tenant``. Turn it off if
the identity service offers no trusts: an image is then sent as one object if
Swift accepts that size, because one request, like a download, needs a valid
token only at its start.
""",
    ),
    cfg.BoolOpt(
        "swift_buffer_on_upload",
        default=False,
        help="""
Write each segment to a local file before sending it.

A segment can then be sent again after an error. Without a usable directory in
``swift_upload_buffer_dir`` the store refuses to start.
""",
    ),
]

ACCOUNT_OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "default_swift_reference",
        default="ref1",
        help="""
Section of ``swift_store_config_file`` with the account for new images.

The name becomes part of the locations of images. Keep a section as long as
locations name it: without it, these images can be neither read nor deleted.
""",
    ),
    cfg.StrOpt(
        "swift_store_auth_version",
        default="3",
        choices=["3"],
        **_REPLACED,
        help="""
Version of the identity service's API. Only 3 is left: it has no effect.
""",
    ),
    cfg.StrOpt(
        "swift_store_auth_address",
        **_REPLACED,
        help="""
URL of the identity service, used when there is no ``swift_store_config_file``.

Without a scheme, ``https`` is assumed.
""",
    ),
    cfg.StrOpt(
        "swift_store_user",
        secret=True,
        **_REPLACED,
        help="""
Account as ``project:user``, used when there is no ``swift_store_config_file``.
""",
    ),
    cfg.StrOpt(
        "swift_store_key",
        secret=True,
        **_REPLACED,
        help="""
Password of ``swift_store_user``.

It becomes part of the location of every image that is stored with it.
""",
    ),
    cfg.StrOpt(
        "swift_store_application_credential_id",
        secret=True,
        help="""
Id of an application credential to authenticate with, instead of user and
password, when there is no ``swift_store_config_file``.

It takes precedence over ``swift_store_user``, and works only together with
``swift_store_application_credential_secret``.
""",
    ),
    cfg.StrOpt(
        "swift_store_application_credential_secret",
        secret=True,
        help="""
Secret that belongs to ``swift_store_application_credential_id``.
""",
    ),
    *(
        cfg.StrOpt(
            name,
            **_REPLACED,
            help="""
No longer has an effect: an application credential knows its project.
""",
        )
        for name in ("swift_store_project_name", "swift_store_project_id")
    ),
    cfg.StrOpt(
        "swift_store_config_file",
        help="""
Path of an INI file with the accounts of this store, one in each section.

A section holds ``auth_address`` and either ``user`` (``project:user``) and
``key``, or ``application_credential_id`` and
``application_credential_secret``; write a percent sign twice. The locations of
images name the section and hold no secrets, so that a password can be changed
later. A relative path is searched for in the directories of the service's
configuration. It cannot be combined with ``swift_store_multi_tenant``.

Related options: ``default_swift_reference``.
""",
    ),
]

# The order is that of earlier releases.
OPTIONS: list[cfg.Opt] = [
    *_FIRST,
    *ACCOUNT_OPTIONS,
    cfg.StrOpt(
        "swift_upload_buffer_dir",
        help="""
Directory for the files that ``swift_buffer_on_upload`` writes.

The user of the service must be able to write to it. It needs room for one
segment of each upload in progress, see ``swift_store_large_object_chunk_size``.
When it is full, uploads fail.
""",
    ),
    cfg.IntOpt(
        "swift_store_thread_pool_size",
        default=4,
        min=1,
        help="""
Maximum number of segments of an upload, or requests of a deletion, in flight
at once.

A higher number helps where Swift or the network is slower over one connection
than over several. Each segment is held in memory until it is stored, so that it
can be sent again after an error, see ``swift_store_memory``.
""",
    ),
    cfg.IntOpt(
        "swift_store_memory",
        default=256,
        min=16,
        help="""
MiB of memory that all uploads and downloads of this store may take together,
in each process of the service, on top of what they always need (about 2 MiB
each).

One upload alone may use all of it. If many run, they wait for each other,
segment by segment. Downloads may take at most half of it for data that is
fetched in parallel and not yet read.

An upload that begins while there is no room for two of its segments does not
wait: it sends one segment at a time, while its data comes in. So does every
upload with segments that never fit twice. Such a segment is sent again after
an error if there is memory for it; otherwise the error fails the upload.
""",
    ),
    cfg.BoolOpt(
        "swift_store_verify_segments",
        default=True,
        help="""
Compare the MD5 of each segment with the one that Swift reports for what it
stored.

This takes about a quarter more processor time on this host for each upload, on
a core of its own if there is one. Set it to False if the network is trusted or
encrypted: what Swift has stored is still compared with its manifest. An image
that is one object is always compared.
""",
    ),
    cfg.IntOpt(
        "swift_store_read_concurrency",
        default=4,
        min=1,
        help="""
Maximum number of ranges of an image that a download requests at once.

A download uses one connection as long as that is fast. If several are faster,
up to this many ranges of up to 32 MiB are requested in parallel, and held in
memory until they are read. With 1, this never happens.
""",
    ),
    cfg.IntOpt(
        "swift_store_connect_timeout",
        default=10,
        min=1,
        help="""
Seconds to wait for a connection to Swift or to the identity service; for what
follows see ``swift_store_read_timeout``.
""",
    ),
    cfg.IntOpt(
        "swift_store_read_timeout",
        default=120,
        min=1,
        help="""
Seconds of silence after which a request to Swift or to the identity service is
given up, also while data is being sent.

Swift is silent while it stores a segment safely: increase the value if disks
are slow or segments large.
""",
    ),
    cfg.FloatOpt(
        "swift_store_retry_timeout",
        default=30,
        min=0,
        help="""
Seconds for which requests to Swift and to the identity service are repeated
that fail for a passing reason: no connection, a timeout, or an answer such as
503. 0 repeats none.

The seconds count from the first failure; a request in flight when they end is
allowed to finish. A download that breaks off resumes where it stopped, and the
seconds start again whenever data has arrived.
""",
    ),
    cfg.IntOpt(
        "swift_store_retries",
        min=0,
        help="""
Maximum number of times that a request is repeated, within the time of
``swift_store_retry_timeout``. When unset, that time alone decides.
""",
    ),
]
