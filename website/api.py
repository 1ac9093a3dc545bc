"""The page of the Python names: what `import dso_robotics` offers and the page does not place yet is added at its end."""

import re
from collections.abc import Iterator

import dso_robotics


def completed(page: str) -> str:
    """The page with a section for the public names that it leaves out."""
    missing = [place for name, place in places() if not re.search(rf"^::: [\w.]+\.{name}$", page, re.MULTILINE)]
    if not missing:
        return page
    return page + "\n## Others\n\n" + "\n".join(f"::: {place}" for place in missing) + "\n"


def places() -> Iterator[tuple[str, str]]:
    """Each public name, with the dotted path of its definition."""
    for name in dso_robotics.__all__:
        thing = getattr(dso_robotics, name)
        yield name, f"{thing.__module__}.{thing.__qualname__}"
