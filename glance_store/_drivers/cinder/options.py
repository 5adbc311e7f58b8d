# SPDX-License-Identifier: Apache-2.0
"""Options of the Cinder store."""

from __future__ import annotations

from oslo_config import cfg

_ENDPOINT: list[cfg.Opt] = [
    cfg.StrOpt(
        "cinder_catalog_info",
        default="volumev3::publicURL",
        help="""
Where the service catalogue lists Cinder: ``type:name:interface``; the name may
be empty.

Change the interface, for example to ``internalURL``, to keep the traffic
inside the cloud's own network. When the catalogue has no such entry, requests
to the store fail. It has no effect when ``cinder_endpoint_template`` is set.
""",
    ),
    cfg.StrOpt(
        "cinder_endpoint_template",
        help="""
URL of Cinder, instead of the one in the service catalogue.

``%(tenant)s`` and other values of the request can be part of it, for example
``http://cinder.example.org:8776/v3/%(tenant)s``. Set it when this host reaches
Cinder by another address than the users of the catalogue.

Related options: ``cinder_catalog_info``.
""",
    ),
    cfg.StrOpt(
        "cinder_os_region_name",
        deprecated_name="os_region_name",
        help="""
Region whose Cinder endpoint is taken from the service catalogue.

Set it when the catalogue has several regions; volumes made in another region
than the one of this host usually cannot be attached. It has no effect when
``cinder_endpoint_template`` is set.
""",
    ),
    cfg.StrOpt(
        "cinder_ca_certificates_file",
        help="""
Path of a file with the certificates, in PEM form, of the authorities that sign
the certificate of Cinder.

When unset, the authorities that this host trusts are used. Needed for a server
with a private authority; otherwise every request fails. It has no effect when
``cinder_api_insecure`` is on.
""",
    ),
    cfg.IntOpt(
        "cinder_http_retries",
        default=3,
        min=0,
        help="""
How often a request to Cinder is sent again after it failed.

Unless it is set, a request that fails for a passing reason is sent again for
half a minute, however often that is. Higher values bridge longer interruptions;
a service that is really down then holds requests longer before they fail.
""",
    ),
    cfg.IntOpt(
        "cinder_state_transition_timeout",
        default=300,
        min=0,
        help="""
Seconds to wait until a volume has been created, attached, extended or deleted.

Raise it where the storage behind Cinder needs longer for large volumes. When
the time is over, the request fails, and a volume that was made for it is
deleted.
""",
    ),
    cfg.BoolOpt(
        "cinder_api_insecure",
        default=False,
        help="""
Accept any certificate from Cinder.

Anyone between this host and the server could then read the credentials: use it
for tests only. For a private authority set ``cinder_ca_certificates_file``
instead.
""",
    ),
]

_CREDENTIALS: list[cfg.Opt] = [
    cfg.StrOpt(
        "cinder_store_auth_address",
        help="""
URL of the identity service, for example ``https://keystone.example.org/v3``.

With it and with either an application credential, or user, password and
project, all volumes belong to one project of the service. Without these each
volume belongs to the project of the user who uploads the image, who can then
delete it in Cinder.

Related options: ``cinder_store_user_name``, ``cinder_store_password``,
``cinder_store_project_name``, ``cinder_store_application_credential_id``.
""",
    ),
    cfg.StrOpt(
        "cinder_store_user_name",
        help="""
User who owns the volumes of images.

It has an effect only together with ``cinder_store_password``,
``cinder_store_project_name`` and ``cinder_store_auth_address``; when one of
them is missing, the credentials of the request are used.
""",
    ),
    cfg.StrOpt(
        "cinder_store_user_domain_name",
        default="Default",
        help="""
Name of the domain that ``cinder_store_user_name`` belongs to.

Change it when the user is in another domain; otherwise authentication fails.
""",
    ),
    cfg.StrOpt(
        "cinder_store_password",
        secret=True,
        help="""
Password of ``cinder_store_user_name``.

Keep the configuration file readable for the service only.
""",
    ),
    cfg.StrOpt(
        "cinder_store_application_credential_id",
        help="""
Id of an application credential to authenticate with, instead of user and
password.

It is preferred to ``cinder_store_user_name`` and has an effect only together
with ``cinder_store_application_credential_secret`` and
``cinder_store_auth_address``.
""",
    ),
    cfg.StrOpt(
        "cinder_store_application_credential_secret",
        secret=True,
        help="""
Secret that belongs to ``cinder_store_application_credential_id``.

Keep the configuration file readable for the service only.
""",
    ),
    cfg.StrOpt(
        "cinder_store_project_name",
        help="""
Project in which the volumes of images are created.

Its quota must have room for them: one volume for each image, in whole GiB. It
has an effect only together with ``cinder_store_user_name``.
""",
    ),
    cfg.StrOpt(
        "cinder_store_project_domain_name",
        default="Default",
        help="""
Name of the domain that ``cinder_store_project_name`` belongs to.

Change it when the project is in another domain; otherwise authentication
fails.
""",
    ),
]

