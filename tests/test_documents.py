"""Paths, links, modules and symbols in the documents exist."""

import re
from pathlib import Path

import pytest

from tests.harness import ROOT

DOCUMENTS = sorted(
    str(path.relative_to(ROOT)) for pattern in ("*.md", "docs/**/*.md", "examples/*.md") for path in ROOT.glob(pattern)
)
FOLDERS = ("api", "billing", "core", "deploy", "docs", "examples", "metering", "migrations", "sandbox", "tests")
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?<![\w./~-])(?:{'|'.join(FOLDERS)})/[\w./*{{}},-]*[\w*}}/]")
FILE = re.compile(r"[\w-]+\.(?:py|sql|lua|js|html|css|lock)")
MODULE = re.compile(r"python -m ((?:tests|sandbox|api)[\w.]*)")
SYMBOL = re.compile(r"\[`[^`]+`\]\(([^)]+)\) `(\w+)`")


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def exists(path: str) -> bool:
    """Whether a path from the repository's root is there; `*` and `{a,b}` as in a shell."""
    found = re.search(r"{([^}]*)}", path)
    if found is None:
        return any(ROOT.glob(path.rstrip("/")))
    return all(exists(path.replace(found[0], one, 1)) for one in found[1].split(","))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_a_document_exists(document: str) -> None:
    named = {path for code in CODE.findall(text_of(document)) for path in PATH.findall(code)}
    assert {path for path in named if not exists(path)} == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    targets = {link.partition("#")[0] for link in LINK.findall(text_of(document)) if "://" not in link}
    here = (ROOT / document).parent
    assert {target for target in targets if not (here / target).exists()} == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_anchor_is_a_heading(document: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)\s:#]*)#([^)]+)\)", text_of(document)):
        text = text_of(document) if not target else ((ROOT / document).parent / target).read_text()
        headings = {
            re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert anchor in headings, f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_named_without_a_folder_is_one_of_ours(document: str) -> None:
    ours = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")}
    ours |= {path.name for path in ROOT.iterdir()}
    assert {code for code in CODE.findall(text_of(document)) if FILE.fullmatch(code)} <= ours


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_module_that_a_document_runs_exists(document: str) -> None:
    modules = {Path(*name.split(".")) for name in MODULE.findall(text_of(document))}
    missing = {m for m in modules if not (ROOT / m).is_dir() and not (ROOT / m).with_suffix(".py").is_file()}
    assert missing == set()


def test_a_symbol_beside_a_file_is_in_it() -> None:
    named = SYMBOL.findall(text_of("docs/architecture.md"))
    assert len(named) >= 5
    missing = {
        (path, name) for path, name in named if not re.search(rf"\b{name}\b", (ROOT / "docs" / path).read_text())
    }
    assert missing == set()


def test_the_readme_begins_with_the_two_commands() -> None:
    assert re.match(r"# Naka\n\n    make run +#.*\n    make test +#.*\n", text_of("README.md"))
