"""Hooks of MkDocs: generated pages, links out of docs/, pages that the navigation forgot, and mathematics.

MkDocs loads this file by its path, from the root of the repository: `python -m mkdocs build`.
"""

import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from mkdocs.structure.files import File, Files

from website import api, commands, links, mathematics, measured, messages, methods, notebook, paths, quantities

GENERATED = {
    "reference/commands.md": commands.page,
    "reference/paths.md": paths.page,
    "reference/quantities.md": quantities.page,
    "reference/methods.md": methods.page,
    "reference/messages.md": messages.page,
}


def on_config(config: Any) -> None:
    """Pages of docs/ that the navigation does not name are put at the end of the reference."""
    named = set(_named(config["nav"]))
    reference = next(part["Reference"] for part in config["nav"] if "Reference" in part)
    more = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in named]
    if more:
        reference.append({"More": more})


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the files of the repository that pages link to."""
    for place, page in GENERATED.items():
        files.append(File.generated(config, place, content=page()))
    for target in links.targets(ROOT):
        place = links.place(target, ROOT)
        if target.suffix in links.PICTURES:
            files.append(File.generated(config, place, abs_src_path=str(target)))
        else:
            files.append(File.generated(config, place, content=links.shown(target, ROOT)))
    for page in notebook.running(ROOT / "docs"):
        place = page.relative_to(ROOT / "docs").with_suffix(".ipynb").as_posix()
        text = notebook.as_json(page.read_text(), pictures=page.parent)
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links that leave docs/ to the copies in the site."""
    if page.file.src_uri == "reference/python.md":
        markdown = api.completed(markdown)
    return links.rewritten(measured.filled(markdown), page.file.src_uri, ROOT)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Formulas as MathML, which browsers show without a script."""
    return mathematics.rendered(html)


def _named(nav: Any) -> Any:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav if isinstance(nav, list) else nav.values():
            yield from _named(part)
