# SPDX-License-Identifier: Apache-2.0
"""Options of stores: where values are looked up, and which are not valid."""

from __future__ import annotations

import contextlib
import string
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from oslo_config import cfg

from glance_store.i18n import _

DEFAULT_GROUP = "glance_store"
SHARED_CONF_GROUP = "backend_defaults"

# For both modes. Registered when stores are created: the lists that services register are fixed.
OBSERVERS_OPT = cfg.ListOpt(
    "store_observers",
    default=[],
    help=_(
        "Observers of store operations: prometheus (exports metrics), osprofiler (adds spans to "
        "active traces), or the name of one that another package installs. An observer that is "
        "not installed is skipped, with an error in the log."
    ),
)

STORE_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "stores",
        default=["file", "http"],
        deprecated_for_removal=True,
        deprecated_since="Rocky",
        deprecated_reason=_(
            "Use ``enabled_backends``, which can configure several stores of one driver."
        ),
        help=_(
            "Drivers to load: file, http, swift, rbd, cinder, vmware, s3. Used only if "
            "``enabled_backends`` is not set. A driver that cannot be loaded is skipped, and "
            "images in its store cannot be read; the log says why."
        ),
    ),
    cfg.StrOpt(
        "default_store",
        default="file",
        choices=(
            "file",
            "filesystem",
            "http",
            "https",
            "swift",
            "swift+http",
            "swift+https",
            "swift+config",
            "rbd",
            "cinder",
            "vsphere",
            "s3",
        ),
        deprecated_for_removal=True,
        deprecated_since="Rocky",
        deprecated_reason=_("Use ``enabled_backends`` and ``default_backend``."),
        help=_(
            "Scheme of the store for new images. Its driver must be listed in ``stores`` and be "
            "able to write. Used only if ``enabled_backends`` is not set."
        ),
    ),
]

MULTI_STORE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "default_backend",
        help=_(
            "Identifier of the store for images uploaded without naming one. It must be one of the "
            "identifiers in ``enabled_backends``. The service does not start without it."
        ),
    ),
]

MULTI_BACKEND_OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "store_description",
        help=_(
            "A few words about this store, shown to users who list the stores of the image "
            "service. Say what sets it apart: fast, cheap, replicated, which data centre."
        ),
    ),
    cfg.IntOpt(
        "weight",
        default=0,
        help=_(
            "Preference for reading an image that is in several stores: the image service reads "
            "from the store with the highest weight. The order of stores with equal weight is "
            "undefined. Negative numbers are allowed."
        ),
    ),
]


def register_each(conf: cfg.ConfigOpts, opts: Iterable[cfg.Opt], group: str) -> None:
    """Register options one by one; an existing definition with the same name stays."""
    for opt in opts:
        try:
            conf.register_opt(opt, group=group)
        except cfg.DuplicateOptError:
            # On purpose: reserved stores have their own defaults.
            continue


