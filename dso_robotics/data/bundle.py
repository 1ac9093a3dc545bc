"""Models together with their meshes, textures and height fields, so that a folder or a file of a result can be moved."""

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import mujoco

from dso_robotics.data.atomic import atomic_file
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot, load

FOLDER = "assets"
"""The folder beside a model in which its files are."""
_KEYS = ("file", *(f"file{side}" for side in ("right", "left", "up", "down", "front", "back")))
_REFUSALS = (ValueError, RuntimeError, mujoco.FatalError)


def bundled(text: str, beside: Path | None = None) -> tuple[str, dict[str, bytes]]:
    """An MJCF text whose files are in `assets/` beside it, and the contents of these files by name, without the folder.

    text: as `to_mjcf` or MuJoCo writes it.
    beside: folder that relative paths in `text` are relative to; None where there are none.

    Files of the same content become one. Raises DsoError for a file that cannot be read. A text without files stays as it is.
    """
    root = ET.fromstring(text)
    found: dict[str, bytes] = {}
    for element, key, path in _named(root, beside):
        content = _content(path)
        element.set(key, _place(path.name, content, found))
    if not found:
        return text, {}
    _point(root, FOLDER)
    return ET.tostring(root, encoding="unicode") + "\n", found


def bundled_flat(text: str) -> tuple[str, dict[str, bytes]]:
    """As `bundled`, but the files are beside the model, in no folder."""
    moved, files = bundled(text)
    if not files:
        return text, {}
    root = ET.fromstring(moved)
    _point(root, "")
    return ET.tostring(root, encoding="unicode") + "\n", files


def write_bundled(folder: Path, text: str) -> str:
    """Write the files of an MJCF text to `folder`/assets, and return the text that finds them there.

    A file of another content is not replaced: the new one gets another name. Raises DsoError where nothing can be written.
    """
    moved, files = bundled(text, folder)
    if not files:
        return text
    place, renamed = folder / FOLDER, {}
    try:
        place.mkdir(exist_ok=True)
        there = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    except OSError as error:
        raise DsoError(f"{place}: the model's meshes and textures cannot be put here ({error.strerror}).") from error
    for name, content in files.items():
        chosen = _place(name, content, there)
        renamed[name] = chosen
        if not (place / chosen).exists():
            with atomic_file(place / chosen) as temporary:
                temporary.write_bytes(content)
    if all(name == chosen for name, chosen in renamed.items()):
        return moved
    root = ET.fromstring(moved)
    for element in root.iter():
        for key in _KEYS:
            if element.get(key) in renamed:
                element.set(key, renamed[element.get(key, "")])
    return ET.tostring(root, encoding="unicode") + "\n"


def load_text(text: str, folder: Path | None = None, files: Mapping[str, bytes] | None = None, *, source: str) -> Robot:
    """The robot of an MJCF text that `write_bundled` or `bundled` returned.

    folder: beside which its files are, in `assets/`; or else files: their contents by name.
    source: what messages call it.

    Raises:
      DsoError: MuJoCo refuses it, or a file is missing.
    """
    try:
        if files:
            root = ET.fromstring(text)
            _point(root, "")
            spec = mujoco.MjSpec.from_string(ET.tostring(root, encoding="unicode"), assets=dict(files))
        else:
            spec = mujoco.MjSpec.from_string(text)
            for field in ("meshdir", "texturedir"):
                given = Path(getattr(spec, field))
                if folder is not None and not given.is_absolute():
                    setattr(spec, field, str((folder / given).resolve()))
        return load(spec)
    except _REFUSALS as error:
        raise DsoError(f"{source}: the model in it is damaged ({' '.join(str(error).split())}).") from error


def digest_of_files(text: str, beside: Path) -> str:
    """SHA-256 of the contents of an MJCF text's files, in the order of the text; "" where it has none or cannot be read."""
    try:
        contents = [_content(path) for _, _, path in _named(ET.fromstring(text), beside)]
    except (ET.ParseError, DsoError):
        return ""
    return hashlib.sha256(b"".join(hashlib.sha256(c).digest() for c in contents)).hexdigest() if contents else ""


def _named(root: ET.Element, beside: Path | None) -> Iterator[tuple[ET.Element, str, Path]]:
    """Every attribute that names a file: its element, its key, and the file."""
    compiler = root.find("compiler")
    folders = {} if compiler is None else dict(compiler.attrib)
    for element in root.iter():
        for key in _KEYS:
            if not (name := element.get(key)):
                continue
            inside = folders.get("texturedir" if element.tag == "texture" else "meshdir", folders.get("assetdir", ""))
            yield element, key, (beside or Path()) / inside / name


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise DsoError(f"{path}: the model names this as a file, and it is none; correct the model.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DsoError(f"{path}: a file of the model cannot be read ({reason}); put it back.") from error


def _place(name: str, content: bytes, taken: dict[str, bytes]) -> str:
    """A name for `content` among those that are `taken`, to which it is added."""
    stem, suffix, number = PurePosixPath(name).stem, PurePosixPath(name).suffix, 1
    chosen = name
    while taken.setdefault(chosen, content) != content:
        number += 1
        chosen = f"{stem}-{number}{suffix}"
    return chosen


def _point(root: ET.Element, folder: str) -> None:
    """Make `folder` the one of all files."""
    compiler = root.find("compiler")
    if compiler is None:
        compiler = ET.Element("compiler")
        root.insert(0, compiler)
    compiler.attrib.pop("assetdir", None)
    for field in ("meshdir", "texturedir"):
        compiler.attrib.pop(field, None)
        if folder:
            compiler.set(field, folder)
