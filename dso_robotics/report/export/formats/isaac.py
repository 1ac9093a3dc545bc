"""Actuator configurations for Isaac Lab, after the classes of its version 3.0 (isaaclab.actuators)."""

import dataclasses
from collections.abc import Iterator

from dso_robotics.report.export.drives import Drive, Number, read_drives
from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.format import FORMATS, Export, Format
from dso_robotics.report.export.python_text import call, heading

_IMPLICIT, _DELAYED = "ImplicitActuatorCfg", "DelayedPDActuatorCfg"


@FORMATS.register("isaac")
@dataclasses.dataclass(frozen=True)
class Isaac(Format):
    """A Python file with `ACTUATORS`, for ArticulationCfg(actuators=ACTUATORS)."""

    commands = ("identify", "estimate")
    filename = "isaac_actuators.py"
    about = "actuator configurations for Isaac Lab (3.0)"

    def export(self, result: Finished, name: str) -> Export:
        """See `Format.export`."""
        drives, notes = read_drives(result)
        timestep = float(result.robot.mj.opt.timestep)
        lines = [
            *heading(result, "For Isaac Lab: ArticulationCfg(actuators=ACTUATORS)."),
            f"from isaaclab.actuators import {', '.join(sorted({_class(drive) for drive in drives}))}",
            "",
            "ACTUATORS = {",
            *(line for d in drives for line in call(_class(d), [*_fields(d, timestep)], key=d.name)),
            "}",
        ]
        notes.append(
            "Before Isaac Lab 3.0 joint_effort_limit is called effort_limit_sim, actuator_effort_limit effort_limit, and "
            "friction has no unit: leave friction out there. A drive by force has no stiffness and damping: set its effort."
        )
        if any(drive.lag.value for drive in drives):
            notes.append(f"Delays are counted in time steps of {timestep:g} s; change them if yours is another.")
        return Export({name: "\n".join(lines) + "\n"}, notes)


def _class(drive: Drive) -> str:
    return _DELAYED if drive.lag.value else _IMPLICIT


def _fields(drive: Drive, timestep: float) -> Iterator[tuple[str, str, Number | None]]:
    """(name, Python text, the number it is) of each argument."""
    yield "joint_names_expr", f"[{drive.pattern!r}]", None
    yield "stiffness", str(drive.stiffness), drive.stiffness
    yield "damping", str(drive.damping), drive.damping
    if drive.effort is not None:
        yield "actuator_effort_limit" if drive.lag.value else "joint_effort_limit", str(drive.effort), drive.effort
    yield "armature", str(drive.armature), drive.armature
    yield "friction", str(drive.friction), drive.friction
    yield "dynamic_friction", str(drive.friction), drive.friction
    yield "viscous_friction", str(drive.viscous), drive.viscous
    if drive.lag.value:
        steps = str(round(drive.lag.value / timestep))
        yield "min_delay", steps, drive.lag
        yield "max_delay", steps, drive.lag
