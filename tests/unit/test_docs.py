"""The documents say what is so: commands exist, links lead somewhere, nothing is left undocumented."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import parser

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def _files(*patterns: str) -> list[Path]:
    """Files of the project: what git tracks or would track, so that caches and environments are left alone."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:  # a source archive without git
        return sorted(p for pattern in patterns for p in ROOT.rglob(pattern) if ".venv" not in p.parts)
    return sorted(ROOT / name for name in set(listed.stdout.split("\0")) if name and (ROOT / name).is_file())


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _commands() -> dict[str, argparse.ArgumentParser]:
    for action in parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the command line has no commands")


def _parser_of(command: argparse.ArgumentParser, words: list[str]) -> argparse.ArgumentParser:
    """The parser of `wardpost site init`, of which `site` is the command; else the command's own."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction) and words and words[0] in action.choices:
            found: argparse.ArgumentParser = action.choices[words[0]]
            return found
    return command


def _code(text: str) -> Iterator[str]:
    """Everything that a document shows as something to type: fenced blocks and `code`."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from (line.split("#")[0].strip() for line in block.splitlines() if line.strip())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def _documents() -> list[Path]:
    found = _files("*.md")
    assert ROOT / "README.md" in found
    return found


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_repository_resolve(document: Path) -> None:
    broken = []
    for link in _LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def _anchors(text: str) -> set[str]:
    """The anchors that a page of Markdown gets from its headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_documents_exist(document: Path) -> None:
    commands, targets = _commands(), _make_targets()
    wrong = []
    for code in _code(document.read_text()):
        words = code.removeprefix(".venv/bin/").split()
        if words[:1] == ["make"] and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]) and words[1] not in targets:
            wrong.append(code)
        if words[:1] == ["wardpost"] and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            if words[1] not in commands:
                wrong.append(code)
                continue
            known = set(_parser_of(commands[words[1]], words[2:])._option_string_actions)
            wrong += [f"{code}: {word}" for word in words[2:] if word.startswith("-") and word not in known]
    assert wrong == []


def test_every_command_stands_in_the_readme_and_explains_itself() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, command in _commands().items():
        assert f"`wardpost {name}" in readme, f"README.md does not mention `wardpost {name}`"
        for action in command._actions:
            if action.option_strings and action.option_strings[0] != "-h":
                assert action.help or action.metavar, f"wardpost {name} {action.option_strings[0]} explains nothing"


def test_every_make_target_is_in_make_help_or_is_help_itself() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE):
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), f"make {target} has no line in make help"


def test_pictures_in_the_repository_are_small() -> None:
    for path in _files("*.png", "*.jpg", "*.svg"):
        assert path.stat().st_size < 1_000_000, f"{path} is {path.stat().st_size} bytes"
