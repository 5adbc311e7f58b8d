# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""Entry point of `glance-store`: the command line, and the reporting of errors."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from glance_store import inventory
from glance_store.cli import arguments, bench, check, commands, completion, config, copy, holdings
from glance_store.cli.errors import (
    OK,
    OutputClosedError,
    TerminatedError,
    UsageError,
    exit_code,
)
from glance_store.cli.output import Output, logging_to_stderr
from glance_store.location import without_secrets

_EPILOG = """\
exit codes:
  0    done
  1    the operation failed, or a verification found a difference
  2    the command line or the configuration is wrong; nothing was done
  3    the image does not exist
  130  interrupted with Ctrl-C; an unfinished transfer leaves nothing behind
  141  the reader of standard output is gone; 143, 129: ended by a signal

examples:
  glance-store stores
  glance-store put disk.raw --store fast
  glance-store get file:///srv/images/6ad4f0a2-... -o disk.raw
  glance-store verify file:///srv/images/6ad4f0a2-... --checksum 9e107d9d372bb6826bd81d3542a419d6
  glance-store check --expect records.txt --data --parallel 4
  glance-store gc --older-than 7d
  glance-store bench --store fast --size 64K,1G --parallel 4

glance-store COMMAND --help shows the options of a command.
"""

# Commands that go through all stores, or one.
_SURVEYS = (holdings.list_images, holdings.usage, holdings.collect, check.check)


class _Parser(argparse.ArgumentParser):
    """Reports mistakes like all other errors of the command."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Append(argparse.Action):
    """Collects the values of an option from before and after the command."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, **options)
        self.given: list[str] = []

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        self.given.append(values)
        setattr(namespace, self.dest, self.given)


def _common() -> _Parser:
    """Return the options that may stand before or after the command."""
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--config-file",
        action=_Append,
        metavar="FILE",
        help="configuration file of the image service; repeatable, later files win (default: "
        f"{config.DEFAULT_CONFIG_FILE})",
    )
    group.add_argument(
        "--config-dir",
        action=_Append,
        metavar="DIR",
        help="directory of *.conf files, read after the files; repeatable",
    )
    group.add_argument("--json", action="store_true", help="print JSON, for scripts")
    group.add_argument(
        "-q", "--quiet", action="store_true", help="show no progress bar and no remarks"
    )
    group.add_argument("--debug", action="store_true", help="show the library's log and tracebacks")
    return parser


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    common = _common()
    parser = _Parser(
        prog="glance-store",
        description="Manage the stores of an image service, and the images in them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"glance-store {importlib.metadata.version('glance_store')}",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name, help=text, description=text.capitalize() + ".", parents=[common]
        )
        sub.set_defaults(run=run)
        return sub

    _add_stores(add("stores", commands.stores, "list the stores and their health"))
    _add_put(add("put", commands.put, "store an image"))
    _add_get(add("get", commands.get, "read an image or a range of it"))
    _add_uri(add("stat", commands.stat, "show where an image is and its size"))
    _add_verify(
        add("verify", commands.verify, "read a whole image and compare or print its digests")
    )
    _add_remove(add("rm", commands.remove, "remove an image"))
    _add_list(add("ls", holdings.list_images, "list what the stores hold"))
    _add_store(add("du", holdings.usage, "add up what the stores hold, and show their free space"))
    _add_check(
        add("check", check.check, "compare the stores with the records of the image service")
    )
    copy.add_arguments(add("copy", copy.copy, "copy images to another store"))
    _add_collect(add("gc", holdings.collect, "list or remove what interrupted uploads left behind"))
    bench.add_arguments(add("bench", bench.bench, "measure how fast a store is from here"))
    return parser


def _add_stores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if anything is wrong with a store"
    )
    parser.add_argument(
        "--timeout",
        type=arguments.seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for the stores to report their health (default: 30)",
    )
    parser.add_argument(
        "--prometheus", action="store_true", help="print metrics in Prometheus text format"
    )


def _add_uri(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="URI", help="location of the image, as put prints it")
    parser.add_argument(
        "--store", metavar="ID", help="store of the image (default: the one that has it)"
    )


def _add_put(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="file or device to store, - for stdin")
    parser.add_argument(
        "--id", type=arguments.image_id, help="id of the image (default: a new UUID)"
    )
    arguments.add_storing(parser)
    parser.add_argument(
        "--size",
        type=arguments.size,
        metavar="BYTES",
        help="exact size of FILE; for stdin it lets the store reserve the space (suffixes K, "
        "M, G, T)",
    )


def _add_get(parser: argparse.ArgumentParser) -> None:
    _add_uri(parser)
    parser.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="FILE",
        help="file or device to write, - for stdout (default)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace FILE if it exists, or write to a block device"
    )
    parser.add_argument(
        "--offset", type=arguments.size, default=0, metavar="BYTES", help="first byte (default: 0)"
    )
    parser.add_argument(
        "--length",
        type=arguments.length,
        metavar="BYTES",
        help="number of bytes (default: up to the end)",
    )


