"""The page of messages: every message of the program that names a page, with that page."""

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent
_PAGE = re.compile(r"docs/(\w+)\.md")

_HEAD = """\
# Messages

Messages of bad input name the file, the thing and the cure, and stand alone. These of them also name a page.
What `dso identify` says of its own result is on [its page](../doubts.md). `DSO_TRACEBACK=1` before a command shows where in the
code an error arose.

| message | page | in |
| --- | --- | --- |
"""


def page() -> str:
    """The whole page, in Markdown."""
    rows = []
    for path in sorted((ROOT / "dso_robotics").rglob("*.py")):
        tree = ast.parse(path.read_text())
        # A command explains itself on the page of commands; its messages are what it raises.
        parts = (n for n in ast.walk(tree) if isinstance(n, ast.Raise)) if path.parent.name == "cli" else [tree]
        for text in (text for part in parts for text in _texts(part)):
            told = " ".join(part for part in re.split(r"\n\s*\n", text) if _PAGE.search(part))
            named = [name for name in dict.fromkeys(_PAGE.findall(told)) if (ROOT / "docs" / f"{name}.md").is_file()]
            if named:
                shown = re.sub(r"([*_<>\[\]$|])", r"\\\1", " ".join(told.split()))
                pages = ", ".join(f"[{name}](../{name}.md)" for name in named)
                rows.append(f"| {shown} | {pages} | `{path.relative_to(ROOT / 'dso_robotics')}` |")
    return _HEAD + "\n".join(rows) + "\n"


def _texts(tree: ast.AST) -> Iterator[str]:
    """Texts of the code that are no docstrings; what is filled in is '...'."""
    docs = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    # What explains an option or a key is on the pages of commands and of study files.
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("help", "description", "epilog"):
            docs |= set(ast.walk(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "key":
            docs |= {part for argument in node.args for part in ast.walk(argument)}
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)  # pyright: ignore
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs | inside:
            yield node.value
