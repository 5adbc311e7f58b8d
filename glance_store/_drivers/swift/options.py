# SPDX-License-Identifier: Apache-2.0
"""Options of the Swift store."""

from __future__ import annotations

from oslo_config import cfg

_USE_REFERENCES = """
Accounts belong into the file that ``swift_store_config_file`` names: then the
locations of images name a section of the file instead of holding a password.
"""

_CONNECTION: list[cfg.Opt] = [
    cfg.BoolOpt(
        "swift_store_auth_insecure",
        default=False,
        help="""
Accept any certificate from the identity service and from Swift.

Anyone between this host and the servers could then read the password and
replace images: use it for tests only. For a private authority set
``swift_store_cacert`` instead.
""",
    ),
    cfg.StrOpt(
        "swift_store_cacert",
        sample_default="/etc/ssl/certs/ca-certificates.crt",
        help="""
Path of a file, or of a directory made by ``openssl rehash``, with the
certificates, in PEM form, of the authorities that sign the certificates of the
identity service and of Swift.

When unset, the authorities that this host trusts are used. Needed for servers
with a private authority; otherwise every connection fails.
""",
    ),
    cfg.StrOpt(
        "swift_store_region",
        sample_default="RegionTwo",
        help="""
Region whose Swift endpoint is taken from the service catalogue.

Set it when the catalogue has several regions; when unset, the first matching
endpoint is used, which may be one far away. It has no effect when
``swift_store_endpoint`` is set.
""",
    ),
    cfg.StrOpt(
        "swift_store_endpoint",
        sample_default="https://swift.openstack.example.org/v1/path_not_including_container_name",
        help="""
URL of the storage, up to the account and without a container, instead of the
one in the service catalogue.

Set it when this host reaches Swift by another address than the users of the
catalogue. Images written under a wrong account cannot be found again later.

Related options: ``swift_store_endpoint_type``, ``swift_store_region``.
""",
    ),
    cfg.StrOpt(
        "swift_store_endpoint_type",
        default="publicURL",
        choices=["publicURL", "adminURL", "internalURL"],
        help="""
Which of the addresses in the service catalogue is used.

``internalURL`` keeps the traffic of images inside the cloud's own network,
where the catalogue offers it. It has no effect when ``swift_store_endpoint``
is set.
""",
    ),
    cfg.StrOpt(
        "swift_store_service_type",
        default="object-store",
        help="""
Type under which the service catalogue lists Swift.

Change it only for a catalogue that uses another name. With a type that the
catalogue does not have, every request fails. It has no effect when
``swift_store_endpoint`` is set.
""",
    ),
]

_LAYOUT: list[cfg.Opt] = [
    cfg.StrOpt(
        "swift_store_container",
        default="glance",
        help="""
Container in which images are stored, or the first part of the containers'
names.

It is the whole name in one account with one container. With
``swift_store_multiple_containers_seed`` or ``swift_store_multi_tenant`` an
underscore and (a part of) the image id follow. Changing it affects new images
only.

Related options: ``swift_store_create_container_on_put``.
""",
    ),
    cfg.IntOpt(
        "swift_store_large_object_size",
        default=5 * 1024,
        min=1,
        help="""
Size in MB of 1,024,000 bytes from which on an image is stored in segments.

When neither this option nor ``swift_store_large_object_chunk_size`` is set,
the store chooses: from 64 MiB on, segments of 32 MiB that are sent side by
side, and larger ones where the cluster would not take so many. Whoever has set
one of them gets what both of them say.

Swift refuses single objects above its own limit, usually 5 GB: do not set more
than that. An image whose size is not known when the upload begins is always
stored in segments.

Related options: ``swift_store_large_object_chunk_size``.
""",
    ),
    cfg.IntOpt(
        "swift_store_large_object_chunk_size",
        default=200,
        min=1,
        help="""
Size of one segment in MB of 1,024,000 bytes.

Smaller segments mean less to send again after an error, larger ones mean fewer
objects to store and to delete. Images that are stored keep their segments.

A cluster takes a limited number of segments of an image, usually 9,999. An
image that would have more gets larger ones. When its size is not known
beforehand, the segments grow after half of that number. None is larger than
the cluster allows, usually 5 GB.

Related options: ``swift_store_large_object_size``.
""",
    ),
    cfg.BoolOpt(
        "swift_store_create_container_on_put",
        default=False,
        help="""
Create the container when an image is to be stored and it does not exist.

Needed when each image or group of images has a container of its own. When it
is off, an upload to a missing container fails, which also uncovers a misspelt
name.

Related options: ``swift_store_container``, ``swift_store_multi_tenant``,
``swift_store_multiple_containers_seed``.
""",
    ),
    cfg.BoolOpt(
        "swift_store_multi_tenant",
        default=False,
        help="""
Store each image in the Swift account of the project that uploads it, in a
container of its own, instead of in one account of the service.

Projects then pay for their images from their own quota. It cannot be combined
with ``swift_store_config_file``; the store refuses such a configuration.

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

0 keeps all images in one container. With a value N the images are spread over
up to 16 to the power N containers, which helps where Swift slows down or
limits the objects of one container. Only for one account; switch on
``swift_store_create_container_on_put`` with it. Changing it affects new images
only.
""",
    ),
    cfg.ListOpt(
        "swift_store_admin_tenants",
        default=[],
        help="""
Projects that may read and write every image container, separated by commas:
the id of a project, for all of its users, or ``project:user`` for one of them;
``project:*`` is the same as the id alone. Roles cannot be named.

It has an effect only with ``swift_store_multi_tenant``. Without an entry for
the service's own project, images in accounts of others can be maintained by
their owners only.
""",
    ),
]

