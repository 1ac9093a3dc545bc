"""Training in action space: PCO and natural steps on windows that C MuJoCo plays, in threads.

Nothing is differentiated through the physics, so nothing of it is compiled. Advantages are A_t = (G_t - V(x_t)) / gamma with
the TD(lambda) returns G of the slow critic, brought to unit spread; the surrogate, its clip and the Fisher matrix are those of
the core (64-66, 69-74), on the density of the actions.
"""

import copy
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from mujoco import batch

from dso_robotics.core import curvature, surrogate
from dso_robotics.core.fitting import lambda_returns
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.natural import natural_direction
from dso_robotics.core.objective import Credit
from dso_robotics.core.rollout import Ending, Trajectory, settled
from dso_robotics.costs.task import Divergence
from dso_robotics.physics import step as physics
from dso_robotics.physics.batch import set_fields
from dso_robotics.robot.chain import RobotChain, RobotState
from dso_robotics.robot.observation import Scaling
from dso_robotics.studies.short_horizon import Learner, Moved, News, ShortHorizon


class CWindows:
    """Plays windows of one chain on C MuJoCo: a policy's decision is compiled, the physics is not."""

    def __init__(self, chain: RobotChain, *, threads: int = 0):
        self.chain, self._threads = chain, threads
        self._model = copy.copy(chain.mj)
        # A simulation that blows up is to say so, not to begin again.
        self._model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self._engine: batch.Batch | None = None
        self._decide: Any = jax.jit(self._decided)
        self._fields: Any = jax.jit(self._fields_of)

    def __call__(
        self, theta: Float[Array, "*E n"], scaling: Scaling, start: RobotState, noise: Float[Array, "E T nu"]
    ) -> RobotState:
        """States with leaves (E, T+1, ...) from `start` (E, ...) under the policy at theta, `noise` added to its actions.

        theta: (n,), or (E, n) with the policy and mechanism of each environment.
        """
        count, steps = noise.shape[:2]
        engine, model = self._ready(theta, start, count), self._model
        qpos, qvel, ctrl = engine.bind("qpos"), engine.bind("qvel"), engine.bind("ctrl")
        act, warmstart = engine.bind("act") if model.na else None, engine.bind("qacc_warmstart")
        state = jax.tree.map(np.asarray, start)
        qpos[:], qvel[:], warmstart[:] = state.body.qpos, state.body.qvel, state.body.warmstart
        if act is not None:
            act[:] = state.body.act
        states, draws = [state], np.asarray(noise)
        passed = self.chain.substeps * float(model.opt.timestep)
        for t in range(steps):
            chosen: Any = [np.asarray(part) for part in self._decide(theta, scaling, state, draws[:, t])]
            action, memory, queue, ctrl[:] = chosen
            engine.step(nstep=self.chain.substeps)
            now: dict[str, Any] = {"qpos": qpos.copy(), "qvel": qvel.copy(), "warmstart": warmstart.copy()}
            now |= {"act": state.body.act if act is None else act.copy(), "time": state.body.time + passed}
            state = RobotState(physics.State(**now), action, state.action, queue, memory, state.context)
            states.append(state)
        return jax.tree.map(lambda *leaves: np.stack(leaves, 1), *states)

    def _ready(self, theta: Array, start: RobotState, count: int) -> batch.Batch:
        """The engine at rest, each environment with the model of its theta and context."""
        if self._engine is None:
            self._engine = batch.Batch(self._model, count, self._threads)
        if self.chain.mechanism is not None:
            set_fields(self._engine, self._model, jax.tree.map(np.asarray, self._fields(theta, start.context)))
        self._engine.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        return self._engine

    def _decided(self, theta: Array, scaling: Scaling, states: RobotState, noise: Array) -> tuple[Array, ...]:
        """Actions (E, nu), memories, queues, and controls (E, nu) that are in force next."""
        chain = eqx.tree_at(lambda c: c.scaling, self.chain, scaling)

        def one(theta: Array, state: RobotState, draw: Array) -> tuple[Array, ...]:
            mean, memory = chain.act(state, theta)
            queue = jnp.concatenate([state.queue, (mean + draw)[None]])
            return mean + draw, memory, queue[1:], chain.squash(queue[0])

        return jax.vmap(one, in_axes=(_over(theta), 0, 0))(theta, states, noise)

    def _fields_of(self, theta: Array, contexts: Array) -> dict[str, Array]:
        chain, mechanism = self.chain, self.chain.mechanism
        assert mechanism is not None

        def one(theta: Array, context: Array) -> dict[str, Array]:
            return mechanism.fields(chain.numbers(theta), chain.context.physical(context))

        return jax.vmap(one, in_axes=(_over(theta), 0))(theta, contexts)


def _over(theta: Array) -> int | None:
    """The axis of environments that theta has, if it has one."""
    return 0 if theta.ndim == 2 else None


def _of_the_policy(price: Any) -> Callable[[Any], Array]:
    """The part of the price of a state that depends on theta: in action space, what the policy's own divergence costs."""
    parts = zip(getattr(price, "weights", ()), getattr(price, "parts", ()), strict=True)
    mine = [(weight, part) for weight, part in parts if isinstance(getattr(part, "part", part), Divergence)]
    return lambda scene: sum((weight * part(scene) for weight, part in mine), jnp.zeros(()))


