"""The pages that people read: those of docs/, the README and the project's own."""

import functools
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"


@functools.cache
def pages() -> dict[str, str]:
    """Text of every page by its path in the repository, generated ones included."""
    from website.hooks import GENERATED

    own = [*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in own}
    return texts | {f"docs/{place}": page() for place, page in GENERATED.items()}


def fenced(text: str, *languages: str) -> list[str]:
    """Code of the fenced blocks in these languages; the empty language is that of a block without one."""
    found = re.findall(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [code for _, language, code in found if language in languages]


def inline(text: str) -> list[str]:
    """Code within sentences."""
    bare = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", bare)
