"""Joint friction by a law of one's own, in the C engine: what MuJoCo's constant dry friction and damping cannot say.

The law's numbers can be user data of the model's joints (`<size nuser_jnt="3"/>`, `<joint user="...">`): a field of the model
like others, of which every simulation of a batch may have its own values. MJX knows no such law.
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
    """What a law may look at, of N simulations before a step.

    qpos: (N, nq) [m, rad]; qvel: (N, nv) [m/s, rad/s]; bias: (N, nv) gravity, Coriolis and centrifugal forces [N, N m], with
    the sign they have on the left of the equation of motion; ctrl: (N, nu).
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


# (limit of the dry friction, applied force), each (N, nv) [N, N m] or None where the law leaves it as it is.
Law = Callable[[Moment], tuple[np.ndarray | None, np.ndarray | None]]


class FrictionEngine(BatchEngine):
    """The C engine that asks `law` for the friction of every step; it steps one at a time, so it is slower."""

    def __init__(self, model: mujoco.MjModel, law: Law, *, threads: int = 0):
        super().__init__(model, threads=threads)
        self._law, self._count = law, threads

    def simulate(self, fields: Mapping[str, np.ndarray], start: np.ndarray, ctrl: np.ndarray) -> Trajectories:
        """See `BatchEngine.simulate`."""
        model, (n, steps) = self.model, ctrl.shape[:2]
        fields = principal_fields(model, fields)
        engine = batch.Batch(model, n, self._count, persistent=True)
        for name, value in fields.items():
            if name != "jnt_user":  # the law's alone
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
            # A diverged simulation is reset or stops: its clock is not where it should be.
            going[:, k] = np.abs(engine.bind("time").ravel() / model.opt.timestep - (k + 1)) < 0.5
        going = np.logical_and.accumulate(going & np.isfinite(state).all(-1), axis=1)
        state = np.where(going[..., None], state, np.nan)
        sensordata = np.where(going[..., None], sensordata, np.nan)
        return Trajectories(sensordata, state, ~going[:, -1], touched)
