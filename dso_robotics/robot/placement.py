"""Places a drawn start at theta: its loops closed, on the floor. The estimate is moved along."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from dso_robotics.physics import loop
from dso_robotics.robot.closing import Closing
from dso_robotics.robot.lift import Lift
from dso_robotics.robot.system_state import RobotState


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """What moves a start. closing: closes loops, if there are any. lift: puts the robot on the floor, if asked for."""

    closing: Closing | None = None
    lift: Lift | None = None

    def __bool__(self) -> bool:
        return self.closing is not None or self.lift is not None

    def __call__(self, chain: Any, state: RobotState, theta: Any) -> RobotState:
        """The start `state` of `chain` at theta."""
        nq, nv = chain.mj.nq, chain.mj.nv
        if self.closing is not None:
            model = _fields(chain, state, theta)
            state = _at(state, *self.closing(model, state.body.qpos, state.body.qvel))
            if state.estimated is not None:
                believed = state.estimated.belief.state
                found = self.closing(model, believed[:nq], believed[nq : nq + nv])
                state = _believing(state, jnp.concatenate([*found, believed[nq + nv :]]))
        if self.lift is not None:
            qpos = self.lift(chain.scene(state, theta))
            moved = qpos - state.body.qpos
            state = _at(state, qpos, state.body.qvel)
            if state.estimated is not None:
                state = _believing(state, state.estimated.belief.state.at[:nq].add(moved))
        return state


def _fields(chain: Any, state: RobotState, theta: Any) -> Any:
    """The model at theta, or the fields that loops depend on, where nothing has to be derived for them."""
    mechanism = chain.mechanism
    if chain.bound is not None or mechanism is None or mechanism.vector is not None:
        return chain.model(theta, state)[0]
    fields = mechanism.design_fields(chain.numbers(theta))
    return {name: fields.get(name, getattr(chain.base, name)) for name in loop.FIELDS}


def _at(state: RobotState, qpos: Any, qvel: Any) -> RobotState:
    return eqx.tree_at(lambda s: (s.body.qpos, s.body.qvel), state, (qpos, qvel))


def _believing(state: RobotState, belief: Any) -> RobotState:
    return eqx.tree_at(lambda s: s.estimated.belief.state, state, belief)
