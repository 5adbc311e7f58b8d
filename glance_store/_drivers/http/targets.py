# SPDX-License-Identifier: Apache-2.0
"""The operator's filter of web servers by name, network and port."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator

from glance_store import exceptions
from glance_store.i18n import _

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def parse_host(entry: str) -> str | Network:
    """Parse an entry of a host list into a network or a lower-case name; ValueError if neither."""
    text = entry.strip()
    try:
        return ipaddress.ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        name = _plain(text)
    # A name that ends in a number is a malformed address.
    if not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise ValueError(
            "expected a name (such as images.example.org), '*.' and a domain, an address, or a "
            f"network in CIDR notation, not '{entry}'"
        )
    return name


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Hosts by name, by domain and by network."""

    names: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()  # each with its leading dot
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Hosts:
        """Parse the value of an option; ValueError if an entry is malformed."""
        parsed = [parse_host(entry) for entry in entries]
        names = [item for item in parsed if isinstance(item, str)]
        return cls(
            frozenset(name for name in names if not name.startswith("*")),
            tuple(name[1:] for name in names if name.startswith("*")),
            tuple(item for item in parsed if not isinstance(item, str)),
        )

    def __bool__(self) -> bool:
        return bool(self.names or self.domains or self.networks)

    def has_name(self, host: str) -> bool:
        """Tell whether a host is listed by its name or domain."""
        name = _plain(host)
        return name in self.names or name.endswith(self.domains)

    def has_address(self, address: str) -> bool:
        """Tell whether an address is in one of the networks."""
        return any(form in network for form in _forms(address) for network in self.networks)


def _forms(text: str) -> Iterator[Address]:
    """Yield an address and the other addresses that lead to the same host."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            yield from _forms(str(address.ipv4_mapped))
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.is_unspecified:
        # The system connects it to this host.
        yield ipaddress.IPv4Address("127.0.0.1")
        yield ipaddress.IPv6Address("::1")


@dataclasses.dataclass(frozen=True)
class TargetFilter:
    """Decides about each server before anything is sent to it.

    An empty list of allowed hosts or ports allows all. What is disallowed stays disallowed even if
    it is also allowed.
    """

    allowed: Hosts
    disallowed: Hosts
    allowed_ports: frozenset[int]
    disallowed_ports: frozenset[int]

    def __bool__(self) -> bool:
        return any((self.allowed, self.disallowed, self.allowed_ports, self.disallowed_ports))

    def check(self, host: str, port: int, shown: str, proxied: bool) -> None:
        """Check a server by its URL; `addresses` checks what its name resolves to.

        `proxied` means that a proxy resolves the name, so nobody here knows the address.
        """
        if port in self.disallowed_ports or (self.allowed_ports and port not in self.allowed_ports):
            raise _refusal(
                shown,
                _("port %d is excluded by http_store_allowed_ports or http_store_disallowed_ports")
                % port,
            )
        address = _literal(host)
        if address is not None:
            permitted = self._permits(host, address)
        elif self.disallowed.has_name(host):
            permitted = False
        else:
            by_address = not proxied and bool(self.allowed.networks)
            permitted = not self.allowed or self.allowed.has_name(host) or by_address
        if not permitted:
            raise _host_refusal(shown)

    def addresses(self, host: str, port: int, shown: str) -> list[str]:
        """Resolve a host to the addresses that the operator allows; connect only to these."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        unique = dict.fromkeys(str(info[4][0]) for info in found)
        permitted = [address for address in unique if self._permits(host, address)]
        if not permitted:
            raise _host_refusal(shown)
        return permitted

    def _permits(self, host: str, address: str) -> bool:
        if self.disallowed.has_name(host) or self.disallowed.has_address(address):
            return False
        return not self.allowed or self.allowed.has_name(host) or self.allowed.has_address(address)


def _host_refusal(shown: str) -> exceptions.BadStoreUri:
    # Without the address: it would reveal the network to whoever may register a location.
    return _refusal(
        shown, _("its host is excluded by http_store_allowed_hosts or http_store_disallowed_hosts")
    )


def _refusal(shown: str, problem: str) -> exceptions.BadStoreUri:
    return exceptions.BadStoreUri(
        _("The operator of this store does not allow reading %(uri)s: %(problem)s"),
        uri=shown,
        problem=problem,
    )


def _literal(host: str) -> str | None:
    """Return the address if a host is one, in any notation; None for a name."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0])
