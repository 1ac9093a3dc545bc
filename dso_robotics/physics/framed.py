"""Places in MJCF of elements whose place is not the one that MuJoCo compiles.

What stands in a `<frame>` is given in that frame, and a mesh is moved to the frame of its own inertia. So a compiled place
(F E O: frame, element, mesh) is written as E' = F^-1 new O^-1.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping

import mujoco
import numpy as np

Place = tuple[np.ndarray, np.ndarray]  # pos (3,), quat (4,)

# Kind of element -> the fields of its place.
_POSED = {
    "body": ("body_pos", "body_quat"),
    "geom": ("geom_pos", "geom_quat"),
    "site": ("site_pos", "site_quat"),
    "camera": ("cam_pos", "cam_quat"),
}
# Kind of element without an orientation -> fields of a point and of a direction.
_POINTED = {"joint": ("jnt_pos", "jnt_axis"), "light": ("light_pos", "light_dir")}
_MESH = int(mujoco.mjtGeom.mjGEOM_MESH)
_TURNS = ("axisangle", "xyaxes", "zaxis", "euler")
_DIGITS = 2e-5  # MuJoCo writes six


def moved(
    root: ET.Element, elements: Mapping[str, list[ET.Element]], model: mujoco.MjModel
) -> dict[ET.Element, list[ET.Element]]:
    """The elements that MuJoCo places elsewhere than they are written, each with its frames, the outermost first.

    elements: by kind, in the order of their ids.
    """
    above = {child: parent for parent in root.iter() for child in parent}
    found = {}
    for kind in (*_POSED, *_POINTED):
        for i, element in enumerate(elements[kind]):
            frames, one = [], above.get(element)
            while one is not None and one.tag == "frame":
                frames.insert(0, one)
                one = above.get(one)
            if frames or (kind == "geom" and model.geom_type[i] == _MESH):
                found[element] = frames
    return found


def write_places(
    chains: Mapping[ET.Element, list[ET.Element]],
    elements: Mapping[str, list[ET.Element]],
    wanted: Mapping[str, np.ndarray],
    *,
    nominal: mujoco.MjModel,
    like: mujoco.MjModel,
) -> None:
    """Write the places of the elements in `chains` that are new, or lost digits in the file, which gives those of `like`.

    wanted: new fields. nominal: the model before. An orientation that is not a quaternion is left as it is.
    """
    for kind, fields in {**_POSED, **_POINTED}.items():
        for i, element in enumerate(elements[kind]):
            frames = chains.get(element)
            if frames is None or any(turn in one.attrib for one in (*frames, element) for turn in _TURNS):
                continue
            new, old, there = (
                [np.array(source(field)[i], float) for field in fields]
                for source in (
                    lambda field: wanted.get(field, getattr(nominal, field)),
                    lambda field: getattr(nominal, field),
                    lambda field: getattr(like, field),
                )
            )
            stays = all(map(np.array_equal, new, old))
            if stays and (all(map(np.array_equal, new, there)) or not all(map(_near, new, there))):
                continue
            outer = _product([_read(frame) for frame in frames])
            if kind in _POSED:
                offset = _product([_inverse(_read(element)), _inverse(outer), (there[0], there[1])])
                place = _product([_inverse(outer), (new[0], new[1]), _inverse(offset)])
                element.set("pos", _text(place[0]))
                element.set("quat", _text(place[1]))
            else:
                back, direction = _inverse(outer), np.zeros(3)
                mujoco.mju_rotVecQuat(direction, new[1], back[1])
                element.set("pos", _text(_product([back, (new[0], np.array([1.0, 0, 0, 0]))])[0]))
                element.set("axis" if kind == "joint" else "dir", _text(direction))


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    other = -other if len(one) == 4 and one @ other < 0 else other
    return bool(np.abs(one - other).max() <= _DIGITS * max(np.abs(one).max(), 1.0))


def _read(element: ET.Element) -> Place:
    pos, quat = (element.get(name, default).split() for name, default in (("pos", "0 0 0"), ("quat", "1 0 0 0")))
    turn = np.array(quat, float)
    return np.array(pos, float), turn / np.linalg.norm(turn)


def _product(places: list[Place]) -> Place:
    pos, quat = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    for one in places:
        inner, turn = np.zeros(3), np.zeros(4)
        mujoco.mju_mulPose(inner, turn, pos, quat, one[0], one[1])
        pos, quat = inner, turn
    return pos, quat


def _inverse(place: Place) -> Place:
    pos, quat = np.zeros(3), np.zeros(4)
    mujoco.mju_negPose(pos, quat, place[0], place[1])
    return pos, quat


def _text(values: np.ndarray) -> str:
    return " ".join(repr(float(v)) for v in values)
