"""A robot, its sensors, its estimator and its policy as one `Chain` of the core: equations (95) to (100).

    x[t+1] = f(x[t], squash(u[t] + sigma_u xi_u))                 physics (96); the squashing is in `robot.squash`
    y[t+1] = scale h(x[t+1]) + bias + sigma_y xi_y                sensors; only if the system has `sensing`
    b[t+1] = c(f(b[t], squash(u[t])), y[t+1])                     estimator (99); only if the system has a `filter`
    u[t], m[t+1] = pi(o[t], m[t])                                 policy (100); o is of the state, the readings or the belief

One theta holds the parameters of all parts. `PassiveChain` is the chain without a policy (97).
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.physics import step as physics
from dso_robotics.physics.c_model import CModel, OnEngine
from dso_robotics.robot import noise as noises
from dso_robotics.robot.filter_jax import Belief, Forecast, shown
from dso_robotics.robot.scene import Scene
from dso_robotics.robot.system_parts import SystemParts
from dso_robotics.robot.system_state import Estimated, RobotState, Sensed, Theta
from dso_robotics.robot.watch import Watch, step_on_c


class RobotSystem(SystemParts):
    """The chain of a robot, its sensors, its estimator and its policy, made by `robot_system`.

    theta holds the free blocks of `layout` in the open chart: "policy", "physics", "sensor", "design", "action noise",
    "sensor noise", "corrector", "model". Noise blocks are logarithms of standard deviations. The block "corrector" holds the
    corrector's weights and the logarithms of the innovations' standard deviations, in units of `filter.scales.innovation`.
    The block "model" holds the physical parameters that the estimator predicts with, if they are its own.

    A control step is `substeps` steps of the model. The cost L(x) depends on the state after a step and the control that led
    to it, like a step reward.

    base: the model on its engine.
    watch: what costs and observations read of a simulated state, on the C engine, whose step is differentiated by
      `robot.replay`; None on MJX.
    anchor: an earlier theta, from whose policy `proximity` measures; None: there is no such policy.
    reality: sensor scale, bias, delay and log standard deviation, (ny,) each, of a real robot whose sensors are not those of
      theta; None to use theta's.
    """

    def bind(self, theta: Theta, state: RobotState | None = None) -> "RobotSystem":
        """The same chain with the physical models of theta computed once instead of in every step. Derivatives are kept.

        If physical parameters are drawn, the world's model is for the episode of `state`. Without `state`, it is not computed.
        """
        chain = self
        if self.mechanism is not None and not (self.context.physics and state is None):
            chain = eqx.tree_at(lambda c: c.bound, self, self.model(theta, state), is_leaf=lambda leaf: leaf is None)
        if self.filter is None or self.mechanism is None:
            return chain
        same = self.believes == "world" and not self.context.physics
        believed = chain.bound if same else self.model_of_the_estimator(theta)
        return eqx.tree_at(lambda c: c.believed, chain, believed, is_leaf=lambda leaf: leaf is None)

    def reading(self, state: RobotState, theta: Theta) -> Float[Array, " ny"]:
        """The noisy reading in this state."""
        assert self.sensing is not None
        assert state.sensed is not None
        if self.reality is not None:
            scale, bias, late, log_noise = self.reality
        else:
            scale, bias, late = self.sensors(theta, state.context)
            log_noise = self.layout.split(theta)["sensor noise"]
        exact = state.sensed.exact
        now = exact[0] if len(exact) == 1 else shown(exact, late / self.sensing.interval)
        return scale * now + bias + jnp.exp(log_noise) * state.sensed.noise

    def measured(self, body: physics.State, ctrl: Array, model: tuple[OnEngine, Array | None]) -> Float[Array, " ny"]:
        """Noise-free readings, without scale and bias, in a state under the control that led to it."""
        assert self.sensing is not None
        sensordata = physics.measure(model[0], body, ctrl, products=model[1])
        return sensordata[np.array(self.sensing.addresses, int)]

    def rest(self, qpos: Array | None = None, qvel: Array | None = None) -> RobotState:
        """The state at the start of an episode: no actions, empty memory, nominal context, an estimate equal to the state.

        `placed` sets the readings, which depend on theta.
        """
        body = physics.make_state(self.base, qpos, qvel)
        queue, memory = jnp.tile(self.squash.rest, (self.delay, 1)), jnp.zeros(self.policy.memory)
        sensed = estimated = None
        if self.sensing is not None:
            ny = self.sensing.size
            sensed = Sensed(jnp.zeros((self.sensing.oldest + 1, ny)), jnp.zeros(ny))
        if self.filter is not None and self.sensing is not None:
            state = jnp.concatenate([body.qpos, body.qvel, body.act])
            past = jnp.zeros((self.sensing.oldest, self.sensing.size))
            belief = Belief(state, jnp.zeros(self.filter.corrector.memory_size), past, self.squash(self.squash.rest))
            estimated = Estimated(belief, jnp.zeros(self.sensing.size), queue)
        context = jnp.asarray(self.context.rest)
        shown = None if self.watch is None else jnp.zeros(self.watch.size)
        home = self.squash(self.squash.rest)
        return RobotState(body, self.squash.rest, home, home, queue, memory, context, sensed, estimated, shown)

    def sound(self, state: RobotState) -> RobotState:
        """The state, or `rest()` if the state diverged. Derivatives computed from the result are then finite."""
        flag = self.diverged(state)
        return jax.tree.map(lambda here, rest: jnp.where(flag, rest, here), state, self.rest())

    def scene(self, state: RobotState, theta: Theta) -> Scene:
        """The scene that costs and observations use."""
        state = self.sound(state)
        controls = state.ctrl, state.before
        task = self.context.task(state.context)
        ahead = None if state.estimated is None else lambda: self.surprise(state, theta)
        shown = None if self.watch is None else functools.partial(self.watch.of, state.shown)
        more = lambda: self.strain(state, theta), ahead, shown
        own = {"certainty": lambda: self.certainty(state, theta), "proximity": lambda: self.proximity(state, theta)}
        own |= {"reach": lambda: self.reach(state, theta)}
        names = None if self.mechanism is None else self.mechanism.names
        named = None if names is None else lambda name: self.numbers(theta)[names.index(name)]
        model = functools.partial(self.model, theta, state)
        return Scene(self.mj, model, None, state.body, *controls, task, *more, **own, number=named)

    def surprise(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """Negative log-likelihood of the reading in this state, given the estimator's prediction of it, without constants."""
        assert self.filter is not None
        assert state.estimated is not None
        log_scale = self.estimator(theta)[1]
        error = state.estimated.innovation / self.filter.scales.innovation * jnp.exp(-log_scale)
        return jnp.sum(0.5 * error**2 + log_scale)

    def strain(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """KL divergence of the action at x from the action of the passive chain (97).

        Its noise scale is this chain's initial one; its mean gives zero control after squashing, clipped to the range.
        """
        passive = jnp.asarray(next(block.initial for block in self.layout.blocks if block.name == "action noise"))
        mean, _ = self.act(state, theta)
        return noises.divergence(mean, self.noise_scale(theta), self.squash.passive, passive)

    def certainty(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """KL divergence of the control at x from the uniform distribution over its range (see `noise.certainty`)."""
        return noises.certainty(self.act(state, theta)[0], self.noise_scale(theta), self.squash)

    def proximity(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """KL divergence of the action of the policy at `anchor` from this policy's action at x (20). Zero without an anchor."""
        if self.anchor is None:
            return jnp.zeros(())
        old = jax.lax.stop_gradient(theta)
        for block in self.layout.free:
            if block.name in ("policy", "action noise"):
                here = self.layout.where(block.name)
                old = old.at[here].set(jax.lax.stop_gradient(self.anchor)[here])
        return self.divergence(jax.random.key(0), state, old, theta)

    def act(self, state: RobotState, theta: Theta) -> tuple[Float[Array, " nu"], Float[Array, " m"]]:
        """The policy's action without noise, see `Squash`, and its next memory."""
        raw, memory = self._output(state, theta)
        return self.squash.mean(raw), memory

    def reach(self, state: RobotState, theta: Theta) -> Float[Array, " nu"]:
        """How far the policy reaches into the squashing in this state: the argument of tanh."""
        return self.squash.reach(self._output(state, theta)[0])

    def control(self, action: Float[Array, " nu"], state: RobotState) -> Float[Array, " nu"]:
        """The control that acts in the next step, after `action` was chosen: it may be late, and limited in its rate."""
        whole = jnp.concatenate([state.queue, action[None]])
        late = self.context.late(state.context)
        due = whole[0] if late is None else whole[self.delay - jnp.round(late).astype(int)]
        return self.squash.led(due, state.ctrl)

    def known(self, intended: Float[Array, " nu"], state: RobotState) -> Float[Array, " nu"]:
        """The control that the estimator knows of in the next step, after the action `intended` was chosen, without noise."""
        assert state.estimated is not None
        return self.squash.led(jnp.concatenate([state.estimated.queue, intended[None]])[0], state.ctrl)

    def foreseen(self, belief: Belief, ctrl: Float[Array, " nu"], theta: Theta) -> Forecast | None:
        """What the estimator predicts, if it was simulated outside. None: its filter simulates, without derivative on C."""
        return None

    def begun(self, start: Float[Array, " nx"], ctrl: Float[Array, " nu"], theta: Theta) -> Float[Array, " ny"] | None:
        """What delayed sensors show at first of an estimate, if it was simulated outside, see `JaxFilter.begin`."""
        return None

    def _output(self, state: RobotState, theta: Theta) -> tuple[Float[Array, " nu"], Float[Array, " m"]]:
        """The policy's output, and its next memory."""
        seen = self.scaling(self.observe(state, theta))
        state = self.sound(state)
        return self.policy(self.layout.split(theta)["policy"], seen, state.memory, state.body.time)

    def play(
        self,
        action: Float[Array, " nu"],
        memory: Array,
        state: RobotState,
        theta: Theta,
        *,
        intended: Float[Array, " nu"] | None = None,
        noise: Float[Array, " ny"] | None = None,
    ) -> RobotState:
        """The state one control step later. With a delay, the action chosen so many control steps ago acts, not `action`.

        intended: the action without noise, which the estimator knows; `action` by default.
        noise: standard normal noise of the next reading; zero by default.

        A diverged state is returned unchanged. The step then adds no derivative.
        """
        blown, given, state = self.diverged(state), state, self.sound(state)
        ctrl = self.control(action, state)
        body, exact, shown = self.simulated(state, ctrl, theta)
        more: dict[str, Any] = {"intended": intended, "noise": noise, "shown": shown}
        following = self.arrived(body, exact, action, memory, state, theta, **more)
        return jax.tree.map(lambda stays, moves: jnp.where(blown, stays, moves), given, following)

    def simulated(
        self, state: RobotState, ctrl: Float[Array, " nu"], theta: Theta
    ) -> tuple[physics.State, Float[Array, " ny"] | None, Float[Array, " w"] | None]:
        """The body one control step later, the noise-free readings there, and what the watch reads there.

        On the C engine this has no derivative.
        """
        model, products = self.model(theta, state)
        if isinstance(model, CModel):
            body, shown = step_on_c(self.watch, model.fields, state.body, ctrl, self.substeps)
            return body, self.shown_readings(shown), shown

        def once(body: physics.State, _: None) -> tuple[physics.State, None]:
            return physics.advance(model, body, ctrl, products=products), None

        if self.substeps == 1:
            body, _ = once(state.body, None)
        else:
            body, _ = jax.lax.scan(once, state.body, None, length=self.substeps)
        return body, None if self.sensing is None else self.measured(body, ctrl, (model, products)), None

    def arrived(
        self,
        body: physics.State,
        exact: Float[Array, " ny"] | None,
        action: Float[Array, " nu"],
        memory: Array,
        state: RobotState,
        theta: Theta,
        *,
        intended: Float[Array, " nu"] | None = None,
        noise: Float[Array, " ny"] | None = None,
        shown: Float[Array, " w"] | None = None,
        forecast: Forecast | None = None,
    ) -> RobotState:
        """The state after the physics has moved from `state` to `body`: queues, reading and belief.

        exact: noise-free readings in `body`, without scale and bias; None if the system has no `sensing`.
        forecast: what the estimator predicts, see `JaxFilter.update`.
        Other arguments are those of `play`.
        """
        queue = jnp.concatenate([state.queue, action[None]])
        parts = (
            body,
            action,
            self.control(action, state),
            state.ctrl,
            queue[1:],
            memory,
            state.context,
            None,
            state.estimated,
            shown,
        )
        following = RobotState(*parts)
        if state.sensed is None or exact is None:
            return following
        noise = jnp.zeros(exact.shape) if noise is None else noise
        sensed = Sensed(jnp.concatenate([exact[None], state.sensed.exact[:-1]]), noise)
        following = eqx.tree_at(lambda s: s.sensed, following, sensed, is_leaf=lambda leaf: leaf is None)
        if self.filter is None or state.estimated is None:
            return following
        intended = action if intended is None else intended
        queue, before = jnp.concatenate([state.estimated.queue, intended[None]]), state.estimated.belief
        model = (*self.model_of_the_estimator(theta), *self.sensors(theta))
        weights, _ = self.estimator(theta)
        reading = self.reading(following, theta)
        ctrl = self.known(intended, state)
        forecast = self.foreseen(before, ctrl, theta) if forecast is None else forecast
        belief, predicted, _ = self.filter.update(model, weights, before, ctrl, reading, forecast=forecast)
        estimated = Estimated(belief, reading - predicted, queue[1:])
        return eqx.tree_at(lambda s: s.estimated, following, estimated)

    def initial(self, key: PRNGKeyArray, theta: Theta) -> RobotState:
        """Sample a start."""
        return self.placed(self.start(key), theta)

    @property
    def places(self) -> bool:
        """Whether `placed` changes a start."""
        return bool(self.placement) or self.sensing is not None or self.watch is not None

    def placed(self, state: RobotState, theta: Theta) -> RobotState:
        """The drawn start at theta: with closed loops, on the floor if that is wished, with the readings of that state."""
        state = self.placement(self, self.watched(state, theta), theta)
        return self.read(self.watched(state, theta), theta)

    def watched(self, state: RobotState, theta: Theta) -> RobotState:
        """The state with what the watch reads in it, without derivative; the same on MJX."""
        if not isinstance(self.watch, Watch):
            return state
        shown = step_on_c(self.watch, self.model(theta, state)[0].fields, state.body, state.ctrl, 0)[1]
        return eqx.tree_at(lambda s: s.shown, state, shown)

    def started(self, state: RobotState, theta: Theta) -> RobotState:
        """A state at which a window begins. A replayed chain adds what the watch reads there."""
        return state

    def read(self, state: RobotState, theta: Theta, *, begun: Float[Array, " ny"] | None = None) -> RobotState:
        """The state with noise-free readings of it, as if the robot had rested there before, and a valid estimate.

        begun: see the function of this name, which gives it by default.
        """
        if state.sensed is None:
            return state
        ctrl = state.ctrl
        exact = self.shown_readings(state.shown)
        exact = self.measured(state.body, ctrl, self.model(theta, state)) if exact is None else exact
        state = eqx.tree_at(lambda s: s.sensed.exact, state, jnp.broadcast_to(exact, state.sensed.exact.shape))
        if self.filter is None or state.estimated is None:
            return state
        model = (*self.model_of_the_estimator(theta), *self.sensors(theta))
        start = self.filter.system.move(state.estimated.belief.state, jnp.zeros(self.filter.corrector.k))
        begun = self.begun(start, ctrl, theta) if begun is None else begun
        return eqx.tree_at(lambda s: s.estimated.belief, state, self.filter.begin(model, start, ctrl, begun))

    def draw(self, key: PRNGKeyArray, theta: Theta, steps: int) -> Float[Array, "steps noises"]:
        """Standard normal noise for the actions and, if the system has sensors, for their readings."""
        return jax.random.normal(key, (steps, self.noises))

    def move(self, noise: Float[Array, " noises"], state: RobotState, theta: Theta) -> RobotState:
        """f(x, pi(x) + scale noise), and the noisy reading of the next state."""
        (mean, memory), nu = self.act(state, theta), self.mj.nu
        action = mean + jnp.exp(self.noise_scale(theta)) * noise[:nu]
        if self.sensing is None:
            return self.play(action, memory, state, theta)
        return self.play(action, memory, state, theta, intended=mean, noise=noise[nu:])

    def step(self, key: PRNGKeyArray, state: RobotState, theta: Theta) -> RobotState:
        """`move` with fresh noise."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def drift(self, state: RobotState, theta: Theta) -> RobotState:
        """f(x, pi(x)), with a reading without noise."""
        return self.play(*self.act(state, theta), state, theta)

    def cost(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """The cost of the scene."""
        return self.scene_cost(self.scene(state, theta))

    def terminal(self, state: RobotState) -> Bool[Array, ""]:
        """Whether the episode ends in this state. A chain whose model depends on theta must be bound to one."""
        if self.termination is None:
            return jnp.zeros((), bool)
        assert self.mechanism is None or self.bound is not None
        return self.termination(self.scene(state, jnp.asarray(self.layout.initial)))

    def log_prob(self, following: RobotState, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """Log-density of the action that was applied."""
        mean, _ = self.act(state, theta)
        return noises.log_density(following.action - mean, self.noise_scale(theta))

    def divergence(self, key: PRNGKeyArray, state: RobotState, old: Theta, new: Theta) -> Float[Array, ""]:
        """KL divergence between the action distributions of two thetas at x, in closed form."""
        (mean, _), (other, _) = self.act(state, old), self.act(state, new)
        return noises.divergence(mean, self.noise_scale(old), other, self.noise_scale(new))

    def observe(self, state: RobotState, theta: Theta) -> Float[Array, " size"]:
        """The unscaled policy input at x: observation, task and, with `see_design`, physical and design parameters."""
        seen = self.seen(state, theta)
        if not self.context.size and not self.see_design:
            return seen
        context = self.context.normalised(self.sound(state).context)
        if not self.see_design:
            return jnp.concatenate([seen, self.context.task(context)])
        own = jnp.zeros(0) if self.mechanism is None else self.mechanism.normalised(self.numbers(theta))
        return jnp.concatenate([seen, context, own])

    def seen(self, state: RobotState, theta: Theta) -> Float[Array, " o"]:
        """The observation: of the state, of the noisy readings, or of the estimate in the place of the state."""
        if self.sees == "state":
            return self.observation(self.scene(state, theta))
        state = self.sound(state)
        if self.sees == "readings":
            return self.reading(state, theta)
        assert state.estimated is not None
        nq, nv, belief = self.mj.nq, self.mj.nv, state.estimated.belief.state
        model, products = self.model_of_the_estimator(theta)
        body = eqx.tree_at(
            lambda b: (b.qpos, b.qvel, b.act), state.body, (belief[:nq], belief[nq : nq + nv], belief[nq + nv :])
        )
        more = state.ctrl, state.before, self.context.task(state.context)
        return self.observation(Scene(self.mj, model, products, body, *more))
