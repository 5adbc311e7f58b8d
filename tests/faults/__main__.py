# SPDX-License-Identifier: Apache-2.0
"""The fault proxy as a command: ``python -m tests.faults 127.0.0.1:8080 --latency 0.01``."""

from __future__ import annotations

import argparse
import signal

from tests.faults.proxy import FaultProxy

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text: str) -> int:
    """Return bytes from a number with an optional unit: ``40MiB``."""
    number = text.rstrip("BGKMi")
    unit = text[len(number) :]
    if unit not in _UNITS or not number.isdecimal() or not int(number):
        units = ", ".join(filter(None, _UNITS))
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 with a unit of: {units}")
    return int(number) * _UNITS[unit]


def target(text: str) -> tuple[str, int]:
    """Return host and port."""
    host, _colon, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT")
    return host, int(port)


def main() -> None:
    """Run until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("target", type=target, metavar="HOST:PORT", help="the server")
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="0: a free port")
    parser.add_argument(
        "--latency", type=float, default=0.0, metavar="SECONDS", help="one way, half a round trip"
    )
    parser.add_argument(
        "--bandwidth", type=size, metavar="SIZE", help="per second, direction and connection: 40MiB"
    )
    parser.add_argument("--reset-after", type=size, metavar="SIZE", help="of the server's bytes")
    parser.add_argument("--truncate-after", type=size, metavar="SIZE", help="likewise")
    parser.add_argument("--black-hole", action="store_true", help="accept, then silence")
    options = vars(parser.parse_args())
    host, port = options.pop("target")
    signals = {signal.SIGINT, signal.SIGTERM}
    # Before the thread of the proxy starts, which inherits it.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with FaultProxy(host, port, port=options.pop("listen")) as proxy:
        try:
            proxy.inject(**options)
        except ValueError as exc:
            parser.error(str(exc))
        print(f"listening on {proxy.address}", flush=True)
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
