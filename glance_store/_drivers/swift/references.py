# SPDX-License-Identifier: Apache-2.0
"""Accounts that locations name by reference instead of holding their credentials.

They are the sections of the file in `swift_store_config_file`; without a file, the account in the
options of the store is the only one, under the name in `default_swift_reference`.
"""

from __future__ import annotations

import configparser
import dataclasses
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.swift.options import OPTIONS
from glance_store.i18n import _
from glance_store.store_options import DEFAULT_GROUP, BackendGroupConfiguration

if TYPE_CHECKING:
    from collections.abc import Mapping

LOG = logging.getLogger(__name__)

_NEEDED = frozenset(
    {
        "default_swift_reference",
        "swift_store_application_credential_id",
        "swift_store_application_credential_secret",
        "swift_store_auth_address",
        "swift_store_config_file",
        "swift_store_key",
        "swift_store_project_id",
        "swift_store_project_name",
        "swift_store_user",
    }
)
# Few, because a multi-store lookup registers them anew for each location.
_LOOKUP_OPTIONS = [opt for opt in OPTIONS if opt.name in _NEEDED]

_QUOTES = "\"'"
_DEFAULT_DOMAIN = "default"

# {path: (identity of the file's content, its references)}: a parser of its own for each file.
_Stamp = tuple[int, int, int, int]
_PARSED: dict[str, tuple[_Stamp, Mapping[str, Reference]]] = {}


@dataclasses.dataclass(frozen=True)
class Reference:
    """One account.

    Either `user` and `key` are set, or `application_credential_id` and `_secret`. `auth_address`
    may lack a scheme; https is meant then.
    """

    auth_address: str
    user: str | None = dataclasses.field(default=None, repr=False)
    key: str | None = dataclasses.field(default=None, repr=False)
    application_credential_id: str | None = dataclasses.field(default=None, repr=False)
    application_credential_secret: str | None = dataclasses.field(default=None, repr=False)
    project_name: str | None = None
    project_id: str | None = None
    user_domain_id: str | None = _DEFAULT_DOMAIN
    user_domain_name: str | None = None
    project_domain_id: str | None = _DEFAULT_DOMAIN
    project_domain_name: str | None = None
    auth_version: str = "3"

    def without_credentials(self) -> Reference:
        """Return another account of the same domains, whose credentials stand elsewhere."""
        return dataclasses.replace(
            self,
            user=None,
            key=None,
            application_credential_id=None,
            application_credential_secret=None,
        )

    @property
    def ssl_enabled(self) -> bool:
        """Whether the identity service is reached by https."""
        return not self.auth_address.lower().startswith("http://")

    @property
    def bare_address(self) -> str:
        """The address of the identity service without its scheme."""
        return without_scheme(self.auth_address)


class _SectionError(Exception):
    """A section cannot be used; the text says why, without any value of it."""


def without_scheme(address: str) -> str:
    """Return an address without ``http://`` or ``https://`` in front.

    :param address: of a server
    """
    return address.partition("://")[2] if is_http(address) else address


def is_http(address: str) -> bool:
    """Tell whether an address begins with ``http://`` or ``https://``.

    :param address: of a server
    """
    return address.lower().startswith(("http://", "https://"))


def settings(conf: cfg.ConfigOpts, backend_group: str | None) -> Any:
    """Return the options of a store as attributes, with their fallbacks.

    :param conf: the configuration
    :param backend_group: identifier of the store, None in single-store mode
    """
    if backend_group:
        return BackendGroupConfiguration(_LOOKUP_OPTIONS, backend_group, conf=conf)
    return getattr(conf, DEFAULT_GROUP)


def find(conf: cfg.ConfigOpts, backend_group: str | None, name: str) -> Reference | None:
    """Return the account of a name.

    :param conf: the configuration
    :param backend_group: identifier of the store, None in single-store mode
    :param name: the reference
    :returns: None when there is no such account, or its section cannot be used
    :raises BadStoreConfiguration: the file cannot be read
    """
    return load(conf, backend_group).get(name)


def load(conf: cfg.ConfigOpts, backend_group: str | None) -> Mapping[str, Reference]:
    """Return the accounts of a store by name.

    :param conf: the configuration
    :param backend_group: identifier of the store, None in single-store mode
    :raises BadStoreConfiguration: the file cannot be read
    """
    options = settings(conf, backend_group)
    if options.swift_store_config_file:
        return _load_file(_find(conf, options.swift_store_config_file), backend_group or "swift")
    reference = _from_options(options)
    return {options.default_swift_reference: reference} if reference else {}


def _find(conf: cfg.ConfigOpts, name: str) -> str:
    if Path(name).is_absolute():
        return name
    try:
        found = conf.find_file(name)
    except cfg.NotInitializedError:
        # A configuration without files has no directories to look in.
        found = None
    return found or name


