"""A page as a notebook: code of Python and of a shell, and files that the page shows, become cells in their order.

In a page a block with a title, such as ```` ```toml title="study.toml" ````, is a file of that name. A block of `text` right behind code is
what the code printed; it is left out. Pictures that the code made are shown by the page from docs/images.
"""

import base64
import dataclasses
import hashlib
import pathlib
import re

import nbformat

_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?[ \t]*\n(?P<code>.*?)^```[ \t]*$', re.DOTALL | re.MULTILINE
)
# How-tos that are not in the folder of that name.
HOWTOS = ("excite.md", "posterior.md")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    start, end: where it stands in the text. title: the name of the file that it is, or an empty text.
    """

    language: str
    title: str
    code: str
    start: int
    end: int

    @property
    def runs(self) -> bool:
        """Whether it is executed."""
        return bool(self.title) or self.language in ("python", "bash")

    @property
    def source(self) -> str:
        """The source of its cell."""
        code = self.code.rstrip("\n")
        if self.title:
            return f"%%writefile {self.title}\n{code}"
        return f"%%bash -e\n{code}" if self.language == "bash" else code


def running(docs: pathlib.Path) -> list[pathlib.Path]:
    """The pages of docs/ that run: tutorials, how-tos and the tour."""
    found = [page for folder in ("start", "tutorials", "howto") for page in sorted((docs / folder).glob("*.md"))]
    found += [docs / name for name in HOWTOS]
    return [page for page in found if any(block.runs for block in blocks(page.read_text()))]


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page that stand at the margin."""
    return [
        Block(found["language"], found["title"] or "", found["code"], found.start(), found.end())
        for found in _BLOCK.finditer(page)
    ]


def notebook(page: str, pictures: pathlib.Path | None = None) -> nbformat.NotebookNode:
    """The page as a notebook without outputs. With `pictures`, the folder of the page, its pictures are inside."""
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    at = 0
    for block in blocks(page):
        if block.runs:
            _text(made, page[at : block.start], pictures)
            made.cells.append(nbformat.v4.new_code_cell(block.source))
            at = block.end
        elif block.language == "text" and not page[at : block.start].strip():
            at = block.end
    _text(made, page[at:], pictures)
    for cell in made.cells:
        # The same page gives the same file.
        cell.id = hashlib.sha256(f"{made.cells.index(cell)}{cell.source}".encode()).hexdigest()[:8]
    return made


def as_json(page: str, pictures: pathlib.Path | None = None) -> str:
    """The notebook as the text of an .ipynb file."""
    return nbformat.writes(notebook(page, pictures)) + "\n"


def _text(made: nbformat.NotebookNode, text: str, pictures: pathlib.Path | None) -> None:
    if not text.strip():
        return

    def inside(found: re.Match[str]) -> str:
        path = (pictures or pathlib.Path()) / found[2]
        if pictures is None or path.suffix != ".png" or not path.is_file():
            return f"*({found[1]})*"
        return f"![{found[1]}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"

    made.cells.append(nbformat.v4.new_markdown_cell(_PICTURE.sub(inside, text).strip()))