def _add_verify(parser: argparse.ArgumentParser) -> None:
    _add_uri(parser)
    parser.add_argument("--checksum", metavar="HEX", help="expected md5 of the image")
    parser.add_argument("--multihash", metavar="HEX", help="expected multihash of the image")
    parser.add_argument(
        "--hash",
        type=str.lower,
        default="sha512",
        metavar="NAME",
        help="algorithm of the multihash (default: sha512)",
    )


def _add_remove(parser: argparse.ArgumentParser) -> None:
    _add_uri(parser)
    sure = parser.add_mutually_exclusive_group()
    sure.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    sure.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="show what would be removed, and remove nothing",
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", nargs="?", help="one store (default: all)")


def _add_list(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument(
        "--state",
        choices=inventory.STATES,
        help="only images (complete), unfinished uploads (incomplete), or all else (foreign)",
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument(
        "--expect",
        metavar="FILE",
        help="records of the image service: JSON lines, or a table with a header line; - for stdin",
    )
    parser.add_argument("--data", action="store_true", help="read images and compare digests")
    parser.add_argument(
        "--sample",
        type=arguments.sample,
        default="1/1",
        metavar="N/M",
        help="with --data: read only a fraction of the images, always the same ones",
    )
    parser.add_argument(
        "--parallel",
        type=arguments.count,
        default=2,
        metavar="N",
        help="with --data: images to read at a time (default: 2)",
    )
    parser.add_argument(
        "--state-file",
        metavar="FILE",
        help="with --data: record good images in FILE, and skip those recorded there",
    )


def _add_collect(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument(
        "--older-than",
        type=arguments.age,
        default="1d",
        metavar="TIME",
        help="only what has not changed for so long: 90m, 12h, 7d (default: 1d)",
    )
    sure = parser.add_mutually_exclusive_group()
    sure.add_argument("-y", "--yes", action="store_true", help="remove what is found")
    sure.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="list what is found, and remove nothing (the default)",
    )


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise an exception, so that clean-up runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(signum: int, _frame: Any) -> None:
        raise TerminatedError(signum)

    # A signal that is ignored, as under nohup, stays ignored.
    before = {
        signum: signal.signal(signum, terminate)
        for signum in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _waiting_streams() -> Iterator[None]:
    """Let reads and writes wait: ssh, node and others share streams that do not."""
    changed = []
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # AttributeError: a closed stream is None.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            descriptor = stream.fileno()
            if not os.get_blocking(descriptor):
                os.set_blocking(descriptor, True)
                changed.append(descriptor)
    try:
        yield
    finally:
        for descriptor in changed:
            with contextlib.suppress(OSError):
                os.set_blocking(descriptor, False)


def _run(words: Sequence[str], output: Output) -> int:
    parser = build_parser()
    completion.answer_shell(parser)
    args = parser.parse_args(words)
    output.quiet = getattr(args, "quiet", False)
    output.as_json = getattr(args, "json", False)
    lists = args.run is commands.stores
    surveys = args.run in _SURVEYS
    writes = args.run in (commands.put, commands.remove, holdings.collect, copy.copy, bench.bench)
    debug = getattr(args, "debug", False)
    # The list of stores shows what is wrong with each: a warning would repeat it.
    with logging_to_stderr(debug, silent=lists) as log:
        conf = config.load(getattr(args, "config_file", []), getattr(args, "config_dir", []))
        if args.run is copy.copy:
            needs = copy.needs(args)
        elif lists or (surveys and args.store is None):
            needs = []
        else:
            needs = [config.Needs(getattr(args, "uri", None), args.store, writes)]
        try:
            # Warnings about the stores searched for an image matter only if that fails.
            log.holds = not (writes or debug)
            opened = config.open_stores(conf, *needs)
            log.holds = False
            code: int = args.run(args, opened, output)
        except BaseException:
            log.print_held()
            raise
        output.flush()
        return code


def _abandon_stdout() -> None:
    """Keep the interpreter from writing the rest of the output when it exits."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@_waiting_streams()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Known before the arguments are parsed: mistakes in them are reported in the same form.
    output = Output(as_json="--json" in words)
    try:
        with _signals():
            return _run(words, output)
    except SystemExit as exc:
        # --help and --version.
        return exc.code if isinstance(exc.code, int) else OK
    except OutputClosedError as exc:
        _abandon_stdout()
        return exit_code(exc)
    except (Exception, KeyboardInterrupt, TerminatedError) as exc:  # noqa: BLE001 - the last resort
        if "--debug" in words:
            sys.stderr.write(without_secrets(traceback.format_exc()))
        output.error(exc)
        try:
            output.flush()
        except (OSError, OutputClosedError):
            # Otherwise the interpreter tries again, and exits with a code of its own.
            _abandon_stdout()
        return exit_code(exc)
