# SPDX-License-Identifier: Apache-2.0
"""Serve a WSGI application: ``serve_wsgi.py PORT MODULE:NAME``."""

from __future__ import annotations

import importlib
import os
import signal
import sys


def main() -> None:
    """Serve until SIGTERM."""
    port, application = int(sys.argv[1]), sys.argv[2]
    module, _colon, name = application.partition(":")
    # The application's own parser of options would stumble over ours.
    sys.argv = [module]
    callable_ = getattr(importlib.import_module(module), name)

    # Threads that serve a request would hold a polite end up; there is nothing to lose.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    import waitress

    waitress.serve(
        callable_,
        host="127.0.0.1",
        port=port,
        threads=8,
        ident=None,
        # Clients keep connections for their next request. With 100 of them, the default, the
        # server takes no further one until some have been idle for minutes.
        connection_limit=1000,
        asyncore_use_poll=True,
    )


if __name__ == "__main__":
    main()
