# SPDX-License-Identifier: Apache-2.0
"""Where a store finds its options, and what is wrong with their values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from oslo_config import cfg

from glance_store.i18n import _

DEFAULT_GROUP = "glance_store"
SHARED_CONF_GROUP = "backend_defaults"

# Of both modes. Registered when stores are created: what services register themselves is settled.
OBSERVERS_OPT = cfg.ListOpt(
    "store_observers",
    default=[],
    help=_(
        "What is told of each operation of each store: prometheus (counts them as metrics), "
        "osprofiler (adds them to active traces), or an observer that another distribution brings. "
        "One that is not installed is left out with an error in the log."
    ),
)

STORE_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "stores",
        default=["file", "http"],
        deprecated_for_removal=True,
        deprecated_since="Rocky",
        deprecated_reason=_(
            "One service can use several stores of a kind: name them in ``enabled_backends``."
        ),
        help=_(
            "Drivers that this service loads: file, http, swift, rbd, cinder, vmware, s3. Used "
            "only when ``enabled_backends`` is not set. A driver that cannot be loaded is skipped "
            "with a line in the log, and images in its store cannot be read."
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
        deprecated_reason=_("Its successor is ``default_backend``, with ``enabled_backends``."),
        help=_(
            "Scheme of the store that takes new images. Its driver must be one of ``stores``, and "
            "one that can write. Used only when ``enabled_backends`` is not set."
        ),
    ),
]

MULTI_STORE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "default_backend",
        help=_(
            "Identifier of the store that takes an image whose upload names no store. Must be one "
            "of the identifiers in ``enabled_backends``; the service does not start without it."
        ),
    ),
]

MULTI_BACKEND_OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "store_description",
        help=_(
            "A few words about this store, shown to users who ask the image service which stores "
            "there are. Say what distinguishes it: fast, cheap, replicated, in which room."
        ),
    ),
    cfg.IntOpt(
        "weight",
        default=0,
        help=_(
            "Preference of this store when an image is in several: the image service reads from "
            "the location whose store has the highest weight. Stores of equal weight are used in "
            "no particular order. Negative numbers are allowed."
        ),
    ),
]


def register_each(conf: cfg.ConfigOpts, opts: Iterable[cfg.Opt], group: str) -> None:
    """Register options one by one.

    :param conf: where to
    :param opts: the options; one that is registered with another definition keeps that one
    :param group: name of the group
    """
    for opt in opts:
        try:
            conf.register_opt(opt, group=group)
        except cfg.DuplicateOptError:
            # The other definition is meant: the reserved stores have defaults of their own.
            continue


class BackendGroupConfiguration:
    """The options of one store of a multi-store configuration.

    A value is looked up in the group of the store, then in ``[backend_defaults]``, then in the
    definition of the option.

    :param store_opts: the options
    :param config_group: identifier of the store, None for ``[backend_defaults]`` alone
    :param conf: the configuration, None for the process-wide one
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
            # Also without a single option in it, the group can be asked.
            self.conf.register_group(cfg.OptGroup(group))
        register_each(self.conf, store_opts, SHARED_CONF_GROUP)
        if self.config_group == SHARED_CONF_GROUP:
            return
        for opt in store_opts:
            try:
                self.conf.register_opt(opt, group=self.config_group)
            except cfg.DuplicateOptError:
                # A reserved store: the defaults of its own definition hold.
                continue
            # None tells "not set" from a value: only then is the shared group asked.
            self.conf.set_default(opt.dest, None, group=self.config_group)

    def append_config_values(self, store_opts: Sequence[cfg.Opt]) -> None:
        """Take further options in.

        :param store_opts: the options
        """
        self._register(store_opts)

    def set_default(self, opt_name: str, default: Any) -> None:
        """Set the default that holds where neither group has a value.

        :param opt_name: name of the option
        :param default: the value
        """
        self.conf.set_default(opt_name, default, group=SHARED_CONF_GROUP)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of an option.

        :param key: its name
        :param default: returned when there is no such option
        """
        return getattr(self, key, default)

    def __getattr__(self, opt_name: str) -> Any:
        if opt_name in ("backend_conf", "shared_backend_conf"):
            raise AttributeError(opt_name)
        value = getattr(self.backend_conf, opt_name)
        if value is None and self.config_group != SHARED_CONF_GROUP:
            # An option that only this store has, such as its weight, is in no shared group.
            return getattr(self.shared_backend_conf, opt_name, None)
        return value


class Mistake(NamedTuple):
    """A value that an option cannot have."""

    group: str
    opt: cfg.Opt
    value: str | None  # as it is written; None when that is not known
    reason: str

    def __str__(self) -> str:
        value = "" if self.value is None else f" = {self.value}"
        text = f"[{self.group}] {self.opt.name}{value} is not valid: {self.reason}"
        return " ".join(text.split())


def gaps(conf: cfg.ConfigOpts, opts: Iterable[cfg.Opt], group: str) -> list[cfg.Opt]:
    """Return options whose value is nothing although their default is something.

    :param conf: the configuration
    :param opts: the options, registered in the group
    :param group: name of the group
    """
    found = []
    for opt in opts:
        # One whose value cannot be read is a mistake, and no gap.
        with contextlib.suppress(cfg.Error, ValueError):
            if opt.default is not None and conf[group][opt.dest] is None:
                found.append(opt)
    return found


def mistakes(conf: cfg.ConfigOpts, opts: Iterable[cfg.Opt], groups: Sequence[str]) -> list[Mistake]:
    """Return what is wrong with the values of options.

    :param conf: the configuration
    :param opts: the options
    :param groups: where a value is looked up, the first group that has one counts
    """
    found = []
    for opt in opts:
        for group in groups:
            try:
                given = conf.get_location(opt.dest, group)
            except (cfg.Error, ValueError) as exc:
                if _is_unknown(opt, group, exc):
                    # An option that only a store has, such as its weight, is in no shared group.
                    continue
                found.append(_mistake(conf, opt, group, exc))
                break
            if given is not None and given.location not in _DEFAULTS:
                break
    return found


def _is_unknown(opt: cfg.Opt, group: str, error: Exception) -> bool:
    """Tell whether a group lacks an option, unlike a value that refers to one that is lacking."""
    if isinstance(error, cfg.NoSuchGroupError):
        return bool(error.group_name == group)
    return isinstance(error, cfg.NoSuchOptError) and error.opt_name == opt.dest


_DEFAULTS = (cfg.Locations.opt_default, cfg.Locations.set_default)


def _mistake(conf: cfg.ConfigOpts, opt: cfg.Opt, group: str, error: Exception) -> Mistake:
    if opt.secret:
        return Mistake(group, opt, "***", str(_("its value cannot be understood")))
    # The words of oslo.config in front of this name the place in a form for programmers.
    reason = str(error).rpartition(" is not valid: ")[2]
    return Mistake(group, opt, _as_written(conf, opt, group), reason)


def _as_written(conf: cfg.ConfigOpts, opt: cfg.Opt, group: str) -> str | None:
    """Return the value of an option as the configuration has it, None when it does not say."""
    # Read once more, as plain text: not all errors of oslo.config quote the value.
    text = cfg.ConfigOpts()
    text.register_opt(
        cfg.StrOpt(opt.name, dest=opt.dest, deprecated_opts=opt.deprecated_opts), group=group
    )
    with contextlib.suppress(cfg.Error):
        text([], default_config_files=conf.config_file, default_config_dirs=conf.config_dir)
        return text[group][opt.dest]  # type: ignore[no-any-return]
    return None
