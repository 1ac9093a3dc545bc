"""Rest lengths of tendons whose `springlength` is automatic.

As MuJoCo's compiler has it, they are the lengths in the posture of `springref`.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.design.map import Array, Fields, read
from dso_robotics.physics.model import Robot

# What the length of a tendon depends on.
_PATH = (
    "body_pos",
    "body_quat",
    "jnt_pos",
    "jnt_axis",
    "qpos0",
    "qpos_spring",
    "geom_pos",
    "geom_quat",
    "geom_size",
    "site_pos",
    "site_quat",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Rest:
    """The automatic rest lengths of a robot's tendons. automatic: which tendons (ntendon,) have one."""

    robot: Robot
    automatic: np.ndarray

    def __call__(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """tendon_lengthspring [m, rad] (..., ntendon, 2); nothing if no field that a tendon's path depends on changes."""
        names = [name for name in _PATH if name in fields]
        if not names or not self.automatic.any():
            return {}
        lead = numbers.shape[:-1]
        xp = numbers.__array_namespace__()
        given = {}
        for name in names:
            tail = np.shape(getattr(self.robot.mj, name))
            given[name] = xp.broadcast_to(fields[name], (*lead, *tail))
        if xp is np:
            lengths = np.empty((*lead, self.robot.mj.ntendon))
            for at in np.ndindex(*lead):
                lengths[at] = self._measured({name: value[at] for name, value in given.items()})
        else:
            import jax

            measure = self._differentiable
            for _ in lead:
                measure = jax.vmap(measure)
            lengths = measure(given)
        kept = read(self.robot, fields, "tendon_lengthspring", numbers)
        return {"tendon_lengthspring": xp.where(self.automatic[:, None], lengths[..., None], kept)}

    def _measured(self, fields: Mapping[str, np.ndarray]) -> np.ndarray:
        """Lengths (ntendon,) in the posture of qpos_spring, by C MuJoCo."""
        model = copy.copy(self.robot.mj)
        for name, value in fields.items():
            getattr(model, name)[...] = value
        data = mujoco.MjData(model)
        data.qpos[:] = model.qpos_spring
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_tendon(model, data)
        return np.array(data.ten_length)

    def _differentiable(self, fields: Mapping[str, Any]) -> Any:
        """The same by MJX."""
        import jax.numpy as jnp

        from dso_robotics.physics.backend import mjx, smooth

        model = self._on_device.replace(**{name: jnp.asarray(value) for name, value in fields.items()})
        data = mjx.make_data(model).replace(qpos=model.qpos_spring)
        return smooth.tendon(model, smooth.com_pos(model, smooth.kinematics(model, data))).ten_length

    @functools.cached_property
    def _on_device(self) -> Any:
        import jax

        from dso_robotics.physics.device import put_model

        model = self._bare()
        try:
            with jax.ensure_compile_time_eval():
                return put_model(model)
        except DsoError as error:
            named = ", ".join(f"'{model.tendon(i).name or i}'" for i in np.flatnonzero(self.automatic))
            raise DsoError(
                f"{self.robot.source}: the rest length of tendon {named} is the compiler's and follows the design, which "
                "needs MJX, and MJX cannot have this model even without its actuators, sensors and contacts; write "
                "springlength in metres in this tendon."
            ) from error

    def _bare(self) -> mujoco.MjModel:
        """The robot without what has no part in its kinematics, so that features that MJX lacks do not matter."""
        assert self.robot.spec is not None
        spec = self.robot.spec.copy()
        for things in (spec.actuators, spec.sensors, spec.equalities, spec.pairs, spec.keys):
            for thing in list(things):
                spec.delete(thing)
        plain, option = mujoco.MjOption(), spec.option
        for name in (
            "solver",
            "integrator",
            "noslip_iterations",
            "disableactuator",
            "enableflags",
            "density",
            "viscosity",
        ):
            setattr(option, name, getattr(plain, name))
        option.wind = plain.wind
        option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        model = spec.compile()
        for name in ("jnt_stiffnesspoly", "tendon_stiffnesspoly", "tendon_dampingpoly"):
            getattr(model, name)[...] = 0.0
        for name in _PATH:
            getattr(model, name)[...] = getattr(self.robot.mj, name)
        return model


def rest(robot: Robot, given: Iterable[int] = ()) -> Rest:
    """The rest lengths of `robot` but of tendons that are `given` one. Without a description, none is automatic."""
    automatic = np.zeros(robot.mj.ntendon, bool)
    for tendon in [] if robot.spec is None else robot.spec.tendons:
        automatic[tendon.id] = bool((np.asarray(tendon.springlength) == -1).all())
    automatic[list(given)] = False
    return Rest(robot, automatic)
