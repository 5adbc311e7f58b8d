# SPDX-License-Identifier: Apache-2.0
"""Release notes where reno cannot tell which release a note belongs to.

reno reads the history of the repository and its tags. In an archive, in a clone without history and
in a repository without tags, all notes of the tree are those of the release that is documented.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from dulwich.errors import NotGitRepository
from dulwich.repo import Repo
from reno import formatter
from reno.config import Config
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
NOTES = ROOT / "releasenotes" / "notes"
DIRECTIVE = ".. release-notes::"


class NotesOfTree:
    """What reno's formatter asks of a loader: one release with all notes of the tree."""

    def __getitem__(self, _version: str) -> list[tuple[str, None]]:
        return [(path.name, None) for path in sorted(NOTES.glob("*.yaml"))]

    def parse_note_file(self, name: str, _sha: None) -> dict[str, Any]:
        """Return the sections of a note."""
        content: dict[str, Any] = yaml.safe_load((NOTES / name).read_text(encoding="utf-8"))
        return content


def has_releases() -> bool:
    """Tell whether the history is there, and tags in it."""
    try:
        repository = Repo(str(ROOT))
    except NotGitRepository:
        return False
    with repository:
        tagged = any(name.startswith(b"refs/tags/") for name in repository.get_refs())
        return tagged and not repository.get_shallow()


def replace_directive(app: Sphinx, _document: str, source: list[str]) -> None:
    """Put the notes in the place of reno's directive."""
    if DIRECTIVE in source[0] and not has_releases():
        report = formatter.format_report(
            NotesOfTree(), Config(str(ROOT)), [app.config.release], show_source=False
        )
        source[0] = source[0].replace(DIRECTIVE, report)
        # A new note is no change of this page.
        app.env.note_reread()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", replace_directive)
    return {"parallel_read_safe": True}
