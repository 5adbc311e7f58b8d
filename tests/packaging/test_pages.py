# SPDX-License-Identifier: Apache-2.0
"""The pages on installing and upgrading name the options, extras and libraries that there are."""

from __future__ import annotations

import ast
import configparser
import json
import re
from pathlib import Path

import pytest

from glance_store import backend, multi_backend, sharing, store_options

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "doc" / "source"
UPGRADE = (PAGES / "admin" / "upgrade.rst").read_text()
INSTALL = (PAGES / "install" / "index.rst").read_text()
PACKAGERS = (PAGES / "install" / "packagers.rst").read_text()
OLD = json.loads((ROOT / "tests" / "data" / "options.json").read_text())
_OPTION = re.compile(r"``([a-z0-9]+(?:_[a-z0-9]+)+)``")


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def bounds(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?>=([\d.]+)", text, re.MULTILINE))


def old_options() -> dict[str, dict]:
    common = ("single_store_common", "multi_store_common", "per_backend_common")
    lists = [*OLD["drivers"].values(), *(OLD[name] for name in common)]
    return {opt["dest"]: opt for opts in lists for opt in opts}


def present_options():
    lists = [*multi_backend._list_config_opts(), *backend._list_opts()]
    found = {opt.dest: opt for _group, opts in lists for opt in opts}
    more = [*sharing.OPTIONS, store_options.OBSERVERS_OPT]
    return {**found, **{opt.dest: opt for opt in more}}


def section(title: str) -> str:
    """Return the text of a section of the page on upgrading."""
    _before, _title, rest = UPGRADE.partition(f"\n{title}\n{'=' * len(title)}\n")
    assert rest, title
    return re.split(r"\n[^\n]+\n=+\n", rest)[0]


def test_upgrade_page_names_every_new_option_and_no_other():
    text = section("Options").partition("* **New**")[2]
    assert set(_OPTION.findall(text)) == set(present_options()) - set(old_options())


def test_upgrade_page_has_their_defaults():
    text = " ".join(section("Options").partition("* **New**")[2].split())
    # ``name`` (value), or several names and one value that is none.
    units = {True: "true", False: "false", None: "none", "": "none"}
    for name in set(present_options()) - set(old_options()):
        default = present_options()[name].default
        if default in ([], {}):
            shown = "none"
        elif isinstance(default, (bool, str, type(None))):
            shown = units[default]
        else:
            shown = f"{default:g}"
        stated = re.search(rf"``{name}``(?:, ``\w+``)* \((\w+)", text)
        assert stated, name
        assert stated.group(1) == shown, name


def test_upgrade_page_names_every_deprecated_option():
    text = section("Options").partition("* **Deprecated")[2].partition("* **New**")[0]
    deprecated = {n for n, opt in present_options().items() if opt.deprecated_for_removal}
    assert deprecated == {n for n, opt in old_options().items() if opt["deprecated_for_removal"]}
    successors = {"enabled_backends", "default_backend", "swift_store_config_file"}
    assert set(_OPTION.findall(text)) | {"stores"} == deprecated | successors


def test_no_option_was_removed_or_has_another_default():
    present = present_options()
    for name, old in old_options().items():
        assert present[name].default == old["default"], name


@pytest.mark.parametrize("page", [UPGRADE, PACKAGERS])
def test_page_names_the_bounds_of_setup(page):
    libraries = {}
    for part in ("options", "options.extras_require"):
        for text in setup()[part].values():
            libraries |= bounds(text.strip())
    named = re.findall(r"^ *([a-zA-Z][\w.-]+) +(\d+\.\d[\d.]*) ", page, re.MULTILINE)
    known = [(name, version) for name, version in named if name in libraries]
    assert len(known) > 3
    for name, version in known:
        assert version == libraries[name], name


def test_install_page_has_every_extra_and_what_it_installs():
    extras = setup()["options.extras_require"]
    _before, table = INSTALL.split("\nExtra ")
    rows = re.split(r"\n(?=``)", table.partition("\n\n")[0])[1:]
    shown = {re.match(r"``(\w+)``", row)[1]: row for row in rows}
    assert set(shown) == set(extras) - {"test", "docs"}
    for name, row in shown.items():
        for library in bounds(extras[name].strip()):
            assert library in row, (name, library)


def test_pythons_of_the_classifiers_are_those_that_are_tested():
    classifiers = setup()["metadata"]["classifiers"]
    claimed = set(re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE))
    script = (ROOT / "tools" / "pythons.sh").read_text()
    tried = set(re.search(r"^supported=\((.*)\)$", script, re.MULTILINE)[1].split())
    assert claimed <= tried
    lowest, highest = min(claimed, key=_number), max(claimed, key=_number)
    assert f"Releases {lowest} to {highest} are tested" in INSTALL
    assert setup()["options"]["python_requires"] == f">={lowest}"


def _number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def debian_packages() -> set[str]:
    """Return the packages that the tests install, from the calls that do."""
    found = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", "")
            arguments = {"debian_packages": node.args, "need": node.args[1:]}.get(name, [])
            found |= {each.value for each in arguments if isinstance(each, ast.Constant)}
    return found


def test_bindep_has_what_the_tests_install():
    lines = (ROOT / "bindep.txt").read_text().splitlines()
    listed = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert {"ceph-mon", "bindfs"} <= debian_packages()
    assert debian_packages() <= listed
