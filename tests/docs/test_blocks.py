# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows works: configurations, command lines, Python, JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from oslo_config import cfg

from glance_store import loading, sharing, store_options
from glance_store.backend import _list_opts
from tests.kit.examples import load

from . import blocks
from .blocks import Block
from .commands import command_lines, parse, words_of

ALL = blocks.all_blocks()

# Options of the image service and of other libraries, by section, that pages mention.
OTHERS = {
    "DEFAULT": {"enabled_backends", "enabled_import_methods", "show_multiple_locations"},
    "oslo_concurrency": {"lock_path"},
}
RESERVED = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}
LIKE_AN_OPTION = re.compile(r"(filesystem|s3|swift|rbd|cinder|vmware|https?|store)_[a-z_0-9]+")
# Names in the text that look like options of a store, and are something else.
NO_OPTIONS = {"http_proxy", "https_proxy", "rbd_default_features"}
# Modules and attributes.
NO_OPTIONS |= {"store_location", "store_options"}

DRIVERS = {
    **{name: loading.options_of(plugin) for name, plugin in loading.drivers()},
    "memory": load("memory_store").Store.OPTIONS,
}
OF_ALL_STORES = [*sharing.OPTIONS, *store_options.MULTI_BACKEND_OPTIONS]
SINGLE = [opt for _group, opts in _list_opts() for opt in opts]


def chosen(pick) -> list:
    return [pytest.param(block, id=str(block)) for block in ALL if pick(block)]


def names_of(opts) -> set[str]:
    return {opt.dest for opt in opts} | {old.name for opt in opts for old in opt.deprecated_opts}


EVERY_OPTION = {
    *names_of(SINGLE),
    *names_of(OF_ALL_STORES),
    *names_of(store_options.MULTI_STORE_OPTS),
    store_options.OBSERVERS_OPT.dest,
    *(name for opts in DRIVERS.values() for name in names_of(opts)),
}


def test_there_is_something_to_check():
    """The collector sees the pages."""
    assert len(chosen(Block.is_configuration)) > 10
    assert sum(len(list(command_lines(block.text))) for block in ALL) > 20


def test_blocks_are_found(tmp_path):
    page = tmp_path / "page.rst"
    page.write_text(
        textwrap.dedent("""\
            Text::

               $ one

            .. not checked: no server

            .. code-block:: ini
               :caption: /etc/glance/glance-api.conf

               [fast]
               a = 1

            * item, with ``a literal
              on two lines``

              ::

                 two
                   three
            """)
    )
    found = list(blocks.blocks_of(page))
    assert [(block.line, block.language, block.text) for block in found] == [
        (3, "", "$ one"),
        (10, "ini", "[fast]\na = 1"),
        (18, "", "two\n  three"),
    ]
    assert [block.not_checked for block in found] == ["", "no server", ""]
    assert found[1].name == "glance-api.conf"
    assert Block(page, 1, "ini", "# /etc/ceph/ceph.conf\n[client]").name == "ceph.conf"
    assert list(blocks.literals_of(page)) == ["a literal on two lines"]


def sections_of(path: Path) -> dict[str, dict[str, list[str]]]:
    sections: dict[str, dict[str, list[str]]] = {}
    cfg.ConfigParser(str(path), sections).parse()
    return sections


def problems_of(text: str, folder: Path) -> list[str]:
    """Return what is wrong with a configuration."""
    path = folder / "glance-api.conf"
    path.write_text(text + "\n")
    try:
        sections = sections_of(path)
    except cfg.ParseError as exc:
        return [f"{exc.line}: {exc.msg}"]
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    conf([], default_config_files=[str(path)], default_config_dirs=[])
    stores = {**RESERVED, **(conf.enabled_backends or {})}
    found = []
    for section, values in sections.items():
        opts = options_of_section(section, values, stores)
        known = names_of(opts) | OTHERS.get(section, set())
        found += [f"[{section}] has no option {name}" for name in values if name not in known]
        for opt in opts:
            conf.register_opt(opt, group=section)
        found += [str(each) for each in store_options.mistakes(conf, opts, [section])]
    return found


def options_of_section(section, values, stores) -> list[cfg.Opt]:
    if section in OTHERS:
        return []
    if section == "glance_store":
        # With `enabled_backends` it has these two.
        multi = len(stores) > len(RESERVED) or not set(values) <= names_of(SINGLE)
        opts = store_options.MULTI_STORE_OPTS if multi else SINGLE
        return [*opts, store_options.OBSERVERS_OPT]
    if section == "backend_defaults":
        return unique(opt for opts in DRIVERS.values() for opt in [*opts, *sharing.OPTIONS])
    driver = stores.get(section) or driver_with(values)
    return unique([*DRIVERS.get(driver, []), *OF_ALL_STORES])


def unique(opts) -> list[cfg.Opt]:
    return list({opt.dest: opt for opt in opts}.values())


def driver_with(names) -> str:
    """Return the driver that has most of the options."""
    return max(sorted(DRIVERS), key=lambda driver: len(names_of(DRIVERS[driver]) & set(names)))


