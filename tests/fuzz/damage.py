"""Damage to the bytes of a file: what happens to files on disks and in mails, and what an attacker does on purpose.

Each function takes a random generator and bytes, and returns other bytes. Bytes that it cannot parse are damaged as bytes.
"""

import copy
import io
import json
import random
import re
import struct
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable
from typing import Any

Damage = Callable[[random.Random, bytes], bytes]
_INTEGERS = (0, 1, 2, 3, 7, 8, 16, 32, 64, 127, 128, 255, 256, 1000, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
_INTEGERS += (2**53, 2**62, 2**63 - 1, 2**64 - 1)
NUMBERS = (
    "0",
    "-0",
    "1",
    "-1",
    "0.5",
    "1e308",
    "1e-308",
    "-1e300",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "1e5",
    "9" * 20,
    "0x10",
)
NUMBERS += (
    "1_000",
    "2147483648",
    "1,5",
    "1.2.3",
    "+-1",
    "1e",
    "00",
    "--",
    "1d3",
    "NaN",
    "Infinity",
    "null",
    "١",
    "1/2",
)
_WORDS = (
    "",
    " ",
    "\0",
    "\x1b[31m",
    "ä",
    "\ufeff",
    "\U0001f980",
    "\u202e",
    '"',
    "'",
    "\\",
    "$",
    "{",
    "<",
    "&",
    "%s",
    "../..",
)
_WORDS += ("a" * 300, "time", "#", "//", "%", "\n", "\r", "\t", ",", ";", "|", "-" * 9, "=", "\x7f", "\udce4")


def raw(rng: random.Random, content: bytes) -> bytes:
    """Bits, bytes, integers and stretches of a file."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not data:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(16)))
        at, size = rng.randrange(len(data)), len(data)
        length = min(rng.choice((1, 2, 4, 8, 16, 64, 256, 1024)), size - at)
        way = rng.randrange(9)
        if way == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[at] = rng.randrange(256)
        elif way == 2:
            width = rng.choice("BHIQ")
            order, value = rng.choice("<>"), rng.choice(_INTEGERS)
            packed = struct.pack(order + width, value % (1 << 8 * struct.calcsize("<" + width)))
            data[at : at + len(packed)] = packed
        elif way == 3:
            del data[at : at + length]
        elif way == 4:
            data[at:at] = data[at : at + length]
        elif way == 5:
            to = rng.randrange(size)
            data[to : to + length] = data[at : at + length]
        elif way == 6:
            data[at : at + length] = bytes([rng.choice((0, 255, 32, 65))]) * length
        elif way == 7:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif rng.random() < 0.3:
            del data[at:]
        else:
            data[at] = (data[at] + rng.choice((-1, 1))) % 256
    return bytes(data)


def text(words: tuple[str, ...] = ()) -> Damage:
    """Numbers, words and lines of a text; `words` are those that its readers know."""

    def damage(rng: random.Random, content: bytes) -> bytes:
        found = content.decode("utf-8", "surrogateescape")
        for _ in range(rng.choice((1, 1, 2, 4))):
            found = _retold(rng, found, (*_WORDS, *words * 3))
        return found.encode("utf-8", "surrogateescape")

    return damage


def _retold(rng: random.Random, found: str, words: tuple[str, ...]) -> str:
    way = rng.randrange(8)
    if way <= 1 and (spots := list(re.finditer(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?", found))):
        spot = rng.choice(spots)
        return found[: spot.start()] + rng.choice(NUMBERS) + found[spot.end() :]
    if way == 2 and (spots := list(re.finditer(r"[^\W\d_]\w*", found))):
        spot = rng.choice(spots)
        return found[: spot.start()] + rng.choice((*words, *NUMBERS, rng.choice(spots)[0])) + found[spot.end() :]
    if way in (3, 4):
        at = rng.randrange(len(found) + 1)
        return found[:at] + rng.choice(words) * rng.choice((1, 1, 1, 2, 100)) + found[at:]
    if way in (5, 6):
        lines = found.split("\n")
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        ways: tuple[Callable[[], Any], ...] = (
            lambda: lines.pop(at),
            lambda: lines.insert(other, lines[at]),
            lambda: lines.__setitem__(other, lines[at]),
            lambda: lines.__setitem__(at, lines[at] * rng.choice((2, 50))),
        )
        rng.choice(ways)()
        return "\n".join(lines)
    begin, end = sorted((rng.randrange(len(found) + 1), rng.randrange(len(found) + 1)))
    return found[:begin] + found[end:] if end - begin < len(found) // 2 or rng.random() < 0.2 else found[:end]


def encoded(rng: random.Random, content: bytes) -> bytes:
    """The text in another encoding."""
    found = content.decode("utf-8", "replace")
    return found.encode(
        rng.choice(("utf-16", "utf-16-le", "utf-8-sig", "latin-1", "cp1252", "utf-32", "ascii")), "replace"
    )


def as_json(rng: random.Random, content: bytes) -> bytes:
    """Values in a JSON file, or in one line of JSON lines."""
    lines = content.splitlines() if content.count(b"}\n{") else [content]
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return raw(rng, content)
    lines[at] = json.dumps(_changed(rng, value, rng.randrange(1, 5))).encode()
    return b"\n".join(lines)


def _changed(rng: random.Random, value: Any, depth: int) -> Any:
    odd: tuple[Any, ...] = (
        None,
        True,
        {},
        [],
        "",
        [[]],
        [None],
        {"": []},
        1e308,
        10**30,
        float("nan"),
        "x",
        [[1, 2], [3]],
    )
    if depth and isinstance(value, dict) and value:
        key = rng.choice(list(value))
        way = rng.randrange(6)
        if way == 0:
            return {k: v for k, v in value.items() if k != key}
        if way == 1:
            return value | {rng.choice(_WORDS).encode("ascii", "ignore").decode(): value[key]}
        return value | {key: _changed(rng, value[key], depth - 1)}
    if depth and isinstance(value, list) and value:
        at = rng.randrange(len(value))
        way = rng.randrange(6)
        if way == 0:
            return value[:at]
        if way == 1:
            return [value] * rng.choice((1, 2, 70))
        if way == 2:
            return [part for part in value for _ in range(rng.choice((1, 2)))]
        return [*value[:at], _changed(rng, value[at], depth - 1), *value[at + 1 :]]
    return rng.choice(odd)


def as_npz(rng: random.Random, content: bytes) -> bytes:
    """A member of an NPZ archive, which is packed again."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return raw(rng, content)
    name = rng.choice(list(members))
    way = rng.randrange(6)
    if way == 0:
        members[rng.choice((name + "x.npy", "", "/etc/x.npy", "a\nb.npy", "x" * 300 + ".npy"))] = members.pop(name)
    else:
        members[name] = as_npy(rng, members[name])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    return stream.getvalue()


def as_npy(rng: random.Random, content: bytes) -> bytes:
    """The header of an NPY file, or its bytes."""
    end = content.find(b"\n")
    if rng.random() < 0.3 or end < 10:
        return raw(rng, content)
    shapes = (
        "(0,)",
        "()",
        "(40, 0)",
        "(99999999999,)",
        "(-1,)",
        "(40,)",
        "(20, 2)",
        "(2, 2, 10)",
        "40",
        "(4.0,)",
        "(True,)",
    )
    kinds = (
        "<f8",
        "|O",
        "<c16",
        "<M8[ns]",
        "<M8",
        "<m8[s]",
        "<U4",
        "|S8",
        "|V8",
        "|b1",
        ">f4",
        "<f2",
        "|i1",
        "<i8",
        "x",
    )
    kind = rng.choice((f"'{rng.choice(kinds)}'", "[('time', '<f8'), ('u', '<f4')]", "[('a', '<f8', (3,))]", "'<f8'"))
    shape, order = rng.choice(shapes), rng.choice(("False", "True", "1", "None"))
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if rng.random() < 0.2:
        text = rng.choice(
            ("{" * 500, "[" * 3000, text[:-3], text + "x", "__import__('os')", text.replace("'shape'", "'size'"))
        )
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) % 65536) + header + content[end + 1 :]


