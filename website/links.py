"""Links of pages to files outside docs/: the site holds a copy of each, so that it is complete without a network."""

import os
import pathlib
import posixpath
import re
from collections.abc import Iterator

PICTURES = (".png", ".webp", ".gif", ".svg")
# Pages of the repository that have a place of their own in the site; a folder is where its files are listed.
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "examples/studies": "start/gallery.md",
}
_LANGUAGES = {".py": "python", ".toml": "toml", ".xml": "xml", ".json": "json"}
_LINK = re.compile(r"(\]\()([^()\s]+)(\))")
_OUTSIDE = re.compile(r"^(?:[a-z]+:|#|/)")


def found(markdown: str) -> Iterator[str]:
    """Targets of the links and pictures of a page, code left out."""
    for match in _LINK.finditer(without_code(markdown)):
        yield match[2]


def without_code(markdown: str) -> str:
    """A page with blanks in the place of code and formulas."""
    fenced = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2[ \t]*$", re.DOTALL | re.MULTILINE)
    blank = fenced.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), markdown)
    blank = re.sub(r"\$\$.+?\$\$|\$[^$\n]+\$", lambda m: re.sub(r"[^\n]", " ", m[0]), blank, flags=re.DOTALL)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda m: " " * len(m[0]), blank)


def targets(root: pathlib.Path) -> list[pathlib.Path]:
    """Files outside docs/ that the pages link to, and the project's own pages."""
    pages = [*(root / "docs").rglob("*.md"), root / "CONTRIBUTING.md", root / "CHANGELOG.md"]
    wanted = {root / "CONTRIBUTING.md", root / "CHANGELOG.md"}
    for page in pages:
        for link in found(page.read_text()):
            if not _OUTSIDE.match(link):
                target = pathlib.Path(os.path.normpath(page.parent / link.partition("#")[0]))
                if target.is_file() and root / "docs" not in target.parents and target.name != "README.md":
                    wanted.add(target)
    return sorted(wanted)


def place(target: pathlib.Path, root: pathlib.Path) -> str:
    """Where the site has a file of the repository."""
    inside = target.relative_to(root).as_posix()
    if inside in PLACES:
        return PLACES[inside]
    if inside.startswith("docs/"):
        return inside.removeprefix("docs/")
    return f"files/{inside}" if target.suffix in PICTURES else f"files/{inside}.md"


def shown(target: pathlib.Path, root: pathlib.Path) -> str:
    """A file of the repository as a page."""
    text = target.read_text()
    if target.suffix == ".md":
        return text
    return f"# {target.relative_to(root).as_posix()}\n\n````{_LANGUAGES.get(target.suffix, 'text')}\n{text}\n````\n"


def rewritten(markdown: str, page: str, root: pathlib.Path) -> str:
    """The page, which is `page` in the site, with links to places in the site."""
    sources = {there: here for here, there in PLACES.items() if here.endswith(".md") and there != "index.md"}
    source = root / sources.get(page, f"docs/{page}")
    code = without_code(markdown)

    def moved(match: re.Match[str]) -> str:
        link = match[2]
        if _OUTSIDE.match(link) or code[match.start(2) : match.end(2)].isspace():
            return match[0]
        path, mark, anchor = link.partition("#")
        target = pathlib.Path(os.path.normpath(source.parent / path)) if path else source
        if root not in target.parents:
            return match[0]
        there = posixpath.relpath(place(target, root), posixpath.dirname(page) or ".")
        return f"{match[1]}{there if path else ''}{mark}{anchor}{match[3]}"

    return _LINK.sub(moved, markdown)