class ActionSpace(ShortHorizon):
    """`ShortHorizon` whose windows C MuJoCo plays and whose steps are those of `settings.method`, "pco" or "natural"."""

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self.windows = CWindows(self.chain)
        self._noise: Any = jax.jit(self._draw)
        self._stand: Any = jax.jit(jax.vmap(self._begun_here, in_axes=(0, 0, None)))
        self._improve: Any = eqx.filter_jit(self._improved)
        self.step = self._played

    def compile(self, learner: Learner) -> Any:
        """`step`, with all that it compiles compiled."""
        self._played(learner)
        return self.step

    def _draw(self, theta: Array, key: PRNGKeyArray, iteration: Array) -> Array:
        chain = self._scheduled(self.chain, iteration / self.settings.iterations)
        shape = (self.settings.environments, self.settings.horizon, chain.mj.nu)
        return jnp.exp(chain.noise_scale(theta)) * jax.random.normal(jax.random.fold_in(key, 0), shape)

    def _played(self, learner: Learner) -> tuple[Learner, News]:
        noise = self._noise(learner.theta, learner.key, learner.iteration)
        states = self._stand(learner.states, learner.age == 0, learner.theta)
        return self._improve(learner, self.windows(learner.theta, learner.scaling, states, noise))

    def _begun_here(self, state: RobotState, new: Array, theta: Array) -> RobotState:
        return self._begun(self.chain, state, new, theta)

    def _improved(self, learner: Learner, states: RobotState) -> tuple[Learner, News]:
        s = self.settings
        key, step_key = jax.random.split(jax.random.fold_in(learner.key, 1))
        progress = learner.iteration / s.iterations
        chain = self._scheduled(self._chain(learner), progress)
        problem = eqx.tree_at(lambda p: p.chain, self.problem, chain)
        paths = jax.vmap(lambda window: settled(problem, window, self._costs(chain, learner.theta, window)))(states)
        batch = self._batch(learner, problem, paths)
        delta = (self._proximal if s.method == "pco" else self._natural)(step_key, batch, self._fallen(progress))
        finite = jnp.all(jnp.isfinite(delta))
        moved = Moved(learner.theta + jnp.where(finite, delta, 0.0), learner.optimiser, finite, jnp.linalg.norm(delta))
        return self._close(learner, key, paths, moved)

    def _costs(self, chain: RobotChain, theta: Array, window: RobotState) -> Float[Array, " T+1"]:
        before = jax.tree.map(lambda leaf: leaf[:-1], window)
        return jnp.append(jax.vmap(lambda state: chain.cost(state, theta))(before), 0.0)

    def _batch(self, learner: Learner, problem: Any, paths: Trajectory) -> Batch:
        """The windows as the core's methods take them: mean over moves, advantages of unit spread."""
        s, slow = self.settings, self._value(learner.slow, learner, learner.theta)
        returns = jax.vmap(lambda path: lambda_returns(path, self.objective, slow, lam=s.lam))(paths)
        here = jax.vmap(jax.vmap(slow))(jax.tree.map(lambda leaf: leaf[:, :-1], paths.states))
        usable = paths.moved & (paths.ending != Ending.DIVERGED)[:, None] & jnp.isfinite(returns[:, :-1])
        advantage = jnp.where(usable, (returns[:, :-1] - here) / s.gamma, 0.0)
        count = jnp.maximum(jnp.sum(usable), 1)
        mean = jnp.sum(advantage) / count
        spread = jnp.sqrt(jnp.sum(jnp.where(usable, (advantage - mean) ** 2, 0.0)) / count) + 1e-9
        advantage = jnp.where(usable, (advantage - mean) / spread, 0.0)
        weight = usable * (usable.size / count / s.horizon)
        own = eqx.tree_at(lambda p: p.chain.price, problem, _of_the_policy(self.chain.price))
        charged = jnp.concatenate([weight, jnp.zeros((s.environments, 1))], axis=1) / spread
        credit = Credit(charged, weight * s.gamma, returns, returns[:, 0])
        start = jnp.zeros(s.environments)
        paths, credit, advantage = jax.lax.stop_gradient((paths, credit, advantage))
        return Batch(own, learner.theta, paths, credit, advantage, start)

    def _proximal(self, key: PRNGKeyArray, batch: Batch, rate: Array) -> Array:
        s = self.settings
        sizes = {"learning_rate": s.learning_rate * rate, "divergence_limit": s.divergence}
        return surrogate.proximal_chain_optimization(key, batch, updates=s.updates, **sizes).delta

    def _natural(self, key: PRNGKeyArray, batch: Batch, rate: Array) -> Array:
        slope = jax.grad(lambda delta: surrogate.surrogate(batch, delta))(jnp.zeros_like(batch.theta))
        direction = natural_direction(
            lambda vector: curvature.divergence_product(batch, vector),
            slope,
            divergence_limit=self.settings.divergence * rate,
            iterations=self.settings.updates,
        )
        return direction.step
