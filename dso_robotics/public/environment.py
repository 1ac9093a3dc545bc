"""A study's chain as a Gymnasium environment, so that any library for reinforcement learning trains on it.

>>> env = gymnasium.make(dso.Environment.register("swing_up.toml"))          # doctest: +SKIP
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.public.computing import computing
from dso_robotics.robot.play import Player, Running
from dso_robotics.robot.policy import TimedPolicy
from dso_robotics.studies.train_build import Task, build
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.studies.trained_robot import compiled

_PLACE = f"{__name__}:Environment"
_WIDTH, _HEIGHT = 640, 480
# As part of half the range: how close to its end a control has a finite inverse of the squash.
_INSIDE = 2e-16


class Environment(gymnasium.Env):
    """The chain of a study of `dso train`, step by step on C MuJoCo. Rewards are minus the costs of the study.

    study: a study file (TOML) or a `TrainStudy`.
    render_mode: "rgb_array" or None.

    Observation, (o,): what the study's policy sees, without scaling; task numbers and time features are part of it.
    Action, (nu,): controls in the actuators' units, as `dso.Policy.act` gives them, held for a control step. They are clipped
      to the actuators' ranges. A [policy] delay of the study is part of the environment.
    Reward: minus the study's cost of the step. The rewards of an episode add up to minus the cost that `dso train` reports.
    Terminated: a bound of [terminate] is broken. Its cost is in the reward.
    Truncated: the study's `seconds` are over, or the simulation diverged; `info["diverged"]` tells which. A diverged step
      has the observation and reward of the step before.

    Number k of the episodes that `dso train` judges starts as `reset(seed=k)` does. Free parameters and designs have their
    initial values. Numbers of [task] and [randomise] are drawn by `reset`, or given as `options={"context": numbers}`.

    Raises:
      DsoError: something is wrong with the study, or the package gymnasium or JAX is missing.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, study: "str | os.PathLike[str] | TrainStudy", *, render_mode: str | None = None):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise DsoError(f"render_mode: expected 'rgb_array' or None, got {render_mode!r}.")
        self.render_mode = render_mode
        with computing(jax=True):
            read = study if isinstance(study, TrainStudy) else TrainStudy.read(Path(study))
            self.task: Task = build(read)
            self._prepare()

    def _prepare(self) -> None:
        task, chain = self.task, self.task.chain
        if not task.rolls:
            raise DsoError(f"{task.study.source}: no cost is of the motion, so an episode has no reward; add one.")
        scene_cost: Any = task.scene_cost
        if scene_cost.policy_names:
            raise DsoError(
                f"{task.study.source}: cost.{scene_cost.policy_names[0]} is of the policy itself, and an environment has "
                "none; leave it out."
            )
        self.theta = np.asarray(chain.layout.initial)
        self._player, self._now, self._renderer = Player(chain), None, None
        self._model: Any = None if chain.context.physics else compiled(task, self.theta)

        def look(theta: Any, state: Any) -> tuple[Any, Any, Any]:
            here = chain.bind(theta, state)
            seen, time = here.observe(state, theta), state.body.time
            if isinstance(chain.policy, TimedPolicy):
                seen = jnp.concatenate([seen, chain.policy.features(time)])
            terms: Any = chain.scene_cost
            return seen, terms.terms(here.scene(state, theta)), here.terminal(state)

        self._look: Any = jax.jit(look)
        low, high = np.asarray(chain.mj.actuator_ctrlrange).T
        limited = np.asarray(chain.squash.limited)
        ends = np.where(limited, low, -np.inf), np.where(limited, high, np.inf)
        size = int(jax.eval_shape(look, jnp.asarray(self.theta), chain.rest())[0].shape[0])
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = gymnasium.spaces.Box(*ends, dtype=np.float64)
        self.metadata = {**self.metadata, "render_fps": max(round(1.0 / self.control_step), 1)}

    @classmethod
    def register(cls, study: "str | os.PathLike[str]", name: str | None = None) -> str:
        """Register a study file for `gymnasium.make`, and return its id, "dso/NAME". By default NAME is that of the file.

        Raises:
          DsoError: there is no such file, or the name has a sign that Gymnasium does not take.
        """
        path = Path(study).resolve()
        name = path.stem if name is None else name
        if not path.is_file():
            raise DsoError(f"{study}: there is no such study file.")
        if not re.fullmatch(r"[\w.-]+", name):
            raise DsoError(
                f"name: Gymnasium takes letters, digits, '_', '-' and '.', got {name!r}; give a name of these."
            )
        known = f"dso/{name}"
        gymnasium.register(known, entry_point=_PLACE, kwargs={"study": str(path)})
        return known

    @property
    def control_step(self) -> float:
        """Time of a control step [s]."""
        return self.task.chain.control_step

    @property
    def data(self) -> mujoco.MjData:
        """The simulation of the present episode, to be read."""
        return self._running.data

    @property
    def _running(self) -> Running:
        if self._now is None:
            raise DsoError("the environment has no episode yet; call reset() first.")
        return self._now

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode. Returns the first observation (o,), and the numbers of the episode by name.

        options: "context" gives these numbers, in the order in which they are returned.
        """
        super().reset(seed=seed)
        start = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        context = (options or {}).get("context")
        task, chain = self.task, self.task.chain
        if context is not None:
            context = np.asarray(context, float)
            if context.shape != (chain.context.size,):
                raise DsoError(f"context: expected {chain.context.size} numbers, got shape {context.shape}.")
        with computing(jax=True):
            model = self._model
            if model is None:
                self.close()  # the picture is of the model of one episode
                context = np.asarray(self._player.start(self.theta, start, context).context)
                model = compiled(task, self.theta, context)
            self._now = Running(self._player, self.theta, chain.scaling, seed=start, model=model, context=context)
            self._noise, self._steps = np.random.default_rng(start), 0
            seen, _, ends = self._look(self.theta, self._now.state)
        if ends:
            raise DsoError(
                f"{task.study.source}: the start state itself ends the episode; widen the bounds in [terminate], or start "
                "elsewhere."
            )
        self._last = np.array(seen), np.zeros(len(task.scene_cost.names))
        drawn = (*chain.context.tasks, *chain.context.physics)
        return self._last[0].copy(), dict(
            zip([draw.name for draw in drawn], map(float, self._now.state.context), strict=True)
        )

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step. Returns observation, reward, terminated, truncated, and the cost of each term by name."""
        now, chain = self._running, self.task.chain
        given = np.asarray(action, float)
        if given.shape != (chain.mj.nu,) or not np.isfinite(given).all():
            raise DsoError(f"action: expected {chain.mj.nu} finite controls, got {given}.")
        with computing(jax=True):
            draws = self._noise.standard_normal(chain.noises)
            sound = now.step(chain.squash.action(jnp.asarray(given), _INSIDE), noise=draws[chain.mj.nu :])
            terminated, diverged = False, not sound
            if sound:
                seen, terms, ends = self._look(self.theta, now.state)
                diverged = not (np.isfinite(seen).all() and np.isfinite(terms).all())
                if not diverged:
                    self._last, terminated = (np.array(seen), np.asarray(terms)), bool(ends)
        self._steps += 1
        seen, terms = self._last
        costs = dict(zip(self.task.scene_cost.names, map(float, terms), strict=True))
        over = diverged or self._steps >= self.task.steps
        return seen.copy(), -float(terms.sum()), terminated, over, {"cost": costs, "diverged": diverged}

    def render(self) -> np.ndarray | None:
        """A picture of the present state, (480, 640, 3); None without a render mode."""
        if self.render_mode is None:
            return None
        now = self._running
        if self._renderer is None:
            self._renderer = mujoco.Renderer(now.model, _HEIGHT, _WIDTH)
        self._renderer.update_scene(now.data)
        return self._renderer.render()

    def close(self) -> None:
        """Free what `render` needs."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
