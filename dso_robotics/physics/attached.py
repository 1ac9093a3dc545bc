"""MJCF of a model into which another was attached without a prefix, which MuJoCo's own writer makes unreadable.

Both models then have a main default class of the same name. The writer gives the attached one no name, and its reader
refuses a class without a name. Here every element gets one class whose values are MuJoCo's own, so that the writer writes
what an element has, whatever its class was.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import mujoco

_CLASS = "as_compiled"
# Kind in a default class -> list of elements of a spec.
_ELEMENTS = {
    "joint": "joints",
    "geom": "geoms",
    "site": "sites",
    "actuator": "actuators",
    "tendon": "tendons",
    "equality": "equalities",
    "pair": "pairs",
    "camera": "cameras",
    "light": "lights",
    "mesh": "meshes",
    "material": "materials",
}


def readable(spec: mujoco.MjSpec) -> ET.Element:
    """The MJCF of a compiled `spec`, without default classes that have no name."""
    root = ET.fromstring(spec.to_xml())
    if not any(_nameless(root)):
        return root
    # A default class is a part of its spec, which has to live as long.
    copy, bare = spec.copy(), mujoco.MjSpec()
    plain, own = copy.add_default(_CLASS, copy.default), bare.default
    for kind, elements in _ELEMENTS.items():
        _assign(getattr(plain, kind), getattr(own, kind))
        for element in getattr(copy, elements):
            element.classname = plain
    copy.compile()
    root = ET.fromstring(copy.to_xml())
    for parent, child in list(_nameless(root)):
        parent.remove(child)
    for element in root.iter():
        element.attrib.pop("childclass", None)
    return root


def _nameless(root: ET.Element) -> Iterator[tuple[ET.Element, ET.Element]]:
    """Default classes inside another one that have no name, each with what holds it."""
    for outer in root.iter("default"):
        for inner in outer.findall("default"):
            if not inner.get("class"):
                yield outer, inner


def _assign(one: Any, other: Any) -> None:
    """Set the numbers of `one` to those of `other`."""
    for name in dir(other):
        if name.startswith("_") or name in (
            "info",
            "name",
            "classname",
            "id",
            "signature",
            "compiler",
            "frame",
            "parent",
            "path",
        ):
            continue
        value = getattr(other, name)
        if not callable(value):
            setattr(one, name, value)
