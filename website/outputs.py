"""Runs pages and puts what their code prints and draws into them: `python -m website.outputs docs/tutorials/servo.md ...`.

Behind each piece of code stands a block of `text` with what it printed. A picture `../images/NAME/FILE.png` is the file FILE.png
that the code wrote, wherever it wrote it.
"""

import os
import pathlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence

import nbclient
import nbformat

from website.notebook import blocks, notebook

ROOT = pathlib.Path(__file__).parent.parent
_OUTPUT = re.compile(r"\s*^```text\n.*?^```[ \t]*\n", re.DOTALL | re.MULTILINE)
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def executed(page: str, folder: pathlib.Path, *, seconds: int = 1800) -> nbformat.NotebookNode:
    """The page as a notebook that ran in `folder`.

    Raises:
      CellExecutionError: a cell raised, or a command ended with another status than 0.
    """
    made = notebook(page)
    before = dict(os.environ)
    # `dso` is that of this Python, on this checkout, wherever the notebook runs; figures go to files only.
    os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{before.get('PATH', '')}"
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{before.get('PYTHONPATH', '')}"
    os.environ["MPLBACKEND"] = "agg"
    os.environ["COLUMNS"] = "110"
    try:
        place = {"metadata": {"path": str(folder)}}
        return nbclient.NotebookClient(made, timeout=seconds, resources=place).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)


def printed(cell: nbformat.NotebookNode) -> str:
    """What a cell printed to its standard output, and the value of its last line."""
    parts = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream" and output.name == "stdout":
            parts.append(output.text)
        elif output.output_type == "execute_result":
            parts.append(output.data.get("text/plain", "") + "\n")
    lines = [line.rstrip() for line in _ESCAPE.sub("", "".join(parts)).splitlines()]
    return "\n".join(line for line in lines if not line.startswith("Writing ")).strip("\n")


def outputs(page: str) -> list[str]:
    """What the page says that each piece of code printed."""
    found, all_blocks = [], blocks(page)
    for i, block in enumerate(all_blocks):
        if block.runs:
            after = all_blocks[i + 1] if i + 1 < len(all_blocks) else None
            shows = after is not None and after.language == "text" and not page[block.end : after.start].strip()
            found.append(after.code.rstrip("\n") if shows and after is not None else "")
    return found


def with_outputs(page: str, ran: nbformat.NotebookNode) -> str:
    """The page with the outputs of its notebook, which ran."""
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]
    code = [block for block in blocks(page) if block.runs]
    for block, cell in reversed(list(zip(code, cells, strict=True))):
        rest = page[block.end :]
        old = _OUTPUT.match(rest)
        rest = rest[old.end() :].lstrip("\n") if old else rest.lstrip("\n")
        text = printed(cell)
        new = f"\n\n```text\n{text}\n```\n\n" if text else "\n\n"
        page = page[: block.end] + new + rest
    return page.rstrip("\n") + "\n"


def main(paths: Sequence[str]) -> None:
    """Run each page and write it anew, with its pictures."""
    for path in map(pathlib.Path, paths):
        with tempfile.TemporaryDirectory() as name:
            start, folder, page = time.perf_counter(), pathlib.Path(name), path.read_text()
            path.write_text(with_outputs(page, executed(page, folder)))
            for link in re.findall(r"\]\((\.\./images/[^)]+)\)", page):
                (path.parent / link).resolve().parent.mkdir(parents=True, exist_ok=True)
                made = list(folder.rglob(pathlib.Path(link).name))
                if made:
                    shutil.copyfile(made[0], path.parent / link)
                else:
                    print(f"{path}: nothing wrote {pathlib.Path(link).name}", file=sys.stderr)
            print(f"{path}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