_TRANSFER: list[cfg.Opt] = [
    cfg.BoolOpt(
        "swift_store_ssl_compression",
        default=True,
        help="""
Let encrypted connections compress the data.

Turn it off to save processor time for images that do not shrink, as compressed
formats such as qcow2. Current TLS libraries do not compress at all; the option
then has no effect.
""",
    ),
    cfg.IntOpt(
        "swift_store_retry_get_count",
        default=0,
        min=0,
        help="""
How often a download was tried again that had broken off, in earlier releases.

It has no effect any more: downloads go on where they broke off, for as long as
``swift_store_retry_timeout`` says.
""",
    ),
    cfg.IntOpt(
        "swift_store_expire_soon_interval",
        default=60,
        min=0,
        help="""
Seconds before the end of its life at which a token is replaced by a new one.

A transfer of a large image can take longer than a token is valid. The interval
has to be longer than one request (one segment) takes, or requests fail as not
authorised in the middle of an image.

Related options: ``swift_store_use_trusts``.
""",
    ),
    cfg.BoolOpt(
        "swift_store_use_trusts",
        default=True,
        help="""
Let the user who uploads trust the service for the time of the upload, so that
it can go on when the user's token expires.

It has an effect only with ``swift_store_multi_tenant``. Turn it off where the
identity service offers no trusts: then an image is sent as one object as far
as Swift takes it, since that needs a good token at the beginning only, as
downloads do.
""",
    ),
    cfg.BoolOpt(
        "swift_buffer_on_upload",
        default=False,
        help="""
Write each segment to a local file before it is sent.

A segment can then be sent again after an error. It needs a directory in
``swift_upload_buffer_dir`` with room for one segment for each upload that is
under way; without that the store refuses to start writing.
""",
    ),
]

ACCOUNT_OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "default_swift_reference",
        default="ref1",
        help="""
Section of ``swift_store_config_file`` whose account new images are stored in.

The name becomes part of the locations of images. Keep a section as long as
locations name it: without it these images can be neither read nor deleted.
""",
    ),
    cfg.StrOpt(
        "swift_store_auth_version",
        default="3",
        choices=["3"],
        deprecated_for_removal=True,
        deprecated_reason=_USE_REFERENCES,
        help="""
Version of the identity service's API. Only 3 is left; the option has no
effect.
""",
    ),
    cfg.StrOpt(
        "swift_store_auth_address",
        deprecated_for_removal=True,
        deprecated_reason=_USE_REFERENCES,
        help="""
URL of the identity service, used when there is no ``swift_store_config_file``.

Without a scheme in front, ``https`` is assumed. Replace it by ``auth_address``
in a section of that file.
""",
    ),
    cfg.StrOpt(
        "swift_store_user",
        secret=True,
        deprecated_for_removal=True,
        deprecated_reason=_USE_REFERENCES,
        help="""
Account as ``project:user``, used when there is no ``swift_store_config_file``.

Replace it by ``user`` in a section of that file.

Related options: ``swift_store_key``.
""",
    ),
    cfg.StrOpt(
        "swift_store_key",
        secret=True,
        deprecated_for_removal=True,
        deprecated_reason=_USE_REFERENCES,
        help="""
Password of ``swift_store_user``, used when there is no
``swift_store_config_file``.

It becomes part of the location of every image that is stored with it. Replace
it by ``key`` in a section of that file.
""",
    ),
    cfg.StrOpt(
        "swift_store_application_credential_id",
        secret=True,
        help="""
Id of an application credential to authenticate with, instead of user and
password, when there is no ``swift_store_config_file``.

It is preferred to ``swift_store_user`` and has an effect only together with
``swift_store_application_credential_secret``.
""",
    ),
    cfg.StrOpt(
        "swift_store_application_credential_secret",
        secret=True,
        help="""
Secret that belongs to ``swift_store_application_credential_id``.

Keep the configuration file readable for the service only.
""",
    ),
    cfg.StrOpt(
        "swift_store_project_name",
        deprecated_for_removal=True,
        deprecated_reason=_USE_REFERENCES,
        help="""
Name of the project that the application credential belongs to.

It has no effect: an application credential knows its project.
""",
    ),
    cfg.StrOpt(
        "swift_store_project_id",
        deprecated_for_removal=True,
        deprecated_reason=_USE_REFERENCES,
        help="""
Id of the project that the application credential belongs to.

It has no effect: an application credential knows its project.
""",
    ),
    cfg.StrOpt(
        "swift_store_config_file",
        help="""
Path of an INI file with the accounts of this store, one in each section.

A section holds ``auth_address`` and either ``user`` (``project:user``) and
``key``, or ``application_credential_id`` and
``application_credential_secret``; a percent sign is written twice. Locations
of images name the section and hold no secrets, so that a password can be
changed later. A relative path is looked for in the directories of the
service's configuration. Not for ``swift_store_multi_tenant``.

Related options: ``default_swift_reference``.
""",
    ),
]