_VOLUMES: list[cfg.Opt] = [
    cfg.StrOpt(
        "rootwrap_config",
        default="/etc/glance/rootwrap.conf",
        help="""
Path of the configuration of rootwrap, through which the commands that attach
volumes get the rights of root.

The file and the filters that it names must belong to root. When they are
missing, no volume can be attached, and images can be neither stored nor read.
""",
    ),
    cfg.StrOpt(
        "cinder_volume_type",
        help="""
Type of the volumes that are created for images.

When unset, Cinder's default type is used. Several stores with one type each
place images on different storage. A type that Cinder does not know lets the
service start with a warning, but uploads fail.
""",
    ),
    cfg.BoolOpt(
        "cinder_enforce_multipath",
        default=False,
        help="""
Refuse to attach a volume when multipathing is wanted but its daemon does not
run.

When it is off, such a volume is attached over a single path, without
protection against the loss of it. It has an effect only with
``cinder_use_multipath``.
""",
    ),
    cfg.BoolOpt(
        "cinder_use_multipath",
        default=False,
        help="""
Attach volumes over several paths where the storage offers them.

The host needs a running multipath daemon.

Related options: ``cinder_enforce_multipath``.
""",
    ),
    cfg.StrOpt(
        "cinder_mount_point_base",
        default="/var/lib/glance/mnt",
        help="""
Directory below which NFS shares with volumes are mounted.

The user of the service must be able to create directories there, and no other
service of the host may use it, or one unmounts what the other still reads. For
storage other than NFS it has no effect.
""",
    ),
    cfg.BoolOpt(
        "cinder_do_extend_attached",
        default=False,
        help="""
Extend a volume while it is attached, when the size of an image is not known
before the upload.

It is faster than to detach and to attach for each extension. The storage
behind Cinder must be able to do it, or uploads of unknown size fail; NFS is
not.
""",
    ),
    cfg.IntOpt(
        "cinder_attachment_retry_attempts",
        default=5,
        min=1,
        help="""
How often the attachment of a volume is tried while another operation keeps the
volume busy.

The waits between the tries grow up to 10 seconds. Raise it where many requests
read the same image at the same time and fail with a conflict.
""",
    ),
]

_NEW: list[cfg.Opt] = [
    cfg.IntOpt(
        "cinder_request_timeout",
        default=180,
        min=1,
        help="""
Seconds to wait for the answer to a request to Cinder or to the identity
service.

Requests that attach a volume wait for the storage behind Cinder: a value that
is too low makes them fail on a busy storage. A service that does not answer at
all holds requests for this long.

Related options: ``cinder_state_transition_timeout``, ``cinder_http_retries``.
""",
    ),
]

OPTIONS: list[cfg.Opt] = [*_ENDPOINT, *_CREDENTIALS, *_VOLUMES, *_NEW]
