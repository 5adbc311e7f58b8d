# SPDX-License-Identifier: Apache-2.0
"""Start the servers of the tests by hand.

python -m tests.services list         what there is
python -m tests.services install [NAME...]
                                      make programs available, which the first start does otherwise
python -m tests.services up NAME...   start some, print addresses, credentials and a
                                      glance-api.conf; Ctrl-C stops them and removes their state
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.services import catalogue, reaper
from tests.services.base import Lab, Service, Unavailable


def glance_api_conf(services: Iterable[Service], folder: Path) -> str:
    """Return the text of a glance-api.conf with the stores of some services.

    :param services: running services
    :param folder: for Glance's own data
    """
    offering = {service: text for service in services if (text := service.glance_conf())}
    stores = {
        name: kind
        for service, text in offering.items()
        for name, kind in service.stores.items()
        # Some stores need other services to be there.
        if f"[{name}]" in text
    }
    own = folder / "glance"
    head = ["[DEFAULT]"]
    if stores:
        enabled = ", ".join(f"{name}:{kind}" for name, kind in stores.items())
        # The web is for reading alone: images go anywhere else by default.
        default = next((name for name, kind in stores.items() if kind != "http"), None)
        head.append(f"enabled_backends = {enabled}")
        if default is not None:
            head += ["", "[glance_store]", f"default_backend = {default}"]
    head += ["", "[database]", f"connection = sqlite:///{own}/glance.sqlite"]
    for reserved in ("staging", "tasks"):
        place = own / reserved
        place.mkdir(parents=True, exist_ok=True)
        head += ["", f"[os_glance_{reserved}_store]", f"filesystem_store_datadir = {place}"]
    return "\n\n".join(["\n".join(head), *(text.strip() for text in offering.values())]) + "\n"


def show(lab: Lab) -> None:
    """Print what one has to know to use the services."""
    for service in lab.running():
        print(f"\n{service.name}: ready after {service.seconds:.1f} s")
        for name, value in service.facts().items():
            print(f"  {name} = {value}")
    target = lab.folder / "glance-api.conf"
    text = glance_api_conf(lab.running(), lab.folder)
    target.write_text(text)
    print(f"\n{target}:\n\n{text}\nCtrl-C stops everything.", flush=True)


def up(names: list[str]) -> int:
    """Run services until a signal arrives."""
    # A shell lets background jobs ignore SIGINT; SIGTERM has to clean up as well.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    reaper.start_run()
    lab = Lab(find=catalogue.find)
    try:
        for name in names:
            print(f"starting {name}", file=sys.stderr)
            lab.up(name)
        show(lab)
        while True:
            time.sleep(3600)
    except Unavailable as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        # Impatience must not leave servers behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        lab.down()


def install(names: list[str]) -> int:
    """Make the programs of services available, as far as this machine allows; all at once."""

    def make(name: str) -> str | None:
        try:
            catalogue.find(name)().install()
        except Unavailable as reason:
            return str(reason)
        return None

    with ThreadPoolExecutor() as pool:
        for reason in filter(None, pool.map(make, names or catalogue.MODULES)):
            print(reason, file=sys.stderr)
    return 0


def main() -> int:
    """Parse the command line and do what it says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print what can be started")
    installer = commands.add_parser("install", help="make the programs of servers available")
    installer.add_argument("names", nargs="*", metavar="NAME", choices=[*catalogue.MODULES, []])
    upper = commands.add_parser("up", help="start servers until Ctrl-C")
    upper.add_argument("names", nargs="+", metavar="NAME", choices=list(catalogue.MODULES))
    arguments = parser.parse_args()
    if arguments.command == "up":
        return up(arguments.names)
    if arguments.command == "install":
        return install(arguments.names)
    for name, line in catalogue.listing().items():
        print(f"{name:10}{line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
