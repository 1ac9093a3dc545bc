"""The XML of a model before MuJoCo reads it: the files it names, and whether it asks for more memory than any robot needs.

MuJoCo allocates what a model declares, however much that is, so declared sizes are bounded first.
"""

import math
import pathlib
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import mujoco

from dso_robotics.errors import DsoError

MAX_FILE_BYTES = 1 << 30
MAX_ASSET_BYTES = 1 << 30
"""Of all height fields and textures together, as MuJoCo holds them."""
MAX_DEPTH = 300
MAX_REPLICAS = 100_000
"""Elements that `replicate` makes of those in the file."""
# Largest number of each of these attributes; a list of numbers counts as their product.
_BOUNDS = {
    "composite": {"count": 100_000},
    "flexcomp": {"count": 1_000_000},
    "camera": {"resolution": 1 << 26},
    "numeric": {"size": 1_000_000},
    "mesh": {"octree_maxdepth": 12, "maxhullvert": 1_000_000},
}
_OF_SIZE = {"nkey": 100_000, "njmax": 10_000_000, "nconmax": 10_000_000, "nstack": 1 << 31, "memory": 1 << 34}
_USERS, _SAMPLES = 10_000, {"nsample": 100_000, "actdim": 10_000, "dim": 100_000, "num": 10_000}
# Subdivisions of a sphere quadruple its faces; other shapes have a resolution.
_MESH_LEVELS, _MESH_RESOLUTION = 7, 1000
_SUFFIX = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_CELL = 4  # bytes of a height


def check_markup(path: pathlib.Path) -> None:
    """Check the sizes that a model file declares, those of its included files and the headers of its assets too.

    Raises:
      DsoError: the file is no XML, or a size is beyond its bound; the message names both.
    """
    try:
        roots = list(_documents(path))
    except ET.ParseError as error:
        raise DsoError(
            f"{path}: cannot load this model: it is no well-formed XML ({error}). Correct the XML at the given line, or give "
            "an MJCF or URDF file."
        ) from error
    claimed = 0
    for where, root in roots:
        _nested(root, where)
        for element in root.iter():
            _bounded(element, where)
            claimed += _declared_bytes(element)
            if claimed > MAX_ASSET_BYTES:
                raise _too_large(where, element, "its height fields and textures", claimed, MAX_ASSET_BYTES, "bytes")
    for file in files(path):
        claimed += _asset_bytes(file)
        if claimed > MAX_ASSET_BYTES:
            raise DsoError(
                f"{path}: {file} unpacks to {claimed:,} bytes with what comes before it, more than {MAX_ASSET_BYTES:,}; use a "
                "smaller height field or texture."
            )


def check_spec(spec: mujoco.MjSpec, source: str) -> None:
    """The same for a model that was built in memory. Raises DsoError when a size is beyond its bound."""
    claimed = sum(max(h.nrow, 0) * max(h.ncol, 0) * _CELL for h in spec.hfields)
    claimed += sum(max(t.width, 0) * max(t.height, 0) * max(t.nchannel, 1) for t in spec.textures)
    if claimed > MAX_ASSET_BYTES:
        raise DsoError(
            f"{source}: its height fields and textures need {claimed:,} bytes, more than {MAX_ASSET_BYTES:,}; make them "
            "smaller."
        )
    for name in (n for n in dir(spec) if n.startswith("nuser_")):
        if getattr(spec, name) > _USERS:
            raise DsoError(f"{source}: {name} is {getattr(spec, name):,}, more than {_USERS:,}; make it smaller.")


def not_a_number(path: pathlib.Path) -> str:
    """What to call the first number of a model file, or of a file that it includes, that is written as NaN."""
    for where, root in _documents(path):
        for element in root.iter():
            for key, text in element.attrib.items():
                if key not in ("name", "class") and "nan" in text.lower().split():
                    return f"{where}: <{element.tag} {key}>" if where != path else f"<{element.tag} {key}>"
    return "a number in this model"


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """Every file that a model file names and that exists: included models, meshes, textures, height fields, skins."""
    found: dict[pathlib.Path, None] = {}
    try:
        roots = list(_documents(path))
    except ET.ParseError:
        return []
    folders = {path.parent}
    for where, root in roots:
        found[where] = None
        for compiler in root.iter("compiler"):
            named = [compiler.get(name, "") for name in ("meshdir", "texturedir", "assetdir")]
            folders |= {path.parent / name for name in named}
    for _, root in roots:
        for element in root.iter():
            for key in (
                "file",
                "filename",
                *(f"file{side}" for side in ("right", "left", "up", "down", "front", "back")),
            ):
                if name := element.get(key):
                    places = (_real(folder, name.removeprefix("package://")) for folder in folders)
                    found |= dict.fromkeys(place for place in places if place is not None)
    found.pop(path, None)
    return list(found)


