"""Every link of every page leads somewhere, and every page can be reached."""

import os
import pathlib
import re

import pytest
from pymdownx.slugs import slugify

from tests.docs.pages import DOCS, ROOT, pages
from website import links

pytestmark = pytest.mark.mjx
_SLUG = slugify(case="lower")


def anchors(text):
    """Anchors of the headings of a page."""
    bare = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,6} +(.*?) *#*$", bare, re.MULTILINE)
    plain = [re.sub(r"[`*]|\\(?=.)", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", one)) for one in headings]
    return {_SLUG(one, "-") for one in plain}


def dead(page, text, known):
    """Links of a page that lead nowhere."""
    for link in links.found(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = os.path.normpath(pathlib.PurePosixPath(page).parent / path) if path else page
        made = target.endswith(".ipynb") and f"{target.removesuffix('.ipynb')}.md" in known
        if target not in known and not made and not (ROOT / target).exists():
            yield f"{page}: {link}: there is no such file"
        elif anchor and target in known and anchor not in anchors(known[target]) and "::: " not in known[target]:
            yield f"{page}: {link}: there is no such heading"


def test_every_link_leads_somewhere():
    assert not [fault for page, text in pages().items() for fault in dead(page, text, pages())]


def test_a_dead_link_is_found():
    known = {"docs/a.md": "# One thing\n", "docs/b.md": ""}
    assert not list(dead("docs/b.md", "[x](a.md#one-thing) `[y](z)`", known))
    assert len(list(dead("docs/b.md", "[x](c.md) and [y](a.md#another-thing)\n", known))) == 2


def test_every_page_is_in_the_navigation_or_is_added_to_it():
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"- ([\w/]+\.md)$", text, re.MULTILINE))
    deeper = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*/*.md")}
    assert deeper <= named, "a page in a folder of docs/ has its line in mkdocs.yml"
    from website.hooks import GENERATED

    own = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert named <= own | {*GENERATED} | {*links.PLACES.values()}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


@pytest.mark.parametrize(
    "page", ["studies.md", "policies.md", "files.md", "deployment.md", "servos.md", "estimators.md"]
)
def test_pages_that_messages_name_are_there(page):
    assert (DOCS / page).is_file()


def test_code_names_only_pages_that_there_are():
    named = {}
    for folder in ("dso_robotics", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for page in re.findall(r"docs/[\w/]+\.md", path.read_text()):
                named.setdefault(page, path)
    missing = [f"{path}: {page}" for page, path in named.items() if not (ROOT / page).is_file()]
    assert not missing
