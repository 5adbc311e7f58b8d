# SPDX-License-Identifier: Apache-2.0
"""Options of the Cinder store."""

from __future__ import annotations

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "cinder_catalog_info",
        default="volumev3::publicURL",
        help="""
Cinder's entry in the service catalogue: ``type:name:interface``; the name may
be empty.

Change the interface, for example to ``internalURL``, to keep traffic inside
the cloud's own network. If the catalogue has no such entry, requests to the
store fail. It has no effect when ``cinder_endpoint_template`` is set.
""",
    ),
    cfg.StrOpt(
        "cinder_endpoint_template",
        help="""
URL of Cinder, instead of the one in the service catalogue.

It may contain ``%(tenant)s`` and other values of the request, for example
``http://cinder.example.org:8776/v3/%(tenant)s``. Set it if this host reaches
Cinder at another address than the users of the catalogue.

Related options: ``cinder_catalog_info``.
""",
    ),
    cfg.StrOpt(
        "cinder_os_region_name",
        deprecated_name="os_region_name",
        help="""
Region whose Cinder endpoint is taken from the service catalogue.

Set it if the catalogue has several regions. Volumes created in another region
than this host's usually cannot be attached. It has no effect when
``cinder_endpoint_template`` is set.
""",
    ),
    cfg.StrOpt(
        "cinder_ca_certificates_file",
        help="""
Path of a PEM file with the CA certificates to verify Cinder's certificate.

Set it if Cinder uses a private CA; otherwise every request fails. When unset,
the CAs that this host trusts are used. It has no effect when
``cinder_api_insecure`` is on.
""",
    ),
    cfg.IntOpt(
        "cinder_http_retries",
        default=3,
        min=0,
        help="""
How often to retry a failed request to Cinder.

When unset, a request that fails for a passing reason is retried for half a
minute, without a limit on the count. Higher values survive longer
interruptions; if the service is really down, requests take longer to fail.
""",
    ),
    cfg.IntOpt(
        "cinder_state_transition_timeout",
        default=300,
        min=0,
        help="""
Seconds to wait for a volume to be created, attached, extended or deleted.

Raise it if the storage behind Cinder needs longer for large volumes. When the
time is up, the request fails, and a volume created for it is deleted.
""",
    ),
    cfg.BoolOpt(
        "cinder_api_insecure",
        default=False,
        help="""
Accept any certificate from Cinder.

Anyone between this host and the server could then read the credentials: use it
for tests only. For a private CA, set ``cinder_ca_certificates_file`` instead.
""",
    ),
    cfg.StrOpt(
        "cinder_store_auth_address",
        help="""
URL of the identity service, for example ``https://keystone.example.org/v3``.

If it is set together with an application credential, or with user, password
and project, the volumes of all images belong to one project of the service.
Otherwise each volume belongs to the project of the user who uploads the image,
who can then delete it in Cinder.

Related options: ``cinder_store_user_name``, ``cinder_store_password``,
``cinder_store_project_name``, ``cinder_store_application_credential_id``.
""",
    ),
    cfg.StrOpt(
        "cinder_store_user_name",
        help="""
User who owns the volumes of images.

It takes effect only together with ``cinder_store_password``,
``cinder_store_project_name`` and ``cinder_store_auth_address``. If one of them
is missing, the credentials of the request are used.
""",
    ),
    cfg.StrOpt(
        "cinder_store_user_domain_name",
        default="Default",
        help="""
Domain name of ``cinder_store_user_name``.

Change it if the user is in another domain; otherwise authentication fails.
""",
    ),
    cfg.StrOpt(
        "cinder_store_password",
        secret=True,
        help="""
Password of ``cinder_store_user_name``.

Make the configuration file readable only for the service.
""",
    ),
    cfg.StrOpt(
        "cinder_store_application_credential_id",
        help="""
Id of an application credential to authenticate with, instead of user and
password.

It takes precedence over ``cinder_store_user_name`` and takes effect only
together with ``cinder_store_application_credential_secret`` and
``cinder_store_auth_address``.
""",
    ),
    cfg.StrOpt(
        "cinder_store_application_credential_secret",
        secret=True,
        help="""
Secret of ``cinder_store_application_credential_id``.

Make the configuration file readable only for the service.
""",
    ),
    cfg.StrOpt(
        "cinder_store_project_name",
        help="""
Project in which the volumes of images are created.

Its quota must have room for them: one volume for each image, in whole GiB. It
takes effect only together with ``cinder_store_user_name``.
""",
    ),
    cfg.StrOpt(
        "cinder_store_project_domain_name",
        default="Default",
        help="""
Domain name of ``cinder_store_project_name``.

Change it if the project is in another domain; otherwise authentication fails.
""",
    ),
    cfg.StrOpt(
        "rootwrap_config",
        default="/etc/glance/rootwrap.conf",
        help="""
Path of the rootwrap configuration.

The commands that attach volumes run as root through rootwrap. The file and the
filters it names must belong to root. If they are missing, no volume can be
attached, so images can be neither stored nor read.
""",
    ),
    cfg.StrOpt(
        "cinder_volume_type",
        help="""
Type of the volumes that are created for images.

When unset, Cinder's default type is used. Several stores with different types
place images on different storage. With a type that Cinder does not know, the
service starts with a warning, but uploads fail.
""",
    ),
    cfg.BoolOpt(
        "cinder_enforce_multipath",
        default=False,
        help="""
Refuse to attach volumes when multipathing is enabled but its daemon is not
running.

When off, such a volume is attached over a single path, with no protection if
that path fails. It takes effect only with ``cinder_use_multipath``.
""",
    ),
    cfg.BoolOpt(
        "cinder_use_multipath",
        default=False,
        help="""
Attach volumes over several paths if the storage offers them.

The host must run the multipath daemon.

Related options: ``cinder_enforce_multipath``.
""",
    ),
    cfg.StrOpt(
        "cinder_mount_point_base",
        default="/var/lib/glance/mnt",
        help="""
Directory below which NFS shares with volumes are mounted.

The service user must be able to create directories there. No other service on
the host may use it, or one service unmounts what the other still reads. It has
no effect on storage other than NFS.
""",
    ),
    cfg.BoolOpt(
        "cinder_do_extend_attached",
        default=False,
        help="""
Extend a volume while it is attached, if the size of an image is not known
before the upload.

This is faster than detaching and reattaching it for each extension. The
storage behind Cinder must support it, or uploads of unknown size fail. NFS
volumes are always detached first.
""",
    ),
    cfg.IntOpt(
        "cinder_attachment_retry_attempts",
        default=5,
        min=1,
        help="""
How often to try to attach a volume that another operation keeps busy.

The waits between tries grow up to 10 seconds. Raise it if many requests read
the same image at once and fail with a conflict.
""",
    ),
    cfg.IntOpt(
        "cinder_request_timeout",
        default=180,
        min=1,
        help="""
Seconds to wait for an answer from Cinder or the identity service.

Requests that attach a volume wait for the storage behind Cinder: too low a
value makes them fail when the storage is busy. If a service does not answer at
all, requests block for this long.

Related options: ``cinder_state_transition_timeout``, ``cinder_http_retries``.
""",
    ),
]
