"""Actuator configurations for mjlab, after the classes of its version 1.6 (mjlab.actuator)."""

import dataclasses
from collections.abc import Iterator

from dso_robotics.report.export.drives import FORCE, POSITION, VELOCITY, Drive, Number, read_drives
from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.format import FORMATS, Export, Format
from dso_robotics.report.export.python_text import call, heading

_CLASSES = {
    POSITION: "BuiltinPositionActuatorCfg",
    VELOCITY: "BuiltinVelocityActuatorCfg",
    FORCE: "BuiltinMotorActuatorCfg",
}


@FORMATS.register("mjlab")
@dataclasses.dataclass(frozen=True)
class Mjlab(Format):
    """A Python file with `ACTUATORS`, for EntityArticulationInfoCfg(actuators=ACTUATORS)."""

    commands = ("identify", "estimate")
    filename = "mjlab_actuators.py"
    about = "actuator configurations for mjlab (1.6)"

    def export(self, result: Finished, name: str) -> Export:
        """See `Format.export`."""
        drives, notes = read_drives(result)
        classes = sorted({_CLASSES[drive.control] for drive in drives})
        timestep = float(result.robot.mj.opt.timestep)
        lines = [
            *heading(result, "For mjlab: EntityArticulationInfoCfg(actuators=ACTUATORS)."),
            f"from mjlab.actuator import {', '.join(classes)}",
            "",
            "ACTUATORS = (",
            *(line for drive in drives for line in call(_CLASSES[drive.control], [*_fields(drive, timestep)])),
            ")",
        ]
        notes.append(
            "mjlab adds these actuators to the model, so load model.xml without its own: for each of spec.actuators, "
            "spec.delete(actuator)."
        )
        if any(drive.lag.value for drive in drives):
            notes.append(f"Delays are counted in time steps of {timestep:g} s; change them if yours is another.")
        if missing := [drive.name for drive in drives if drive.control == FORCE and drive.effort is None]:
            notes.append(f"mjlab asks for an effort_limit of {', '.join(missing)}, and the model has none: add it.")
        return Export({name: "\n".join(lines) + "\n"}, notes)


def _fields(drive: Drive, timestep: float) -> Iterator[tuple[str, str, Number | None]]:
    """(name, Python text, the number it is) of each argument."""
    yield "target_names_expr", f"({drive.pattern!r},)", None
    if drive.control == POSITION:
        yield "stiffness", str(drive.stiffness), drive.stiffness
    if drive.control != FORCE:
        yield "damping", str(drive.damping), drive.damping
    if drive.effort is not None:
        yield "effort_limit", str(drive.effort), drive.effort
    yield "armature", str(drive.armature), drive.armature
    yield "frictionloss", str(drive.friction), drive.friction
    yield "viscous_damping", str(drive.viscous), drive.viscous
    if drive.lag.value:
        steps = str(round(drive.lag.value / timestep))
        yield "delay_min_lag", steps, drive.lag
        yield "delay_max_lag", steps, drive.lag