def _from_options(options: Any) -> Reference | None:
    if not options.swift_store_auth_address:
        return None
    identity = options.swift_store_application_credential_id
    secret = options.swift_store_application_credential_secret
    if identity and secret:
        return Reference(
            options.swift_store_auth_address,
            application_credential_id=identity,
            application_credential_secret=secret,
            project_name=options.swift_store_project_name,
            project_id=options.swift_store_project_id,
        )
    if options.swift_store_user and options.swift_store_key:
        return Reference(
            options.swift_store_auth_address,
            user=options.swift_store_user,
            key=options.swift_store_key,
        )
    return None


def _load_file(path: str, store: str) -> Mapping[str, Reference]:
    """Return what a file holds, parsed again only when it has changed."""
    problem: str
    try:
        with Path(path).open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            known = _PARSED.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            parser = configparser.ConfigParser()
            parser.read_file(file)
    except OSError as exc:
        problem = exc.strerror or type(exc).__name__
    except UnicodeDecodeError:
        problem = _("it is not a UTF-8 text")
    except configparser.Error as exc:
        problem = _describe(exc)
    else:
        references = _from_sections(parser, path)
        _PARSED[path] = (stamp, references)
        return references
    # Raised out here: the errors of the parser quote lines of the file, and with them passwords.
    raise exceptions.BadStoreConfiguration(
        store_name=store,
        reason=_("the file %(path)s of swift_store_config_file cannot be used: %(problem)s")
        % {"path": path, "problem": problem},
    )


def _describe(exc: configparser.Error) -> str:
    if isinstance(exc, configparser.MissingSectionHeaderError):
        return str(_("line %d comes before the first [section]") % exc.lineno)
    if isinstance(exc, configparser.ParsingError):
        return str(_("line %d is not of the form 'name = value'") % exc.errors[0][0])
    if isinstance(exc, (configparser.DuplicateSectionError, configparser.DuplicateOptionError)):
        return str(_("line %s repeats a section or a name") % exc.lineno)
    return type(exc).__name__


def _from_sections(parser: configparser.ConfigParser, path: str) -> Mapping[str, Reference]:
    found = {name: _reference(parser[name], path) for name in parser.sections()}
    return {name: reference for name, reference in found.items() if reference is not None}


def _reference(section: configparser.SectionProxy, path: str) -> Reference | None:
    try:
        values = {name: _value(section, name) for name in section}
        if values.get("auth_version", "3") != "3":
            LOG.warning(
                "Swift accounts in %s: auth_version of section [%s] is ignored, version 3 is "
                "used; remove it",
                path,
                section.name,
            )
        return Reference(
            _address(values),
            **_credentials(values),
            **_domain("user", values),
            **_domain("project", values),
        )
    except _SectionError as exc:
        LOG.warning(
            "Swift accounts in %s: section [%s] is skipped, images that name it cannot be "
            "reached: %s",
            path,
            section.name,
            exc,
        )
        return None


def _address(values: Mapping[str, str]) -> str:
    address = values.get("auth_address")
    if not address:
        raise _SectionError("it has no auth_address")
    if "://" in address and not is_http(address):
        raise _SectionError("auth_address begins with neither http:// nor https://")
    return address


def _credentials(values: Mapping[str, str]) -> dict[str, Any]:
    identity = values.get("application_credential_id")
    secret = values.get("application_credential_secret")
    if identity and secret:
        return {
            "application_credential_id": identity,
            "application_credential_secret": secret,
            "project_name": values.get("project_name"),
            "project_id": values.get("project_id"),
        }
    user, key = values.get("user"), values.get("key")
    if user and key:
        return {"user": user, "key": key}
    if identity or secret:
        raise _SectionError(
            "an application credential needs application_credential_id and "
            "application_credential_secret"
        )
    raise _SectionError("it needs user and key, or an application credential")


def _domain(kind: str, values: Mapping[str, str]) -> dict[str, Any]:
    identity = values.get(f"{kind}_domain_id")
    name = values.get(f"{kind}_domain_name")
    if not identity and not name:
        identity = _DEFAULT_DOMAIN
    return {f"{kind}_domain_id": identity, f"{kind}_domain_name": name}


def _value(section: configparser.SectionProxy, name: str) -> str:
    try:
        value: str | None = section[name]
    except configparser.InterpolationError:
        value = None
    if value is None:
        # Raised out here: the parser's own error quotes the value.
        raise _SectionError(f"a percent sign in {name} has to be written twice")
    if not value.startswith(tuple(_QUOTES)):
        return value
    if len(value) < 2 or value[-1] != value[0]:
        raise _SectionError(f"the quote in {name} is not closed")
    return value[1:-1]
