"""Joint friction by a user-defined law, in the C engine: for friction that is not MuJoCo's constant dry friction and damping.

The law's parameters can be user data of the model's joints (`<size nuser_jnt="3"/>`, `<joint user="...">`). This is a model
field like others, so every simulation of a batch can have its own values. The MJX engine does not support such a law.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco import batch

from dso_robotics.physics.batch import BatchEngine, Trajectories
from dso_robotics.physics.inertia import principal_fields


@dataclass(frozen=True, eq=False)
class Moment:
    """The arguments of a law: the state of N simulations before a step.

    qpos: (N, nq) [m, rad].
    qvel: (N, nv) [m/s, rad/s].
    bias: (N, nv) gravity, Coriolis and centrifugal forces [N, N m], with their sign on the left of the equation of motion.
    ctrl: (N, nu).
    model: the model.
    fields: model fields that differ by simulation, (N, *shape) each.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    bias: np.ndarray
    ctrl: np.ndarray
    model: mujoco.MjModel
    fields: Mapping[str, np.ndarray]

    def field(self, name: str) -> np.ndarray:
        """A model field of every simulation, (N or 1, *shape)."""
        return self.fields[name] if name in self.fields else np.asarray(getattr(self.model, name))[None]


# (limit of the dry friction, applied force), each (N, nv) [N, N m], or None if the law does not change it.
Law = Callable[[Moment], tuple[np.ndarray | None, np.ndarray | None]]


class FrictionEngine(BatchEngine):
    """The C engine with a friction law: calls `law` before every step. It simulates step by step, so it is slower."""

    def __init__(self, model: mujoco.MjModel, law: Law, *, threads: int = 0):
        super().__init__(model, threads=threads)
        self._law, self._count = law, threads

    def simulate(self, fields: Mapping[str, np.ndarray], start: np.ndarray, ctrl: np.ndarray) -> Trajectories:
        """See `BatchEngine.simulate`."""
        model, (n, steps) = self.model, ctrl.shape[:2]
        fields = principal_fields(model, fields)
        engine = batch.Batch(model, n, self._count, persistent=True)
        for name, value in fields.items():
            if name != "jnt_user":  # only the law reads it
                engine.expand(name)[:] = value
        engine.set_const()
        for name in ("body_sameframe", "geom_sameframe", "site_sameframe"):
            engine.expand(name)[:] = 0
        engine.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        qpos, qvel, limit = engine.bind("qpos"), engine.bind("qvel"), engine.expand("dof_frictionloss")
        force, bias = engine.bind("qfrc_applied"), engine.bind("qfrc_bias")
        qpos[:], qvel[:] = np.split(start[:, : model.nq + model.nv], [model.nq], axis=1)
        if model.na:
            engine.bind("act")[:] = start[:, model.nq + model.nv :]
        engine.forward(stage=mujoco.mjtStage.mjSTAGE_VEL)
        sensordata = np.empty((n, steps, model.nsensordata))
        state = np.empty((n, steps, start.shape[1]))
        names = ("qpos", "qvel", "act") if model.na else ("qpos", "qvel")
        going, touched = np.empty((n, steps), bool), np.zeros(n, bool)
        for k in range(steps):
            dry, applied = self._law(Moment(qpos, qvel, bias, ctrl[:, k], model, fields))
            if dry is not None:
                limit[:] = dry
            if applied is not None:
                force[:] = applied
            if model.nu:
                engine.bind("ctrl")[:] = ctrl[:, k]
            sensordata[:, k] = engine.bind("sensordata")
            engine.step(stage=mujoco.mjtStage.mjSTAGE_VEL)
            touched |= engine.bind("ncon").ravel() > 0
            state[:, k] = np.concatenate([engine.bind(name) for name in names], axis=1)
            # A diverged simulation is reset or stops, so its time is not the expected one.
            going[:, k] = np.abs(engine.bind("time").ravel() / model.opt.timestep - (k + 1)) < 0.5
        going = np.logical_and.accumulate(going & np.isfinite(state).all(-1), axis=1)
        state = np.where(going[..., None], state, np.nan)
        sensordata = np.where(going[..., None], sensordata, np.nan)
        return Trajectories(sensordata, state, ~going[:, -1], touched)
