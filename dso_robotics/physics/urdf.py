"""A URDF file whose numbers change and whose text stays: inertias of links, numbers of joints, their places.

Frames are those of URDF: a link's frame is that of the joint that moves it. MuJoCo gives the body of a link the same frame.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.markup_patch import Element, Markup

_SAME = 1e-12  # Changes below this, relative to the largest number of the attribute, are rounding.
_AXES = ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
_PLACES = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


@dataclasses.dataclass(frozen=True, eq=False)
class Pose:
    """A frame in another one: turn (3, 3), place (3,) [m]."""

    turn: np.ndarray
    place: np.ndarray

    def __matmul__(self, inner: "Pose") -> "Pose":
        """The frame `inner`, which is given in this frame, in the other one."""
        return Pose(self.turn @ inner.turn, self.turn @ inner.place + self.place)

    @property
    def inverse(self) -> "Pose":
        """The other frame in this one."""
        return Pose(self.turn.T, -self.turn.T @ self.place)


IDENTITY = Pose(np.eye(3), np.zeros(3))


@dataclasses.dataclass(frozen=True, eq=False)
class Mass:
    """The inertia of a rigid body in a frame.

    mass: [kg]. moment: (3,), mass times centre of mass [kg m]. second: (3, 3), inertia about the frame's origin [kg m^2].
    """

    mass: float
    moment: np.ndarray
    second: np.ndarray

    @classmethod
    def about_centre(cls, mass: float, centre: np.ndarray, tensor: np.ndarray) -> "Mass":
        """From the centre of mass (3,) [m] and the inertia (3, 3) about it."""
        return cls(mass, mass * centre, tensor + mass * _parallel(centre))

    @property
    def centre(self) -> np.ndarray:
        """Centre of mass (3,) [m]; the origin without a mass."""
        return self.moment / self.mass if self.mass else np.zeros(3)

    @property
    def tensor(self) -> np.ndarray:
        """Inertia (3, 3) about the centre of mass [kg m^2]."""
        return self.second - self.mass * _parallel(self.centre)

    @property
    def possible(self) -> bool:
        """Whether a solid body can have it: positive mass and moments, none larger than the other two together."""
        moments = np.linalg.eigvalsh(self.tensor)
        return self.mass > 0 and moments[0] > 0 and moments[2] <= moments[0] + moments[1]

    def seen_from(self, frame: Pose) -> "Mass":
        """The same body in the frame in which its frame is `frame`."""
        turn = frame.turn
        return Mass.about_centre(self.mass, turn @ self.centre + frame.place, turn @ self.tensor @ turn.T)

    def __add__(self, other: "Mass") -> "Mass":
        return Mass(self.mass + other.mass, self.moment + other.moment, self.second + other.second)

    def __sub__(self, other: "Mass") -> "Mass":
        return Mass(self.mass - other.mass, self.moment - other.moment, self.second - other.second)


NOTHING = Mass(0.0, np.zeros(3), np.zeros((3, 3)))


class Urdf:
    """The links and joints of a URDF file, and changes to them.

    links, joints: elements by name. parent: the joint that holds a link, by the link's name.

    Raises:
      DsoError: it is no URDF, or its links form no tree.
    """

    def __init__(self, text: bytes, source: str):
        self.source, self._markup = source, Markup(text, source)
        root = self._markup.root
        if root.tag != "robot":
            raise DsoError(f"{source}: this is no URDF (its root element is <{root.tag}>, not <robot>).")
        xacro = next((e.tag for e in root.walk() if e.tag.startswith("xacro:")), None)
        if xacro is not None:
            raise DsoError(f"{source}: <{xacro}> is of xacro; run `xacro` first and give the URDF that it writes.")
        self.links = {e.attributes.get("name", ""): e for e in root.all("link")}
        self.joints = {e.attributes.get("name", ""): e for e in root.all("joint")}
        self.parent: dict[str, str] = {}
        for name in self.joints:
            above, below = self.ends(name)
            if below in self.parent or above not in self.links or below not in self.links:
                raise DsoError(
                    f"{source}: joint {name!r} from link {above!r} to {below!r} does not belong to a tree of links."
                )
            self.parent[below] = name
        self._origins = {name: self._origin(name) for name in self.joints}

    def ends(self, joint: str) -> tuple[str, str]:
        """The links above and below a joint."""
        element = self.joints[joint]
        above, below = (element.first(end) for end in ("parent", "child"))
        return _link(above), _link(below)

    def kind(self, joint: str) -> str:
        """The type of a joint, such as "revolute"."""
        return self.joints[joint].attributes.get("type", "")

    def up(self, link: str) -> list[str]:
        """The links from `link`, itself included, to the root."""
        chain = [link]
        while chain[-1] in self.parent and len(chain) <= len(self.links):
            chain.append(self.ends(self.parent[chain[-1]])[0])
        return chain

    def pose(self, link: str, ancestor: str | None) -> Pose:
        """The frame of `link` in that of `ancestor`, all joints at zero; None is the root link."""
        found = IDENTITY
        for one in self.up(link):
            if one == ancestor:
                return found
            if one in self.parent:
                found = self._origins[self.parent[one]] @ found
        if ancestor is not None:
            raise DsoError(f"{self.source}: link {link!r} does not hang on link {ancestor!r}.")
        return found

    def fixed_to(self, link: str, others: Iterable[str]) -> list[str]:
        """`link` and what is fixed to it, without the links `others` and what is fixed to those."""
        found, stop = [link], set(others) - {link}
        for _ in self.joints:
            more = [b for name in self.joints for b in self._children(found, name) if b not in stop]
            if not more:
                break
            found += more
        return found

    def _children(self, found: list[str], joint: str) -> list[str]:
        above, below = self.ends(joint)
        return [below] if self.kind(joint) == "fixed" and above in found and below not in found else []

    def mass(self, link: str) -> Mass:
        """The inertia of a link in its frame, as the file states it; none where it states none."""
        inertial = self.links[link].first("inertial")
        if inertial is None:
            return NOTHING
        mass, tensor = inertial.first("mass"), inertial.first("inertia")
        weight = 0.0 if mass is None else self._number(mass, "value")
        full = np.zeros((3, 3))
        for name, (i, j) in zip(_AXES, _PLACES, strict=True):
            full[i, j] = full[j, i] = 0.0 if tensor is None else self._number(tensor, name)
        return Mass.about_centre(weight, np.zeros(3), full).seen_from(self._frame(inertial))

    def set_mass(self, link: str, value: Mass) -> None:
        """Write the inertia of a link; its inertial frame keeps its direction."""
        element = self.links[link]
        inertial = element.first("inertial")
        turn = np.eye(3) if inertial is None else self._frame(inertial).turn
        tensor = turn.T @ value.tensor @ turn
        numbers = {
            "mass": {"value": [value.mass]},
            "inertia": {n: [tensor[p]] for n, p in zip(_AXES, _PLACES, strict=True)},
        }
        scales = {"inertia": float(np.abs(tensor).max())}
        if inertial is None:
            parts = [f'<origin xyz="{_text(value.centre)}"/>']
            for tag, row in numbers.items():
                shown = " ".join(f'{name}="{_text(v)}"' for name, v in row.items())
                parts.append(f"<{tag} {shown}/>")
            self._markup.add(element, "inertial", {}, "".join(parts))
            return
        for tag, row in ({"origin": {"xyz": value.centre}} | numbers).items():
            self._write(inertial, tag, row, scale=scales.get(tag, 0.0))

    def set_joint(self, joint: str, tag: str, numbers: Mapping[str, Any]) -> None:
        """Write attributes of the element `tag` of a joint: dynamics, limit, axis."""
        self._write(self.joints[joint], tag, numbers)

    def set_origin(self, joint: str, pose: Pose) -> None:
        """Move a joint in the frame of the link above it."""
        old = self._origins[joint]
        numbers: dict[str, Any] = {"xyz": pose.place}
        if np.abs(old.turn - pose.turn).max() > _SAME:
            numbers["rpy"] = angles(pose.turn)
        self._origins[joint] = pose
        self._write(self.joints[joint], "origin", numbers, scale=1e-3)

    def text(self) -> bytes:
        """The file with all changes."""
        return self._markup.changed()

    def _write(self, element: Element, tag: str, numbers: Mapping[str, Any], *, scale: float = 0.0) -> None:
        child = element.first(tag)
        if child is None:
            if any(np.any(v) for v in numbers.values()):
                self._markup.add(element, tag, {name: _text(v) for name, v in numbers.items()})
            return
        for name, value in numbers.items():
            new = np.atleast_1d(np.asarray(value, float))
            old = np.array(self._numbers(child, name, len(new)))
            if np.abs(new - old).max() > _SAME * max(scale, np.abs(new).max()):
                self._markup.set(child, name, _text(new))

    def _origin(self, joint: str) -> Pose:
        return self._frame(self.joints[joint])

    def _frame(self, element: Element) -> Pose:
        """The `<origin>` of an element."""
        origin = element.first("origin")
        if origin is None:
            return IDENTITY
        return Pose(turned(self._numbers(origin, "rpy", 3)), np.array(self._numbers(origin, "xyz", 3)))

    def _number(self, element: Element, name: str) -> float:
        return self._numbers(element, name, 1)[0]

    def _numbers(self, element: Element, name: str, count: int) -> list[float]:
        """The numbers of an attribute; zeros where it is missing."""
        text = element.attributes.get(name)
        if text is None:
            return [0.0] * count
        try:
            found = [float(word) for word in text.split()]
        except ValueError:
            found = []
        if len(found) != count:
            raise DsoError(
                f"{self.source}: <{element.tag} {name}={text!r}>: expected {count} number(s); correct the file."
            )
        return found


def turned(rpy: Iterable[float]) -> np.ndarray:
    """The rotation (3, 3) of roll, pitch and yaw [rad] about fixed axes."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([*rpy]), np.sin([*rpy])
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def angles(turn: np.ndarray) -> np.ndarray:
    """Roll, pitch and yaw (3,) [rad] of a rotation (3, 3); roll is zero where pitch is a right angle."""
    pitch = np.arctan2(-turn[2, 0], np.hypot(turn[0, 0], turn[1, 0]))
    if np.hypot(turn[0, 0], turn[1, 0]) < 1e-9:
        return np.array([0.0, pitch, np.arctan2(-turn[0, 1], turn[1, 1])])
    return np.array([np.arctan2(turn[2, 1], turn[2, 2]), pitch, np.arctan2(turn[1, 0], turn[0, 0])])


def _parallel(centre: np.ndarray) -> np.ndarray:
    """The inertia (3, 3) about the origin of a unit mass at `centre`."""
    return centre @ centre * np.eye(3) - np.outer(centre, centre)


def _text(values: Any) -> str:
    return " ".join(f"{v + 0.0:.15g}" for v in np.atleast_1d(np.asarray(values, float)))


def _link(end: Element | None) -> str:
    return "" if end is None else end.attributes.get("link", "")
