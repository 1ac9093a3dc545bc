"""The parts of a robot system, and their numbers at theta."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain
from dso_robotics.parameters import theta as blocks
from dso_robotics.physics.c_model import OnEngine
from dso_robotics.physics.divergence import diverged
from dso_robotics.robot.context import Context
from dso_robotics.robot.filter_jax import JaxFilter
from dso_robotics.robot.mechanism import DIFFERENCE, Mechanism
from dso_robotics.robot.observation import Observation, Scaling
from dso_robotics.robot.placement import Placement
from dso_robotics.robot.planned import PLAN, Regulator
from dso_robotics.robot.policy import Policy
from dso_robotics.robot.scene import Scene
from dso_robotics.robot.sensing import Sensing
from dso_robotics.robot.squash import Squash
from dso_robotics.robot.system_state import Believes, RobotState, Sees, Theta
from dso_robotics.robot.watch import SENSORS, Watch, Wishes


class SystemParts(Chain):
    """The fields of a `RobotSystem`, which its docstring explains, and what of them depends on theta alone."""

    base: OnEngine
    policy: Policy
    observation: Observation
    scaling: Scaling
    squash: Squash
    start: Callable[[PRNGKeyArray], RobotState]
    scene_cost: Callable[[Scene], Array]
    layout: blocks.Theta = eqx.field(static=True)
    mechanism: Mechanism | None = eqx.field(static=True)
    mj: mujoco.MjModel = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    delay: int = eqx.field(static=True)
    context: Context = eqx.field(static=True, default=Context())
    see_design: bool = eqx.field(static=True, default=False)
    placement: Placement = eqx.field(static=True, default=Placement())
    termination: Callable[[Scene], Array] | None = None
    sensing: Sensing | None = eqx.field(static=True, default=None)
    filter: JaxFilter | None = None
    sees: Sees = eqx.field(static=True, default="state")
    believes: Believes = eqx.field(static=True, default="world")
    bound: tuple[OnEngine, Array | None] | None = None
    believed: tuple[OnEngine, Array | None] | None = None
    reality: tuple[Array, Array, Array, Array] | None = None
    anneal: Array | None = None
    anchor: Array | None = None
    watch: Watch | Wishes | None = eqx.field(static=True, default=None)
    plan: Regulator | None = eqx.field(static=True, default=None)

    @property
    def control_step(self) -> float:
        """Time of a control step [s]."""
        return self.substeps * float(self.mj.opt.timestep)

    @property
    def noises(self) -> int:
        """How many random numbers a step takes: one for each actuator and each channel of the sensors."""
        return self.mj.nu + (0 if self.sensing is None else self.sensing.size)

    def may_end(self) -> bool:
        """Whether there are scenes that end an episode."""
        return self.termination is not None

    def shown_readings(self, shown: Array | None) -> Float[Array, " ny"] | None:
        """The noise-free readings among what the watch reads; None on MJX."""
        if self.watch is None or self.sensing is None:
            return None
        return self.watch.of(shown, SENSORS, 0)[np.array(self.sensing.addresses, int)]

    def planned(self, theta: Theta) -> Theta:
        """Theta with the policy that is planned with the numbers of its block "plan", for the scaling of this chain."""
        if self.plan is None:
            return theta
        weights = self.plan.weights(self.layout.split(theta)[PLAN], self.scaling)
        return theta.at[self.layout.where("policy")].set(weights)

    def noise_scale(self, theta: Theta) -> Float[Array, " nu"]:
        """Logarithm of the actions' standard deviation: the block of theta plus the schedule's offset `anneal`."""
        scale = self.layout.split(theta)["action noise"]
        return scale if self.anneal is None else scale + self.anneal

    def numbers(self, theta: Theta) -> Array:
        """Values z of the mechanism at theta: physical parameters, sensor parameters, design parameters, in their units."""
        if self.mechanism is None:
            return jnp.zeros(0)
        values = self.layout.values(theta)
        return jnp.concatenate([jnp.zeros(0), *(values[name] for name in self.mechanism.groups)])

    def model(self, theta: Theta, state: RobotState | None = None) -> tuple[OnEngine, Array | None]:
        """The physical model at theta, and its products of inertia. The context is the state's; without a state, nominal."""
        if self.bound is not None:
            return self.bound
        if self.mechanism is None:
            return self.base, None
        drawn = None if state is None else self.context.physical(state.context)
        return self.mechanism.model(self.base, self.numbers(theta), drawn)

    def model_of_the_estimator(self, theta: Theta) -> tuple[OnEngine, Array | None]:
        """The physical model that the estimator predicts with. It does not know what an episode draws."""
        if self.believed is not None or self.mechanism is None:
            return (self.base, None) if self.believed is None else self.believed
        return self.mechanism.model_at(self.base, self.believed_parameters(theta), self.numbers(theta))

    def believed_parameters(self, theta: Theta) -> Array:
        """Parameters of the mechanism's `vector` that the estimator predicts with: the world's, its own or nominal ones."""
        z = self.numbers(theta)
        if self.mechanism is None or self.believes == "world":
            return z if self.mechanism is None else self.mechanism.parameters(z)
        own = self.layout.values(theta)["model"] if self.believes == "own" else None
        return self.mechanism.parameters_believed(z, own)

    def estimator(self, theta: Theta) -> tuple[dict[str, Array], Float[Array, " ny"]]:
        """The corrector's weights by block, and the log standard deviations of the whitened innovations."""
        assert self.filter is not None
        part, size = self.layout.split(theta)["corrector"], self.filter.corrector.size
        return self.filter.corrector.split(part[:size]), part[size:]

    def believed_numbers(self, theta: Theta) -> Array:
        """Numbers that the estimator's model depends on: z of the mechanism, then the block "model", if there is one."""
        own = [self.layout.values(theta)["model"]] if self.believes == "own" else []
        return jnp.concatenate([self.numbers(theta), *own])

    def believed_fields(self, numbers: Array) -> dict[str, Array]:
        """Fields of the estimator's model at `believed_numbers`."""
        mechanism = self.mechanism
        if mechanism is None:
            return {}
        z, own = numbers[: mechanism.size], numbers[mechanism.size :]
        if self.believes == "world":
            return mechanism.fields(z)
        return mechanism.fields_at(mechanism.parameters_believed(z, own if self.believes == "own" else None), z)

    @property
    def believed_difference(self) -> tuple[np.ndarray, np.ndarray]:
        """For each of `believed_numbers` the step of differences, and whether the estimator's model depends on it."""
        mechanism = self.mechanism
        if mechanism is None:
            return np.zeros(0), np.zeros(0, bool)
        steps, moves = mechanism.difference, mechanism.simulates
        if self.believes == "world":
            return steps, moves
        physics = [np.full(group.size, name == "physics") for name, group in mechanism.groups.items()]
        moves = moves & ~np.concatenate([np.zeros(0, bool), *physics])
        if self.believes == "nominal":
            return steps, moves
        own = mechanism.believed
        return np.append(steps, DIFFERENCE * np.asarray(own.scale)), np.append(moves, np.ones(own.size, bool))

    def sensors(self, theta: Theta, context: Array | None = None) -> tuple[Array, Array, Array]:
        """Scale, bias and delay [s] of each channel, (ny,), at theta; in an episode with `context`, else nominal."""
        assert self.sensing is not None
        if self.mechanism is None:
            return self.sensing.plain  # type: ignore[return-value]
        drawn = None if context is None else self.context.physical(context)
        return self.sensing.numbers(self.mechanism, self.numbers(theta), drawn)

    def diverged(self, state: RobotState) -> Bool[Array, ""]:
        """Whether a number is NaN or exceeds MuJoCo's limit, at which C MuJoCo resets the simulation."""
        flag = diverged(state.body)
        if state.estimated is None:
            return flag
        return flag | ~jnp.all(jnp.abs(state.estimated.belief.state) <= mujoco.mjMAXVAL)

    def scored(self, theta: Theta) -> np.ndarray:
        """Entries that affect only the action: its noise scales and some policy weights, not physics or memory weights."""
        noisy = {block.name: np.full(block.size, block.name == "action noise") for block in self.layout.free}
        parts = [self.policy.scored() if name == "policy" else flags for name, flags in noisy.items()]
        return np.concatenate([np.zeros(0, bool), *parts])

    def describe(self, entry: int) -> str:
        """Name of an entry of theta."""
        return self.layout.describe(entry)
