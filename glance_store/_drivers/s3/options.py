# SPDX-License-Identifier: Apache-2.0
"""Options of the S3 store."""

from __future__ import annotations

from oslo_config import cfg

_CHECKSUM_CHOICES = ["when_required", "when_supported"]

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "s3_store_host",
        help="""
Address of the S3 service: a host name or an IP address with ``http://`` or
``https://`` in front, and a port if it is not the usual one, for example
``https://s3.example.org:9000``.

Without a scheme the connection is not encrypted; any other scheme is an error.
All requests go to this address, whatever the environment or the location of an
old image says. The store needs this option, the bucket and credentials; while
one of them is missing it accepts no images.

Related options: ``s3_store_access_key``, ``s3_store_secret_key``,
``s3_store_bucket``.
""",
    ),
    cfg.StrOpt(
        "s3_store_region_name",
        default="",
        help="""
Region of the service.

The store signs its requests for this region, and creates its bucket there.
When empty, the region is taken from the host name if that is a well-known
Amazon host, including those for FIPS and IPv6. Set it when the service answers
that the region of the signature is wrong.
""",
    ),
    cfg.StrOpt(
        "s3_store_access_key",
        secret=True,
        help="""
Access key with which the store signs its requests.

Without it and its secret, the store looks for credentials where Amazon's tools
do: environment variables, the shared credentials file and its profiles, the
role of the container or of the instance. If it finds none when the service
starts, it accepts no images until the service is restarted, but looks again
when an image is read. If the environment or a profile names a provider that
does not answer, the store looks again at each use.

Image locations do not contain the key: after a change of keys, stored images
stay usable as long as the new key has access to the bucket.

Related options: ``s3_store_secret_key``.
""",
    ),
    cfg.StrOpt(
        "s3_store_secret_key",
        secret=True,
        help="""
Secret that belongs to ``s3_store_access_key``.

Make the configuration file readable for the service only.
""",
    ),
    cfg.StrOpt(
        "s3_store_bucket",
        help="""
Bucket that holds the images, one object each, named by the image id.

Use the bucket for nothing else. In Ceph, ``<tenant>:<bucket>`` is the bucket
of another tenant. A change affects new images only, because the
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

The access key needs the right to create buckets. When off, an upload to a
missing bucket fails, which also reveals a misspelt name.
""",
    ),
    cfg.StrOpt(
        "s3_store_bucket_url_format",
        default="auto",
        help="""
How requests name the bucket: ``path`` (``https://host/bucket/key``),
``virtual`` (``https://bucket.host/key``) or ``auto`` (the client library
chooses).

Services other than Amazon's often support ``path`` only, because ``virtual``
needs a DNS entry and a certificate for each bucket. With ``virtual`` the
bucket's name must be a valid DNS name.
""",
    ),
    cfg.IntOpt(
        "s3_store_large_object_size",
        default=100,
        min=0,
        help="""
Images of this size in MiB, or larger, are uploaded in parts.

Smaller images are held in memory and sent in one request. Parts are sent in
parallel, and after an error only the failed part is sent again. An image of
unknown size is sent in one request if it fits in one part. 0 uploads every
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

S3 allows 10,000 parts. An image that would need more gets larger parts, for
example of 105 MiB for 1 TiB; if its size is not known in advance, the parts
grow from the 900th on. Every part in flight is held in memory, so fewer large
parts are in flight at a time.

Related options: ``s3_store_memory``, ``s3_store_equal_parts``.
""",
    ),
    cfg.IntOpt(
        "s3_store_thread_pools",
        default=10,
        help="""
Number of parts of one image that are sent in parallel, at least 1.

More parts make better use of a link with a long delay, and take more memory
for each upload.

Related options: ``s3_store_large_object_chunk_size``.
""",
    ),
    cfg.StrOpt(
        "s3_store_cacert",
        default="",
        help="""
Path of a PEM file with the certificates of the authorities that sign the
service's certificate.

When empty, the authorities that the client library trusts are used. A service
with a private authority needs this option; otherwise every connection fails.
""",
    ),
    cfg.BoolOpt(
        "s3_store_enable_data_integrity_protection",
        default=False,
        help="""
Use the additional checksums of newer S3 services.

When on, the two options below decide when checksums are sent and checked. When
off, they are used only where an operation requires them. Older services, and
many that are compatible with S3, refuse uploads with these checksums.

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
or ``when_supported``, which means always where the operation has one.

The checksum is a CRC-32 or CRC-32C, sent in a header with each part, even
without TLS. The option takes effect only with
``s3_store_enable_data_integrity_protection``. Choose ``when_supported`` only
if the service understands it: other services refuse uploads, or ignore the
checksum, so that damage in transit goes unnoticed.
""",
    ),
    cfg.StrOpt(
        "s3_store_response_checksum_validation",
        default="when_required",
        choices=_CHECKSUM_CHOICES,
        help="""
When the additional checksum of a download is verified: ``when_required`` by
the operation, or ``when_supported``, which means whenever the service has a
checksum of the whole object: CRC-32, SHA-1 or SHA-256, and with the Python
library awscrt also CRC-32C and CRC-64/NVME.

Such an image is read in one request, over one connection. If the checksum does
not match, the download fails before its last bytes. Ranges of an image are not
verified. Neither is the rest of an image after its transfer broke off (the log
says so), nor an object stored in parts whose checksum is computed from those
of its parts.

The option takes effect only with
``s3_store_enable_data_integrity_protection``.

Related options: ``s3_store_read_concurrency``.
""",
    ),
    cfg.BoolOpt(
        "s3_store_verify_parts",
        default=True,
        help="""
Send a hash with each part of an image, for the service to check.

Without TLS it is the SHA-256 of the signature, which takes about a sixth of
the processor time of an upload on both sides. With TLS it is a CRC-32C if the
Python library awscrt is installed, otherwise a CRC-32, or Content-MD5 if the
service supports neither. Set it to False only in a trusted network: damage or
a change in transit then goes unnoticed until someone compares an image with
its own hash.

Related options: ``s3_store_enable_data_integrity_protection``.
""",
    ),
    cfg.IntOpt(
        "s3_store_read_concurrency",
        default=10,
        min=1,
        help="""
Maximum number of ranges of one image that are fetched in parallel.

An image is read in one request as long as the connection is fast. If the
connection is the limit, because the service is far away or limits each
connection, up to this many ranges of 8 MiB are fetched in parallel, and held
in memory until they are read. With 1, this never happens.
""",
    ),
    cfg.IntOpt(
        "s3_store_memory",
        default=256,
        min=16,
        help="""
MiB of memory that all uploads and downloads of this store may take together,
in each process of the service, on top of what they always need (about 2 MiB
each).

One upload alone may use all of it. If there are many, they wait for each
other, part by part. Downloads may take at most half of it for data that is
fetched in parallel and not yet read. A part that is larger than this is sent
alone.

Related options: ``s3_store_large_object_chunk_size``,
``s3_store_thread_pools``, ``s3_store_read_concurrency``.
""",
    ),
    cfg.BoolOpt(
        "s3_store_equal_parts",
        default=False,
        help="""
Upload images whose size is not known in advance in parts of one size.

Some services, such as Cloudflare R2, require this. Such an image cannot be
larger than 10,000 parts of ``s3_store_large_object_chunk_size``. When off, the
parts grow when there are many.
""",
    ),
    cfg.FloatOpt(
        "s3_store_retry_timeout",
        default=30.0,
        min=0,
        help="""
Seconds for which requests are repeated that fail for a passing reason, such as
a restarting proxy or too many requests. 0 repeats none.

The seconds count from the first failure; a request in flight when they end is
allowed to finish. Only the part that failed is sent or fetched again, not the
image.
""",
    ),
    cfg.IntOpt(
        "s3_store_max_attempts",
        min=1,
        help="""
Maximum number of times that a request is sent, including the first, within the
time of ``s3_store_retry_timeout``. When unset, that time alone decides.
""",
    ),
    cfg.StrOpt(
        "s3_store_request_payer",
        default="",
        choices=["", "requester"],
        help="""
Set to ``requester`` for a bucket whose owner has its users pay for requests.
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

Increase it for a service that needs longer to join the parts of a large image.
""",
    ),
    cfg.DictOpt(
        "s3_store_proxies",
        default={},
        secret=True,
        help="""
Proxies between the store and the service, one for each scheme of
``s3_store_host``, for example ``https:http://10.0.0.1:3128``.

When empty, the environment variables ``http_proxy``, ``https_proxy`` and
``no_proxy`` apply.
""",
    ),
]