@pytest.mark.parametrize("block", chosen(Block.is_configuration))
def test_configurations(block, tmp_path):
    """Each option exists in the driver of its store, and may have the value."""
    if block.not_checked:
        pytest.skip(block.not_checked)
    assert problems_of(block.text, tmp_path) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[fast]\nfilesystem_store_datadirectory = /srv", "[fast] has no option"),
        ("[DEFAULT]\nenabled_backends = a:rbd\n[a]\ns3_store_bucket = b", "[a] has no option"),
        ("[fast]\nrbd_store_io_depth = many", "rbd_store_io_depth"),
        ("[glance_store]\ndefault_backend_ = fast", "no option default_backend_"),
        ("[DEFAULT]\nenabled_backend = a:rbd", "[DEFAULT] has no option enabled_backend"),
        ("[fast", "[fast"),
    ],
)
def test_mistakes_in_configurations_are_found(text, problem, tmp_path):
    assert problem in "\n".join(problems_of(text, tmp_path))


def literal_names() -> list:
    found = []
    for path in blocks.PAGES:
        if path.name == "releasenotes.rst":
            continue
        for literal in blocks.literals_of(path):
            name = literal.split(" = ")[0]
            if LIKE_AN_OPTION.fullmatch(name):
                found.append((str(path.relative_to(blocks.ROOT)), name))
    return sorted(set(found))


def test_options_named_in_the_text_exist():
    named = literal_names()
    assert len(named) > 100
    assert [(page, name) for page, name in named if name not in EVERY_OPTION | NO_OPTIONS] == []


def test_command_lines():
    """The command takes each command line that a page shows, in a block or in its text."""
    wrong = []
    for place, line in every_command_line():
        try:
            parse(line)
        except Exception as exc:  # noqa: BLE001 - all of them are shown
            wrong.append(f"{place}: {line}: {exc}")
    assert not wrong, "\n".join(wrong)


def every_command_line():
    for block in ALL:
        if block.language in ("", "console", "shell", "bash", "sh") and not block.not_checked:
            for line in command_lines(block.text):
                yield str(block), line
    for path in blocks.PAGES:
        for literal in blocks.literals_of(path):
            if re.match(r"glance-store (--|[a-z]+ -)", literal):
                # The text may name an option without its value.
                value = " VALUE" if re.search(r"--(expect|store|to)$", literal) else ""
                for line in command_lines(literal + value):
                    yield str(path.relative_to(blocks.ROOT)), line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$ glance-store ls fast | head -3\noutput", [["ls", "fast"]]),
        (
            "x=$(glance-store put a.raw --json | jq -r .location) || exit",
            [["put", "a.raw", "--json"]],
        ),
        ("glance-store rm URI [--yes]", []),
        ("$ glance-store get x \\\n      -o >(cat > y)", [["get", "x", "-o"]]),
        ('verify "$(glance-store stat x)"', [["stat", "x"]]),
        ("true && sudo -u glance glance-store rm x --yes", [["rm", "x", "--yes"]]),
        ("pip install glance-store more", []),
    ],
)
def test_command_lines_are_found(text, words):
    assert [words_of(line) for line in command_lines(text)] == words


@pytest.mark.parametrize("block", chosen(lambda block: block.language == "json"))
def test_json(block):
    if block.not_checked:
        pytest.skip(block.not_checked)
    json.loads(block.text)


def python_pages() -> list:
    paths = {block.path for block in ALL if block.language in ("python", "pycon")}
    return [pytest.param(path, id=str(path.relative_to(blocks.ROOT))) for path in sorted(paths)]


@pytest.mark.parametrize("path", python_pages())
def test_python(path, tmp_path):
    """The blocks of a page run one after the other, in one process with a folder of its own."""
    program = ""
    for block in blocks.blocks_of(path):
        code = block.text.replace("/srv/", f"{tmp_path}/srv/")
        if block.is_configuration() and "enabled_backends" in code:
            (tmp_path / "glance-api.conf").write_text(code)
        if block.language != "python":
            continue
        compile(code, str(block), "exec")
        if not block.not_checked:
            program += f"\n# {block}\n{code}\n"
    (tmp_path / "disk.raw").write_bytes(os.urandom(3 << 20))
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": f"{blocks.ROOT}", "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "program.py"],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr


# Files and folders of this repository, in text and in commands.
A_PATH = re.compile(
    r"(?<![\w./<-])((?:bench|doc|etc|glance_store|releasenotes|tests|tools)/[\w./-]*\w/?)(?![\w*<])"
)
A_MODULE = re.compile(r"python3? -m ((?:bench|glance_store|tests)[\w.]*)")


def test_files_of_the_repository_are_there():
    found = {
        (str(path.relative_to(blocks.ROOT)), name)
        for path in blocks.PAGES
        for literal in [*blocks.literals_of(path), *(b.text for b in blocks.blocks_of(path))]
        for name in A_PATH.findall(literal)
    }
    assert len(found) > 10
    missing = [
        (page, name)
        for page, name in sorted(found)
        if not (blocks.ROOT / name).exists() and not name.startswith("doc/build/")
    ]
    assert missing == []


def test_modules_that_commands_run_are_there():
    found = {name for path in blocks.PAGES for name in A_MODULE.findall(path.read_text())}
    assert "bench" in found
    assert [name for name in sorted(found) if importlib.util.find_spec(name) is None] == []
