"""The C engine: many parameter values, start states and control sequences in one call of `mujoco.batch`.

Nothing is compiled and no model is rebuilt. Parameters are model fields that differ by simulation. mj_setConst follows where
MuJoCo derives constants from such a field.
"""

import copy
import dataclasses
from collections.abc import Mapping

import mujoco
import numpy as np
from mujoco import batch

from dso_robotics.errors import DsoError
from dso_robotics.physics.inertia import principal_fields

# A call runs at most this many simulations at once, so that memory does not grow with the number of parameters.
_PIECE = 4096
_MOVED = 1e-9  # [m], or change of a unit axis; less is rounding


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Outcome of N simulations over T steps of the model's own `timestep`.

    sensordata: (N, T, nsensordata), read at the start of each step, so row 0 belongs to the start state.
    state: (N, T, nq+nv+na), qpos [m, rad], qvel, act after each step.
    ended: (N,), True where the simulation diverged; its rows are NaN from that step on.
    touched: (N,), True where there was a contact at any time.
    """

    sensordata: np.ndarray
    state: np.ndarray
    ended: np.ndarray
    touched: np.ndarray


def set_fields(
    engine: batch.Batch, model: mujoco.MjModel, fields: Mapping[str, np.ndarray], *, repeat: int = 1
) -> None:
    """Set the model fields (N, *shape) of each simulation of `engine`, and the constants derived from them.

    The engine has `repeat` adjacent simulations for each row.
    """
    derived = False
    for name, value in principal_fields(model, fields).items():
        engine.expand(name)[:] = np.repeat(value, repeat, axis=0)
        derived |= name in mujoco.MjModel._setconst_inputs or name.startswith("opt.")
    if derived:
        engine.set_const()
        # mj_setConst treats frames that differ by less than a tolerance as equal. A geom at its body's centre of mass
        # would then follow a small change of that centre, which would make finite differences wrong.
        for name in ("body_sameframe", "geom_sameframe", "site_sameframe"):
            engine.expand(name)[:] = 0


def without_reset(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of the model with which MuJoCo does not silently reset a diverged simulation: it stays NaN, or huge."""
    made = copy.copy(model)
    made.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    return made


def model_with(model: mujoco.MjModel, fields: Mapping[str, np.ndarray]) -> mujoco.MjModel:
    """A model with other fields (*shape), and the constants derived from them, as `set_fields` sets them."""
    engine = batch.Batch(model, 1, 1)
    set_fields(engine, model, {name: np.asarray(value)[None] for name, value in fields.items()})
    return engine.get_model(0)


class BatchEngine:
    """Simulates one model with many values of its fields at once, in float64, on several threads."""

    def __init__(self, model: mujoco.MjModel, *, threads: int = 0):
        self.model = model
        self._threads = threads
        self._batches: dict[int, batch.Batch] = {}

    def simulate(self, fields: Mapping[str, np.ndarray], start: np.ndarray, ctrl: np.ndarray) -> Trajectories:
        """Simulate N starts.

        Args:
          fields: model fields, (N, *shape) each, named as in `MjModel`. "body_inertia_full" (N, nbody, 3, 3) [kg m^2], in
            body axes about the centre of mass, replaces body_inertia and body_iquat. Its NaN rows keep the model's values.
          start: (N, nq+nv+na).
          ctrl: (N, T, nu), held during each step.

        Raises:
          DsoError: a joint or centre of mass moves in a body that MuJoCo compiled as simple (see `without_shortcuts`).
        """
        self._refuse_shortcuts(fields)
        n, steps = ctrl.shape[:2]
        results = [
            self._piece({k: v[i : i + _PIECE] for k, v in fields.items()}, start[i : i + _PIECE], ctrl[i : i + _PIECE])
            for i in range(0, n, _PIECE)
        ]
        if not results:
            model = self.model
            width = model.nq + model.nv + model.na
            none = np.zeros(0, bool)
            return Trajectories(np.zeros((0, steps, model.nsensordata)), np.zeros((0, steps, width)), none, none)
        parts = (np.concatenate([getattr(r, f.name) for r in results]) for f in dataclasses.fields(Trajectories))
        return Trajectories(*parts)

    def _refuse_shortcuts(self, fields: Mapping[str, np.ndarray]) -> None:
        model = self.model
        simple = np.array(model.body_simple)  # 1: inertial frame at the joint; 2: slides along the axes
        simple[0] = 0  # nothing depends on the frames of the world body
        rows = {
            "body_ipos": simple == 1,
            "jnt_pos": simple[model.jnt_bodyid] == 1,
            "jnt_axis": simple[model.jnt_bodyid] != 0,
        }
        for name in rows.keys() & fields.keys():
            change = np.abs(np.asarray(fields[name]) - np.asarray(getattr(model, name)))
            moved = rows[name] & (change > _MOVED).any((0, 2))
            if moved.any():
                index = int(np.flatnonzero(moved)[0])
                body = index if name == "body_ipos" else int(model.jnt_bodyid[index])
                raise DsoError(
                    f"{name} moves in body '{model.body(body).name}', which MuJoCo compiled as simple. MuJoCo computes such a "
                    'body by shortcuts, which would then be wrong; write simple="false" in this <body>.'
                )

    def _piece(self, fields: Mapping[str, np.ndarray], start: np.ndarray, ctrl: np.ndarray) -> Trajectories:
        model, (n, steps) = self.model, ctrl.shape[:2]
        engine = self._batch(n)
        set_fields(engine, model, fields)
        engine.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        engine.bind("qpos")[:] = start[:, : model.nq]
        engine.bind("qvel")[:] = start[:, model.nq : model.nq + model.nv]
        if model.na:
            engine.bind("act")[:] = start[:, model.nq + model.nv :]
        items = ["sensordata", "qpos", "qvel", "ncon", mujoco.mjtState.mjSTATE_TIME] + (["act"] if model.na else [])
        if not model.nsensordata:
            items.remove("sensordata")
        out = engine.rollout(steps, control=np.ascontiguousarray(ctrl) if model.nu else None, record=items)
        state = np.concatenate([out[k] for k in ("qpos", "qvel", "act") if k in out], -1)
        sensordata = out.get("sensordata", np.zeros((n, steps, 0)))
        # A diverged simulation stops stepping and repeats its records, so its time does not advance.
        clock = out[mujoco.mjtState.mjSTATE_TIME].reshape(n, steps)
        going = clock > (np.arange(steps) + 0.5) * model.opt.timestep
        going &= np.isfinite(state).all(-1)
        going = np.logical_and.accumulate(going, axis=1)
        ended = ~going[:, -1]
        if ended.any():
            state = np.where(going[..., None], state, np.nan)
            sensordata = np.where(going[..., None], sensordata, np.nan)
        return Trajectories(sensordata, state, ended, np.any(out["ncon"].reshape(n, steps), axis=1))

    def _batch(self, n: int) -> batch.Batch:
        if n not in self._batches:
            if len(self._batches) > 4:
                self._batches.clear()
            self._batches[n] = batch.Batch(self.model, n, self._threads)
        return self._batches[n]
