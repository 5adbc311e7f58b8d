# SPDX-License-Identifier: Apache-2.0
"""Options of the S3 store."""

from __future__ import annotations

from oslo_config import cfg

_CHECKSUM_CHOICES = ["when_required", "when_supported"]

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "s3_store_host",
        help="""
Address of the S3 service: a host name or an address with ``http://`` or
``https://`` in front, and a port if it is not the usual one, for example
``https://s3.example.org:9000``.

Without a scheme the connection is not encrypted; a scheme other than these two
is an error. All requests go there, whatever the environment says: the host
that the location of an old image names is not used. The store needs this
option, the bucket and credentials; while one of them is missing it takes no
images.

Related options: ``s3_store_access_key``, ``s3_store_secret_key``,
``s3_store_bucket``.
""",
    ),
    cfg.StrOpt(
        "s3_store_region_name",
        default="",
        help="""
Name of the region of the service.

Requests are signed for this region, and a bucket that the store creates is
placed there. When it is empty, the region of a well-known Amazon host name is
taken from the name, also of those for FIPS and for IPv6. Set it when the
service answers that the region of the signature is wrong.
""",
    ),
    cfg.StrOpt(
        "s3_store_access_key",
        secret=True,
        help="""
Access key that the store signs its requests with.

Without it and its secret the store looks for credentials where Amazon's tools
do: environment variables, the shared credentials file and its profiles, the
role of the container or of the instance. If none are found when the service
starts, the store takes no images until it is started again; it looks for them
again when an image is read. If the environment or a profile says who hands
them out, and that one does not answer, the store looks again for each use.

Locations of images do not contain it: after a change of keys the images that
are stored stay usable, as long as the new key may access the bucket.

Related options: ``s3_store_secret_key``.
""",
    ),
    cfg.StrOpt(
        "s3_store_secret_key",
        secret=True,
        help="""
Secret that belongs to ``s3_store_access_key``.

Keep the configuration file readable for the service only.
""",
    ),
    cfg.StrOpt(
        "s3_store_bucket",
        help="""
Bucket in which images are stored, one object each, named by the image id.

Use a bucket for images alone. Changing it affects new images only: the
location of an image names its bucket.

Related options: ``s3_store_create_bucket_on_put``,
``s3_store_bucket_url_format``.
""",
    ),
    cfg.BoolOpt(
        "s3_store_create_bucket_on_put",
        default=False,
        help="""
Create the bucket at the first upload if it does not exist.

The keys need the right to create buckets. When it is off, an upload to a
missing bucket fails, which also uncovers a misspelt name.
""",
    ),
    cfg.StrOpt(
        "s3_store_bucket_url_format",
        default="auto",
        help="""
How requests name the bucket: ``path`` (``https://host/bucket/key``),
``virtual`` (``https://bucket.host/key``) or ``auto`` (the client library
chooses).

Services other than Amazon's often know ``path`` only, because ``virtual``
needs a DNS entry and a certificate for each bucket. With ``virtual`` the
bucket's name must be a valid DNS name.
""",
    ),
    cfg.IntOpt(
        "s3_store_large_object_size",
        default=100,
        min=0,
        help="""
Size in MiB from which on an image is uploaded in parts.

Smaller images are held in memory and sent in one request. Parts are sent side
by side, and only a part is repeated after an error. An image whose size is not
known in advance is sent in one request if it fits in one part. 0 uploads every
image in parts.

Related options: ``s3_store_large_object_chunk_size``,
``s3_store_thread_pools``.
""",
    ),
    cfg.IntOpt(
        "s3_store_large_object_chunk_size",
        default=10,
        help="""
Size in MiB of one part, at least 5 and at most 5120.

S3 allows 10,000 parts: for images that would need more of them the parts are
made larger, and where the size is not known in advance they grow from the
900th part on. Every part that is under way is held in memory; larger parts are
fewer at a time, of 105 MiB each for 1 TiB.

Related options: ``s3_store_memory``, ``s3_store_equal_parts``.
""",
    ),
    cfg.IntOpt(
        "s3_store_thread_pools",
        default=10,
        help="""
Number of parts of one image that are sent at the same time, at least 1.

More of them make better use of a link with a long delay, and take more memory
for each upload.

Related options: ``s3_store_large_object_chunk_size``.
""",
    ),
    cfg.StrOpt(
        "s3_store_cacert",
        default="",
        help="""
Path of a file with the certificates, in PEM form, of the authorities that sign
the certificate of the service.

Empty: the authorities that the client library trusts. Needed for a service
with a private authority; otherwise every connection fails.
""",
    ),
    cfg.BoolOpt(
        "s3_store_enable_data_integrity_protection",
        default=False,
        help="""
Use the additional checksums of newer S3 services.

When it is on, the two options below decide when they are sent and checked.
When it is off, only where an operation requires them. Older services and many
that are compatible with S3 refuse uploads with these checksums.

Related options: ``s3_store_request_checksum_calculation``,
``s3_store_response_checksum_validation``.
""",
    ),
    cfg.StrOpt(
        "s3_store_request_checksum_calculation",
        default="when_required",
        choices=_CHECKSUM_CHOICES,
        help="""
When uploads carry an additional checksum: ``when_required`` by the operation,
or ``when_supported``, which is always where the operation knows one.

It is a CRC-32 or CRC-32C, sent in a header with each part, also without TLS. It
has an effect only with ``s3_store_enable_data_integrity_protection``. Choose
``when_supported`` only if the service understands it: others ignore it, so
that nobody notices what is damaged on the way, or refuse uploads.
""",
    ),
    cfg.StrOpt(
        "s3_store_response_checksum_validation",
        default="when_required",
        choices=_CHECKSUM_CHOICES,
        help="""
When the additional checksum of a download is verified: ``when_required`` by
the operation, or ``when_supported``, which is always where the service has
one of the whole object: CRC-32, SHA-1 or SHA-256, with the Python library
awscrt also CRC-32C and CRC-64/NVME.

Such an image is read in one request, by one connection, and one that does not
match ends with an error before its last bytes. Not verified are ranges of an
image, the rest of one whose transfer broke off (the log says so), and objects
that were stored in parts with a checksum that is made of those of the parts.

It has an effect only with ``s3_store_enable_data_integrity_protection``.

Related options: ``s3_store_read_concurrency``.
""",
    ),
    cfg.BoolOpt(
        "s3_store_verify_parts",
        default=True,
        help="""
Send a hash with each part of an image, which the service checks.

Without TLS it is the SHA-256 of the signature, which takes about a sixth of the
time that an upload takes of the processors on both sides. With TLS it is a
CRC-32C where the Python library awscrt is installed, otherwise a CRC-32, or
Content-MD5 where the service knows neither. Set it to False only in a network
that is trusted: what is damaged or changed on the way to the service is then
noticed by the first who compares an image with its own hash.

Related options: ``s3_store_enable_data_integrity_protection``.
""",
    ),
    cfg.IntOpt(
        "s3_store_read_concurrency",
        default=10,
        min=1,
        help="""
Number of ranges of one image that are fetched at the same time at most.

An image is read in one go as long as a connection is fast. Where the
connection is the limit, because the service is far away or limits each of
them, so many ranges of 8 MiB are fetched side by side, and held in memory
until they are read. With 1 that is never done.
""",
    ),
    cfg.IntOpt(
        "s3_store_memory",
        default=256,
        min=16,
        help="""
MiB of memory that all uploads and downloads of this store may take together,
in each process of the service, besides what they always need (about 2 MiB
each).

One upload alone may use all of it. Where there are many they wait for each
other, part by part. What downloads hold, side by side and until it is read, is
half of it at most. A part that is larger than this is sent alone.

Related options: ``s3_store_large_object_chunk_size``,
``s3_store_thread_pools``, ``s3_store_read_concurrency``.
""",
    ),
    cfg.BoolOpt(
        "s3_store_equal_parts",
        default=False,
        help="""
Upload images whose size is not known in advance in parts of one size.

Some services, such as Cloudflare R2, want that. Such an image can be no larger
than 10,000 parts of ``s3_store_large_object_chunk_size``. When it is off, its
parts grow when there are many.
""",
    ),
    cfg.FloatOpt(
        "s3_store_retry_timeout",
        default=30.0,
        min=0,
        help="""
Seconds for which requests are repeated that fail for a passing reason, such as
a proxy that restarts or too many requests. 0: none is repeated.

They count from the first failure; a request that is under way when they end is
waited for. Only the part that failed is sent or fetched again, not the image.
""",
    ),
    cfg.IntOpt(
        "s3_store_max_attempts",
        min=1,
        help="""
How often a request is sent at most, the first time included, within the time
of ``s3_store_retry_timeout``. When unset, that time alone decides.
""",
    ),
    cfg.StrOpt(
        "s3_store_request_payer",
        default="",
        choices=["", "requester"],
        help="""
Set to ``requester`` for a bucket whose owner lets those pay who use it.
""",
    ),
    cfg.IntOpt(
        "s3_store_connect_timeout",
        default=10,
        min=1,
        help="""
Seconds to wait for a connection to the service.
""",
    ),
    cfg.IntOpt(
        "s3_store_read_timeout",
        default=60,
        min=1,
        help="""
Seconds to wait while the service neither takes nor sends a byte.

A service that needs longer to join the parts of a large image wants a larger
value.
""",
    ),
    cfg.DictOpt(
        "s3_store_proxies",
        default={},
        secret=True,
        help="""
Proxies between the store and the service, one for each scheme of
``s3_store_host``, for example ``https:http://10.0.0.1:3128``.

Empty: those of the environment variables ``http_proxy``, ``https_proxy`` and
``no_proxy``.
""",
    ),
]