def as_xml(rng: random.Random, content: bytes) -> bytes:
    """Elements and attributes of a model."""
    try:
        root = ET.fromstring(content)
    except Exception:
        return raw(rng, content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        parents = [(parent, child) for parent in root.iter() for child in parent]
        elements = list(root.iter())
        element = rng.choice(elements)
        way = rng.randrange(7)
        if way <= 3 and element.attrib:
            key = rng.choice(list(element.attrib))
            old = element.attrib[key].split()
            numbers = [
                rng.choice((*NUMBERS, "-3", "1e10", "1000000", "65", "1e-20")) for _ in range(rng.choice((1, 1, 3, 9)))
            ]
            other = rng.choice([e for e in elements if e.attrib])
            words = [rng.choice(list(other.attrib.values())), rng.choice(_WORDS), " ".join(numbers)]
            if old and len(old) > 1:
                old[rng.randrange(len(old))] = numbers[0]
                words += [" ".join(old)] * 3
            element.attrib[key] = rng.choice(words)
        elif way == 4 and parents:
            parent, child = rng.choice(parents)
            parent.remove(child)
        elif way == 5 and parents:
            _, child = rng.choice(parents)
            if sum(1 for _ in root.iter()) < 500:
                element.append(copy.deepcopy(child))
        elif element.attrib and (others := [e for e in elements if e.attrib]):
            other = rng.choice(others)
            key = rng.choice(list(other.attrib))
            element.attrib[key] = other.attrib[key]
    try:
        return ET.tostring(root)
    except Exception:
        return raw(rng, content)
