# SPDX-License-Identifier: Apache-2.0
"""Options of the http store."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg, types

from glance_store._drivers.http.targets import parse_host


class _Host(types.ConfigType):
    """A host name, a domain with ``*.`` in front, an address, or a network in CIDR notation."""

    def __init__(self) -> None:
        super().__init__(type_name="host or network value")

    def __call__(self, value: Any) -> str:
        return str(parse_host(str(value)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Host)

    def __hash__(self) -> int:
        return hash(_Host)

    def __repr__(self) -> str:
        return "Host"

    def _formatter(self, value: Any) -> str:
        return str(value)


OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "https_ca_certificates_file",
        help="""
Path of a PEM file with the certificates of the authorities that sign the
certificates of https servers.

When it is set, servers are always verified, whatever ``https_insecure`` says.
Set it for servers whose certificates come from a private authority.
""",
    ),
    cfg.BoolOpt(
        "https_insecure",
        default=True,
        help="""
Accept any certificate from an https server.

The default is kept for existing configurations. It lets anyone between this
host and the server replace an image unnoticed: set it to False to verify
servers against the authorities that this host trusts. It has no effect when
``https_ca_certificates_file`` is set.
""",
    ),
    cfg.DictOpt(
        "http_proxy_information",
        default={},
        # A proxy's address may contain a user and a password.
        secret=True,
        help="""
Proxies to reach the servers through, as comma-separated ``scheme:proxy``
pairs, for example ``http:10.0.0.1:3128,https:10.0.0.1:1080``.

A scheme without a pair uses the proxy that the environment of the service
names (``http_proxy``, ``https_proxy``, ``no_proxy``), or else a direct
connection. Set it when this host has no route of its own to the servers that
hold the images.
""",
    ),
    cfg.IntOpt(
        "http_store_connect_timeout",
        default=10,
        min=1,
        help="""
Seconds to wait for a server to accept a connection.

Without a limit, a server that is down would hold a worker of the service for
minutes. Raise it for servers behind slow links.
""",
    ),
    cfg.IntOpt(
        "http_store_read_timeout",
        default=60,
        min=1,
        help="""
Seconds to wait for the next byte from a server.

It limits silence, not the whole download: an image may take hours as long as
data keeps coming. Raise it for servers that prepare an image before they send
it. After the limit, the download is resumed as ``http_store_retry_timeout``
allows.
""",
    ),
    cfg.FloatOpt(
        "http_store_retry_timeout",
        default=30.0,
        min=0,
        help="""
Seconds to keep trying to resume a download that broke off, or to ask a server
again that answers that it has trouble, as with status 503. They count from the
failure, and start over whenever data arrives.

Resuming needs a server that can send part of a file. When the time is up, or
at once if the value is 0, the reader gets an error, never a truncated image.
""",
    ),
    cfg.ListOpt(
        "http_store_allowed_hosts",
        item_type=_Host(),
        default=[],
        help="""
The only web servers to read images from, comma-separated: names, domains such
as ``*.example.org`` (all names below it), addresses, and networks in CIDR
notation such as ``192.0.2.0/24`` or ``2001:db8::/32``. Empty: all servers.

A server is allowed by its name, or by the address that this host connects to.
Set this option or ``http_store_disallowed_hosts`` where users may register
locations: otherwise they can make this host read from servers that they cannot
reach themselves. Redirects are checked too.
""",
    ),
    cfg.ListOpt(
        "http_store_disallowed_hosts",
        item_type=_Host(),
        default=[],
        help="""
Web servers never to read images from, in the form of
``http_store_allowed_hosts``, for example
``127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,10.0.0.0/8``.

This option takes precedence over ``http_store_allowed_hosts``. Prefer networks
to names, since a server may have many names. The address checked is the one
connected to. Behind a proxy, only the proxy knows a server's address: exclude
networks in the rules of the proxy itself.
""",
    ),
    cfg.ListOpt(
        "http_store_allowed_ports",
        item_type=types.Port(min=1),
        default=[],
        help="""
The only ports of web servers to read images from, comma-separated, for example
``80,443``. Empty: all ports.
""",
    ),
    cfg.ListOpt(
        "http_store_disallowed_ports",
        item_type=types.Port(min=1),
        default=[],
        help="""
Ports of web servers never to read images from, for example ``22,25``. This
option takes precedence over ``http_store_allowed_ports``.
""",
    ),
]
