# SPDX-License-Identifier: Apache-2.0
"""Options of the store that reads images from web servers."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg, types

from glance_store._drivers.http.targets import parse_host


class _Host(types.ConfigType):
    """A name, a domain with ``*.`` before it, an address, or a network in CIDR notation."""

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
Path of a file with the certificates, in PEM form, of the authorities that sign
the certificates of https servers.

When it is set, servers are always verified, whatever ``https_insecure`` says.
Needed for servers with a private authority.
""",
    ),
    cfg.BoolOpt(
        "https_insecure",
        default=True,
        help="""
Accept any certificate from an https server.

The default is kept for old configurations. It lets anyone between this host
and the server replace an image without a trace: set it to False, so that
servers are verified against the authorities that this host trusts. It has no
effect when ``https_ca_certificates_file`` is set.
""",
    ),
    cfg.DictOpt(
        "http_proxy_information",
        default={},
        # The address of a proxy may hold a user and a password.
        secret=True,
        help="""
Proxies to reach the servers through, as ``scheme:proxy`` pairs separated by
commas, for example ``http:10.0.0.1:3128,https:10.0.0.1:1080``.

A scheme that is not listed is reached through the proxy that the environment
of the service names (``http_proxy``, ``https_proxy``, ``no_proxy``), else
directly. Set it when this host has no route of its own to the servers that hold
the images.
""",
    ),
    cfg.IntOpt(
        "http_store_connect_timeout",
        default=10,
        min=1,
        help="""
Seconds to wait until a server accepts the connection.

Without a limit a server that is down would hold a worker of the service for
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
it. After the limit the download is resumed, as ``http_store_retry_timeout``
allows.
""",
    ),
    cfg.FloatOpt(
        "http_store_retry_timeout",
        default=30.0,
        min=0,
        help="""
Seconds for which a download that broke off is resumed where it stopped. They
count from the failure, and anew when data arrives again.

Resuming needs a server that can send a part of a file. When the time is over,
or at once with the value 0, the reader gets an error, never a shortened image.
""",
    ),
    cfg.ListOpt(
        "http_store_allowed_hosts",
        item_type=_Host(),
        default=[],
        help="""
The only web servers to read images from, separated by commas: names, domains
such as ``*.example.org`` (all names below it), addresses, and networks in CIDR
notation such as ``192.0.2.0/24`` or ``2001:db8::/32``. Empty: all servers.

A server is allowed by its name, or by the address that this host connects to.
Set it, or ``http_store_disallowed_hosts``, where users may register locations:
otherwise they can make this host read from servers that they cannot reach
themselves. Redirects are subject to it as well.
""",
    ),
    cfg.ListOpt(
        "http_store_disallowed_hosts",
        item_type=_Host(),
        default=[],
        help="""
Web servers to read no image from, in the form of ``http_store_allowed_hosts``,
for example ``127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,10.0.0.0/8``.

It has precedence over ``http_store_allowed_hosts``. Use networks rather than
names, since a server may have many names. The address that is checked is the
one that is connected to. Of a server that is reached through a proxy only the
proxy knows the address: its own rules have to exclude networks.
""",
    ),
    cfg.ListOpt(
        "http_store_allowed_ports",
        item_type=types.Port(min=1),
        default=[],
        help="""
The only ports of web servers to read images from, separated by commas, for
example ``80,443``. Empty: all ports.
""",
    ),
    cfg.ListOpt(
        "http_store_disallowed_ports",
        item_type=types.Port(min=1),
        default=[],
        help="""
Ports of web servers to read no image from, for example ``22,25``. It has
precedence over ``http_store_allowed_ports``.
""",
    ),
]
