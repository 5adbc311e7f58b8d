# SPDX-License-Identifier: Apache-2.0
"""Serve all parts of Cinder in one process, without a message broker: ``serve_cinder.py CONF``."""

# Cinder's services want the standard library patched before anything else is imported.
# ruff: noqa: E402
from __future__ import annotations

from cinder import monkey_patch

monkey_patch.patch()

import sys

import os_brick
import os_brick.privileged
from cinder import coordination, objects, privsep, rpc, service, version
from cinder.cmd import volume
from cinder.common import config, constants
from oslo_config import cfg
from oslo_db.sqlalchemy import engines
from oslo_log import log
from oslo_service import service as oslo_service


def main() -> None:
    """Serve until a signal ends it."""
    conf = cfg.CONF
    # A new connection for each query of a file reads the whole schema, a fifth of all that this
    # process does.
    engines.pool.NullPool = engines.pool.QueuePool
    objects.register_all()
    conf(["--config-file", sys.argv[1]], project="cinder", version=version.version_string())
    log.setup(conf, "cinder")
    config.set_middleware_defaults()
    os_brick.setup(conf)
    # Who may not mount has no backend that needs it: no helper process with more rights.
    for context in (os_brick.privileged.default, privsep.sys_admin_pctxt):
        context.set_client_mode(False)
    coordination.COORDINATOR.start()
    # The transport `fake` carries calls inside of one process.
    rpc.init(conf)
    launcher = oslo_service.ServiceLauncher(conf, restart_method="mutate")
    launcher.launch_service(service.Service.create(binary=constants.SCHEDULER_BINARY))
    for backend in conf.enabled_backends:
        conf.register_opt(volume.host_opt, group=backend)
        # With it connections carry the key of the Ceph user, as those of cinderlib do. Otherwise
        # os-brick reads it from /etc/ceph, which belongs to the machine and not to the tests.
        conf.register_opt(cfg.StrOpt("rbd_keyring_conf"), group=backend)
        launcher.launch_service(
            service.Service.create(
                host=f"{conf.host}@{backend}",
                service_name=backend,
                binary=constants.VOLUME_BINARY,
                coordination=True,
            )
        )
    launcher.launch_service(service.WSGIService("osapi_volume"))
    launcher.wait()


if __name__ == "__main__":
    main()
