# SPDX-License-Identifier: Apache-2.0
"""os-brick and this host: root privileges, locks, addresses, paths."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import os
import shlex
import socket
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

from oslo_concurrency import opts as concurrency_opts
from oslo_concurrency import processutils
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.cinder import errors
from glance_store.i18n import _
from glance_store.store_options import register_each

# Seconds to cache what os-brick finds out about this host.
_PROPERTIES_LAST = 60.0
# os-brick's privsep contexts; not every release has both.
_PRIVILEGED = ("default", "brick_privsep_hide_output")
# oslo.privsep's default command prefix.
_DEFAULT_PREFIX = ["sudo"]


@dataclasses.dataclass(frozen=True)
class Host:
    """How volumes are attached to this host."""

    root_helper: str  # command prefix to run as root; empty if this process is root
    use_multipath: bool
    enforce_multipath: bool  # refuse to attach over a single path
    mount_base: str  # directory for mounted shares
    lock_path: str  # directory for locks and lists of attachments
    lock_timeout: float  # seconds to wait for another process of this host

    @property
    def name(self) -> str:
        """The name by which Cinder knows this host."""
        return socket.gethostname()

    def execute(self, *command: str) -> None:
        """Run a command as root; raise CinderError if it fails."""
        try:
            processutils.execute(*command, run_as_root=True, root_helper=self.root_helper)
        except (processutils.ProcessExecutionError, OSError) as exc:
            reason = getattr(exc, "stderr", None) or str(exc)
            raise errors.CinderError(
                _("%(command)s failed: %(reason)s. Does rootwrap_config allow it?"),
                command=" ".join(command),
                reason=" ".join(str(reason).split()),
            ) from exc

    @contextlib.contextmanager
    def owning(self, path: str, follow: bool = True) -> Iterator[None]:
        """Let this process open a device that belongs to root, during a block.

        `follow` allows the path to be a symbolic link. Otherwise chown acts on the path itself,
        never on what it points to.
        """
        owner = os.stat(path, follow_symlinks=follow).st_uid
        chown = ("chown",) if follow else ("chown", "-h")
        if owner == os.geteuid() or os.geteuid() == 0:
            yield
            return
        try:
            self.execute(*chown, str(os.geteuid()), path)
        except errors.CinderError:
            # Shares often let nobody change owners, root included, and the file be used by all.
            if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
                raise
            yield
            return
        try:
            yield
        finally:
            # Another attachment may have restored the owner, or the device may be gone.
            with contextlib.suppress(errors.CinderError):
                self.execute(*chown, str(owner), path)

    def properties(self) -> dict[str, Any]:
        """Return what Cinder needs to export a volume to this host.

        Raises CinderError if that cannot be found out, for example without a multipath daemon.
        """
        now = int(time.monotonic() / _PROPERTIES_LAST)
        return {**_properties(self, now), "mountpoint": "glance_store"}


@functools.lru_cache(maxsize=8)
def _properties(host: Host, _now: int) -> dict[str, Any]:
    """Ask os-brick about this host, once for each value of `_now`."""
    from os_brick.initiator import connector

    try:
        found: dict[str, Any] = connector.get_connector_properties(
            host.root_helper,
            address_of(host.name),
            host.use_multipath,
            host.enforce_multipath,
            host=host.name,
        )
    except Exception as exc:
        raise errors.CinderError(
            _("This host cannot attach volumes: %(cause)s"), cause=errors.text_of(exc)
        ) from exc
    return found


def address_of(name: str) -> str:
    """Return a host's address, IPv6 if it has one. Raises CinderError if it has none."""
    for family in (socket.AF_INET6, socket.AF_INET):
        try:
            found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
        except OSError:
            continue
        if found:
            return str(found[0][4][0])
    raise errors.CinderError(
        _("This host's name, %(name)s, has no address: add it to DNS or /etc/hosts"),
        name=name,
    )


def prepare(conf: cfg.ConfigOpts, store_conf: Any, name: str) -> Host:
    """Set up os-brick and return how to attach volumes to this host.

    Raises BadStoreConfiguration if os-brick is missing or no directory for locks can be used.
    """
    try:
        with warnings.catch_warnings():
            # If eventlet is installed, oslo.privsep imports it to see whether it is in use.
            warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
            _prefer_native_threads()
            import os_brick
            import os_brick.privileged
            from os_brick import opts as brick_opts
            from os_brick.initiator import connector  # noqa: F401 - loaded once, and here
            from oslo_privsep import priv_context
    except ImportError as exc:
        raise exceptions.BadStoreConfiguration(
            store_name=name,
            reason=_("os-brick or oslo.privsep is missing (%s): pip install 'glance_store[cinder]'")
            % exc,
        ) from exc
    for group, opts in [*concurrency_opts.list_opts(), *brick_opts.list_opts()]:
        if group in ("oslo_concurrency", "os_brick"):
            register_each(conf, opts, group)
    lock_path = (
        conf.os_brick.lock_path or conf.oslo_concurrency.lock_path or _private_lock_path(name)
    )
    # os-brick reads the process-wide configuration, not the store's.
    os_brick.setup(cfg.CONF)
    cfg.CONF.set_default("lock_path", lock_path, "os_brick")
    root = os.geteuid() == 0
    helper = "" if root else f"sudo glance-rootwrap {store_conf.rootwrap_config}"
    # Keep the process's own choice of how to become root.
    if getattr(priv_context, "_HELPER_COMMAND_PREFIX", _DEFAULT_PREFIX) == _DEFAULT_PREFIX:
        if not root:
            priv_context.init(root_helper=shlex.split(helper))
        for rights in _PRIVILEGED if root else ():
            context = getattr(os_brick.privileged, rights, None)
            if context is not None and context.channel is None:
                # Root needs no helper process.
                context.set_client_mode(False)
    return Host(
        root_helper=helper,
        use_multipath=store_conf.cinder_use_multipath,
        enforce_multipath=store_conf.cinder_enforce_multipath,
        mount_base=store_conf.cinder_mount_point_base,
        lock_path=lock_path,
        lock_timeout=store_conf.cinder_state_transition_timeout,
    )


def _prefer_native_threads() -> None:
    """Make os-brick wait without eventlet, which oslo.service loads unless told otherwise."""
    try:
        # os-brick's dependency, not ours.
        backend = importlib.import_module("oslo_service.backend")
    except ImportError:
        # Too old to offer a choice, or missing, which is reported elsewhere.
        return
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return
    if getattr(backend, "_backend_hook", None) is not None or backend.get_backend_type():
        # The process has already chosen.
        return
    if all(importlib.util.find_spec(name) for name in ("cotyledon", "futurist")):
        backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)


def _private_lock_path(name: str) -> str:
    """Return a directory for locks, private to this user, if none is configured."""
    path = os.path.join(tempfile.gettempdir(), f"glance_store-locks-{os.geteuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        status = os.lstat(path)
        safe = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        reason = "" if safe else _("it belongs to another user")
    except OSError as exc:
        reason = exc.strerror or str(exc)
    if reason:
        raise exceptions.BadStoreConfiguration(
            store_name=name,
            reason=_(
                "there is no directory for locks: set lock_path in [os_brick] or "
                "[oslo_concurrency] (%(path)s cannot be used: %(reason)s)"
            )
            % {"path": path, "reason": reason},
        )
    return path