_LIMITS: list[cfg.Opt] = [
    cfg.StrOpt(
        "swift_upload_buffer_dir",
        help="""
Directory for the files that ``swift_buffer_on_upload`` writes.

The user of the service must be able to write to it, and it needs room for
``swift_store_large_object_chunk_size`` times the number of uploads at a time;
more for images of so many segments that they have to be larger. When it is
full, uploads fail.
""",
    ),
    cfg.IntOpt(
        "swift_store_thread_pool_size",
        default=4,
        min=1,
        help="""
How many segments of an upload, and how many requests of a deletion, are under
way at once.

With 1 segments are sent one after the other. More of them help where Swift or
the network is slower for one connection than for several. Each segment is held
in memory until it is stored, so that it can be sent again after an error.

Related options: ``swift_store_memory``,
``swift_store_large_object_chunk_size``.
""",
    ),
    cfg.IntOpt(
        "swift_store_memory",
        default=256,
        min=16,
        help="""
MiB of memory that all uploads and downloads of this store may take together,
in each process of the service, besides what they always need (about 2 MiB
each).

One upload alone may use all of it. Where many run they wait for each other,
segment by segment. What downloads hold, side by side and until it is read, is
half of it at most. An upload that begins while there is no room for two of its
segments sends one at a time while its data comes in, and waits for nobody; so
do all whose segments never fit twice. Such a segment can be sent again after an
error if there is memory for it, and fails the upload if there is not.
""",
    ),
    cfg.BoolOpt(
        "swift_store_verify_segments",
        default=True,
        help="""
Compare the MD5 of each segment with what Swift says that it has stored.

It takes about a quarter more of this host's processors for each upload, on a
core of its own where there is one. Set it to False where the network is
trusted, or encrypted: what Swift has stored is compared with its manifest all
the same. An image that is one object is always compared.
""",
    ),
    cfg.IntOpt(
        "swift_store_read_concurrency",
        default=4,
        min=1,
        help="""
How many ranges of an image a download requests at once at most.

One connection is used as long as that is fast. Where several are faster, so
many ranges of up to 32 MiB are requested side by side, and held in memory
until they are read. With 1 that is never done.
""",
    ),
    cfg.IntOpt(
        "swift_store_connect_timeout",
        default=10,
        min=1,
        help="""
Seconds after which a connection to Swift or to the identity service is given
up that is not established. It does not limit what follows.

Related options: ``swift_store_read_timeout``.
""",
    ),
    cfg.IntOpt(
        "swift_store_read_timeout",
        default=120,
        min=1,
        help="""
Seconds of silence after which a request to Swift or to the identity service is
given up, and seconds for which Swift may take none of the data that is sent.

Swift is silent while it stores a segment safely: give it more time where disks
are slow or segments large.
""",
    ),
    cfg.FloatOpt(
        "swift_store_retry_timeout",
        default=30,
        min=0,
        help="""
Seconds for which requests to Swift and to the identity service are repeated
that fail for a passing reason: no connection, a time-out, or an answer such as
503. 0: none is repeated.

They count from the first failure; a request that is under way when they end is
waited for. A download that breaks off goes on where it stopped, and has the
seconds anew whenever data has arrived.
""",
    ),
    cfg.IntOpt(
        "swift_store_retries",
        min=0,
        help="""
How often a request is repeated at most, within the time of
``swift_store_retry_timeout``. When unset, that time alone decides.
""",
    ),
]

OPTIONS: list[cfg.Opt] = [*_CONNECTION, *_LAYOUT, *_TRANSFER, *ACCOUNT_OPTIONS, *_LIMITS]