class BackendGroupConfiguration:
    """The options of one store in multi-store mode.

    A value comes from the group of the store, else from ``[backend_defaults]``, else from the
    default of the option.

    :param store_opts: the options
    :param config_group: identifier of the store; None for ``[backend_defaults]`` alone
    :param conf: the configuration; None for the process-wide one
    """

    def __init__(
        self,
        store_opts: Sequence[cfg.Opt],
        config_group: str | None = None,
        conf: cfg.ConfigOpts | None = None,
    ) -> None:
        self.config_group = config_group or SHARED_CONF_GROUP
        self.conf = cfg.CONF if conf is None else conf
        self._register(store_opts)
        self.backend_conf = self.conf[self.config_group]
        self.shared_backend_conf = self.conf[SHARED_CONF_GROUP]

    def _register(self, store_opts: Sequence[cfg.Opt]) -> None:
        for group in (SHARED_CONF_GROUP, self.config_group):
            # A group must exist to be looked up, even without options.
            self.conf.register_group(cfg.OptGroup(group))
        register_each(self.conf, store_opts, SHARED_CONF_GROUP)
        if self.config_group == SHARED_CONF_GROUP:
            return
        for opt in store_opts:
            try:
                self.conf.register_opt(opt, group=self.config_group)
            except cfg.DuplicateOptError:
                # A reserved store: its own definition has its own default.
                continue
            # None means "not set": only then does the shared group count.
            self.conf.set_default(opt.dest, None, group=self.config_group)

    def append_config_values(self, store_opts: Sequence[cfg.Opt]) -> None:
        """Register more options.

        :param store_opts: the options
        """
        self._register(store_opts)

    def set_default(self, opt_name: str, default: Any) -> None:
        """Set the default, used if neither group has a value.

        :param opt_name: name of the option
        :param default: the value
        """
        self.conf.set_default(opt_name, default, group=SHARED_CONF_GROUP)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of an option.

        :param key: its name
        :param default: returned if there is no such option
        """
        return getattr(self, key, default)

    def __getattr__(self, opt_name: str) -> Any:
        if opt_name in ("backend_conf", "shared_backend_conf"):
            raise AttributeError(opt_name)
        value = getattr(self.backend_conf, opt_name)
        if value is None and self.config_group != SHARED_CONF_GROUP:
            # Options such as the weight exist only in the group of a store.
            return getattr(self.shared_backend_conf, opt_name, None)
        return value


class Mistake(NamedTuple):
    """An invalid value of an option."""

    group: str
    opt: cfg.Opt
    value: str | None  # as written in the file; None if unknown
    reason: str

    def __str__(self) -> str:
        value = "" if self.value is None else f" = {self.value}"
        text = f"[{self.group}] {self.opt.name}{value} is not valid: {self.reason}"
        return " ".join(text.split())


def gaps(conf: cfg.ConfigOpts, opts: Iterable[cfg.Opt], group: str) -> list[cfg.Opt]:
    """Return the options that have an empty value, but a default that is not."""
    found = []
    for opt in opts:
        # A value that cannot be read is a mistake, not a gap.
        with contextlib.suppress(*_UNREADABLE):
            if opt.default is not None and conf[group][opt.dest] is None:
                found.append(opt)
    return found


def mistakes(conf: cfg.ConfigOpts, opts: Iterable[cfg.Opt], groups: Sequence[str]) -> list[Mistake]:
    """Return the invalid values of options; of several groups, the first with a value counts."""
    found = []
    for opt in opts:
        for group in groups:
            try:
                given = conf.get_location(opt.dest, group)
            except _UNREADABLE as exc:
                if _is_unknown(opt, group, exc):
                    # Options such as the weight exist only in the group of a store.
                    continue
                found.append(_mistake(conf, opt, group, exc))
                break
            if given is not None and given.location not in _DEFAULTS:
                break
    return found


def _is_unknown(opt: cfg.Opt, group: str, error: Exception) -> bool:
    """Tell whether the option itself is missing, rather than one its value refers to."""
    if isinstance(error, cfg.NoSuchGroupError):
        return bool(error.group_name == group)
    return isinstance(error, cfg.NoSuchOptError) and error.opt_name == opt.dest


# RecursionError: a value that refers to itself.
_UNREADABLE = (cfg.Error, ValueError, RecursionError)
_DEFAULTS = (cfg.Locations.opt_default, cfg.Locations.set_default)


def _mistake(conf: cfg.ConfigOpts, opt: cfg.Opt, group: str, error: Exception) -> Mistake:
    # Passwords contain it more often than a reference to another option.
    dollar = isinstance(error, (cfg.NoSuchOptError, cfg.NoSuchGroupError, RecursionError))
    hint = str(_("a $ that is not a reference is written $$"))
    if opt.secret:
        reason = hint if dollar else str(_("its value cannot be understood"))
        return Mistake(group, opt, "***", reason)
    # oslo.config prefixes its reason with an internal name of the option.
    reason = str(error).rpartition(" is not valid: ")[2]
    if isinstance(error, RecursionError):
        reason = str(_("it refers to itself"))
    return Mistake(
        group, opt, _as_written(conf, opt, group), f"{reason}; {hint}" if dollar else reason
    )


class _AsWritten(cfg.ConfigOpts):
    """A configuration that leaves references to other options as they stand in the file."""

    class Template(string.Template):
        delimiter = "\0"


def _as_written(conf: cfg.ConfigOpts, opt: cfg.Opt, group: str) -> str | None:
    """Return the value of an option as written in the configuration; None if it is not there."""
    # Read it again, as plain text: not every error of oslo.config quotes the value.
    text = _AsWritten()
    text.register_opt(
        cfg.StrOpt(opt.name, dest=opt.dest, deprecated_opts=opt.deprecated_opts), group=group
    )
    with contextlib.suppress(cfg.Error):
        text([], default_config_files=conf.config_file, default_config_dirs=conf.config_dir)
        return text[group][opt.dest]  # type: ignore[no-any-return]
    return None
