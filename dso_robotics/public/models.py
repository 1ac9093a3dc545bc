"""Information about a model: the paths that can be freed, and the engines that support it."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dso_robotics.physics.model import load
from dso_robotics.public.computing import computing
from dso_robotics.public.sheet import block, html_table, text_table
from dso_robotics.public.wording import arguments, speaking_python
from dso_robotics.report.quantity import unit

if TYPE_CHECKING:
    import mujoco

    from dso_robotics.physics.model import Robot
    from dso_robotics.studies.check import Overview


@dataclass(frozen=True)
class Freeable:
    """A number that can be freed.

    path: its path.
    value: current value; None for a body's ten inertial numbers.
    unit: its unit.
    text: its meaning.
    """

    path: str
    value: float | None
    unit: str
    text: str


class Parameters(list[Freeable]):
    """Every number of a model that can be freed; prints itself. The paths go to `free` of `identify`."""

    @property
    def paths(self) -> list[str]:
        """The paths alone."""
        return [entry.path for entry in self]

    def _rows(self) -> list[tuple[str, str, str, str]]:
        rows = [("path", "value", "unit", "")]
        for entry in self:
            value = "10 numbers" if entry.value is None else f"{entry.value:.6g}"
            rows.append((entry.path, value, entry.unit, entry.text))
        return rows

    def __str__(self) -> str:
        return text_table(self._rows(), "<><<")

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [(path, value, unit(text), meaning) for path, value, text, meaning in self._rows()]
        return block("Parameters", f"{len(self)} that can be freed", [html_table(rows, "<><<")], ())


def list_parameters(model: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot") -> Parameters:
    """Every path of a model that can be freed, with its value and unit.

    Raises:
      DsoError: the model does not load.
    """
    from dso_robotics.parameters.path import escape, every

    with speaking_python():
        robot = load(model)
    found = Parameters()
    for target in every(robot):
        given_in = target.family.unit(robot.mj, target.object_id, target.component)
        found.append(Freeable(target.path, float(target.nominal(robot)), given_in, target.family.text))
    for i, name in enumerate(robot.names("body")):
        if name and robot.mj.body_mass[i] > 0:
            text = "mass, centre of mass and full inertia together"
            found.append(Freeable(f"body/{escape(name)}/inertia", None, "", text))
    return found


class Checked:
    """The result of `check`: `overview` has `contents`, `options`, `engines` (reasons against each) and `warnings`."""

    def __init__(self, source: str, overview: "Overview"):
        self.source, self.overview = source, overview

    def __str__(self) -> str:
        from dso_robotics.report.table import overview_lines

        return arguments("\n".join(overview_lines(self.source, self.overview)))

    def __repr__(self) -> str:
        return str(self)


def check(model: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot") -> Checked:
    """The contents of a model, the engines that support it, and likely problems, each with a remedy.

    Raises:
      DsoError: the model does not load.
    """
    from dso_robotics.studies.check import overview

    with speaking_python(), computing(jax=True):
        robot = load(model)
        return Checked(robot.source, overview(robot))