def _real(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    try:
        return folder / name if (folder / name).is_file() else None
    except (OSError, ValueError):
        return None


def _documents(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, ET.Element]]:
    """The XML of a model file and of all that it includes, each once."""
    open_, seen = [path], {path.resolve()}
    while open_:
        here = open_.pop()
        if here.stat().st_size > MAX_FILE_BYTES:
            raise DsoError(f"{here}: has over {MAX_FILE_BYTES:,} bytes, too many for a model; put meshes in files.")
        root = ET.fromstring(here.read_bytes())
        yield here, root
        for element in root.iter():
            # MuJoCo looks from the folder of the first file.
            if element.tag in ("include", "model") and (name := element.get("file")):
                for folder in dict.fromkeys((path.parent, here.parent)):
                    other = _real(folder, name)
                    if other is not None and other.resolve() not in seen and other.suffix.lower() != ".mjb":
                        seen.add(other.resolve())
                        open_.append(other)


def _nested(root: ET.Element, where: pathlib.Path) -> None:
    """Bound the depth of the XML, which MuJoCo follows on its stack, and the number of elements after replication."""
    total, open_ = 0.0, [(root, 1.0, 0)]
    while open_:
        element, times, depth = open_.pop()
        if depth > MAX_DEPTH:
            raise DsoError(f"{where}: its elements are nested over {MAX_DEPTH} deep; make a flatter model.")
        if element.tag == "replicate":
            times *= max(_number(element.get("count", "1")), 1.0)
        total += times
        if times > 1 and total > MAX_REPLICAS:
            replicate = element if element.tag == "replicate" else ET.Element("replicate")
            raise _too_large(where, replicate, "count, as nested,", total, MAX_REPLICAS, "elements")
        open_ += ((part, times, depth + 1) for part in element)


def _bounded(element: ET.Element, where: pathlib.Path) -> None:
    bounds = {**_BOUNDS.get(element.tag, {}), **_SAMPLES}
    if element.tag == "size":
        bounds = _OF_SIZE | {name: _USERS for name in element.attrib if name.startswith("nuser_")}
    for name, bound in bounds.items():
        if name in element.attrib:
            numbers = [_number(text) for text in element.attrib[name].split()]
            if element.tag in ("composite", "flexcomp"):
                numbers = [max(number, 1.0) for number in numbers]
            found = math.prod(numbers)
            if found > bound:
                raise _too_large(where, element, name, found, bound, "")
    if element.tag == "mesh" and element.get("builtin"):
        first = _number((element.get("params", "0").split() or ["0"])[0])
        bound = _MESH_LEVELS if element.get("builtin") == "sphere" else _MESH_RESOLUTION
        if first > bound:
            raise _too_large(where, element, "params", first, bound, "")


def _declared_bytes(element: ET.Element) -> float:
    def size(name: str) -> float:
        return max(_number(element.get(name, "0")), 0.0)

    if element.tag == "hfield":
        return size("nrow") * size("ncol") * _CELL
    if element.tag == "texture":
        height = size("height") or (6 * size("width") if element.get("type", "cube") != "2d" else size("width"))
        return size("width") * height * max(size("nchannel"), 3.0)
    return 0.0


def _asset_bytes(file: pathlib.Path) -> int:
    """Bytes of a picture or height field when it is unpacked, from its header; 0 for other files."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise DsoError(
                f"{file}: has over {MAX_FILE_BYTES:,} bytes, too many for a file of a model; make it smaller."
            )
        with file.open("rb") as stream:
            head = stream.read(33)
    except OSError:
        return 0
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 26:
        width, height = struct.unpack(">II", head[16:24])
        return width * height * _CELL
    if file.suffix.lower() == ".hf" and len(head) >= 8:
        rows, columns = struct.unpack("<ii", head[:8])
        return max(rows, 0) * max(columns, 0) * _CELL
    return 0


def _number(text: str) -> float:
    """A number as MJCF writes it, with a suffix of bytes; 0 where it is none, which MuJoCo will say."""
    text = text.strip()
    shift = _SUFFIX.get(text[-1:].upper(), 0)
    try:
        value = float(text[:-1] if shift else text)
    except ValueError:
        return 0.0
    return 0.0 if math.isnan(value) else value * 2**shift


def _too_large(where: pathlib.Path, element: ET.Element, what: str, found: float, bound: float, unit: str) -> DsoError:
    name = f" {element.get('name')!r}" if element.get("name") else ""
    made: Any = f"{found:,.0f}" if math.isfinite(found) else "infinite"
    return DsoError(
        f"{where}: <{element.tag}{name}>: {what} is {made} {unit}".rstrip()
        + f", more than {bound:,.0f}, which no robot needs and memory may not hold; make it smaller."
    )
