"""Task costs (D-MDP): quantities of the robot made into non-negative numbers, and a product of tolerances."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.costs.quantity import Quantity
from dso_robotics.errors import DsoError
from dso_robotics.robot.scene import Scene

SIGMOIDS = ("gaussian", "linear", "quadratic", "long_tail")


class Term(eqx.Module):
    """A step cost: maps a scene to one number, which is small when the task is done well."""

    @abc.abstractmethod
    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The cost."""


def _number(target: float | Quantity, scene: Scene) -> float | Array:
    return target.read(scene) if isinstance(target, Quantity) else target


class When(Term):
    """A term that counts only in episodes whose task numbers have given values.

    part: the term.
    conditions: pairs of index and value.
    """

    part: Term
    conditions: tuple[tuple[int, float], ...] = eqx.field(static=True)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The term, or zero."""
        counts = jnp.stack([scene.task[index] == value for index, value in self.conditions])
        return jnp.where(jnp.all(counts), self.part(scene), 0.0)


class Square(Term):
    """Sum of ((q - target) / scale)^2."""

    quantity: Quantity = eqx.field(static=True)
    target: float | Quantity = eqx.field(static=True, default=0.0)
    scale: float = eqx.field(static=True, default=1.0)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The sum."""
        return jnp.sum(((self.quantity.read(scene) - _number(self.target, scene)) / self.scale) ** 2)


class Distance(Term):
    """Smooth distance sqrt(d^2 + a^2) - a between a point and a target, in units of `scale` [m].

    quantities: the coordinates that count.
    target: a number or a quantity for each coordinate.
    smooth: a [m]. The cost is quadratic for d below a and linear above.
    scale: unit of the distance [m].
    """

    quantities: tuple[Quantity, ...] = eqx.field(static=True)
    target: tuple[float | Quantity, ...] = eqx.field(static=True)
    smooth: float = eqx.field(static=True, default=0.05)
    scale: float = eqx.field(static=True, default=1.0)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The distance."""
        gaps = jnp.concatenate(
            [q.read(scene) - _number(t, scene) for q, t in zip(self.quantities, self.target, strict=True)]
        )
        return (jnp.sqrt(jnp.sum(gaps**2) + self.smooth**2) - self.smooth) / self.scale


class Hinge(Term):
    """Hinge loss max(0, target - q) / scale: the shortfall of a quantity below `target`, and zero above it."""

    quantity: Quantity = eqx.field(static=True)
    target: float | Quantity = eqx.field(static=True)
    scale: float = eqx.field(static=True, default=1.0)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The shortfall."""
        return jnp.sum(jnp.maximum(_number(self.target, scene) - self.quantity.read(scene), 0.0)) / self.scale


class Excess(Term):
    """Sum of (how far the quantity is below `low` or above `high`, over scale)^2; zero within."""

    quantity: Quantity = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    scale: float = eqx.field(static=True, default=1.0)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The sum."""
        numbers = self.quantity.read(scene)
        return jnp.sum((jnp.maximum(jnp.maximum(self.low - numbers, numbers - self.high), 0.0) / self.scale) ** 2)


class Factor(eqx.Module):
    """floor + (1 - floor) times the tolerance of a quantity.

    The tolerance is 1 between `low` and `high`, and `at_margin` at a distance of `margin` outside them.
    """

    quantity: Quantity = eqx.field(static=True)
    low: float = eqx.field(static=True, default=0.0)
    high: float = eqx.field(static=True, default=0.0)
    margin: float = eqx.field(static=True, default=1.0)
    at_margin: float = eqx.field(static=True, default=0.1)
    sigmoid: str = eqx.field(static=True, default="gaussian")
    floor: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        name = self.quantity.name
        if self.sigmoid not in SIGMOIDS:
            raise DsoError(f"{name}: there is no sigmoid '{self.sigmoid}'; choose one of {', '.join(SIGMOIDS)}.")
        if not self.margin > 0 or self.low > self.high or not 0 <= self.floor < 1:
            raise DsoError(f"{name}: a tolerance needs low <= high, a positive margin and a floor from 0 to below 1.")
        least = 0.0 if self.sigmoid in ("linear", "quadratic") else 1e-9
        if not least <= self.at_margin < 1:
            raise DsoError(f"{name}: at_margin must lie between 0 and 1 for a {self.sigmoid} tolerance.")

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The smallest tolerance over the quantity's numbers."""
        numbers = self.quantity.read(scene)
        away = jnp.maximum(jnp.maximum(self.low - numbers, numbers - self.high), 0.0) / self.margin
        return self.floor + (1.0 - self.floor) * jnp.min(sigmoid(away, self.at_margin, self.sigmoid))


def sigmoid(distance: Array, at_one: float, kind: str) -> Array:
    """A decay from 1 at distance 0 through `at_one` at distance 1, as dm_control's rewards use it."""
    if kind == "gaussian":
        return at_one ** (distance**2)
    if kind == "long_tail":
        return 1.0 / (1.0 + (1.0 / at_one - 1.0) * distance**2)
    fallen = 1.0 - (1.0 - at_one) * (distance if kind == "linear" else distance**2)
    return jnp.maximum(fallen, 0.0)


class PolicyTerm(Term):
    """A term that depends on theta at a given state: a cost of how the policy chooses its action."""


class Saturation(PolicyTerm):
    """Sum of max(0, |z| - free)^2 over the actuators, with the argument z of tanh that the policy gives in the state."""

    free: float = eqx.field(static=True)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The sum; zero without a policy."""
        if scene.reach is None:
            return jnp.zeros(())
        return jnp.sum(jnp.maximum(jnp.abs(scene.reach()) - self.free, 0.0) ** 2)


class Divergence(PolicyTerm):
    """KL divergence of the policy's action from that of the passive chain: the control cost of an L-MDP (21)."""

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The divergence."""
        if scene.divergence is None:
            raise DsoError("divergence: the scene has no policy whose actions could diverge.")
        return scene.divergence()


class Certainty(PolicyTerm):
    """KL divergence of the control from a uniform one: minus its entropy, and a constant: the cost of an H-MDP (19)."""

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The divergence."""
        if scene.certainty is None:
            raise DsoError("entropy: the scene has no policy whose actions could have an entropy.")
        return scene.certainty()


class Proximity(PolicyTerm):
    """KL divergence of an earlier policy's action from the policy's: the cost of an R-MDP (20).

    every: iterations of a training after which the earlier policy is replaced by the present one.
    """

    every: int = eqx.field(static=True, default=20)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The divergence."""
        if scene.proximity is None:
            raise DsoError("proximal: the scene has no policy that could stay near an earlier one.")
        return scene.proximity()


class Surprise(Term):
    """Negative log-likelihood of the reading under the estimator's prediction of it: the estimation cost (98)."""

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The sum over the channels."""
        if scene.surprise is None:
            raise DsoError("estimation: the system has no estimator that could predict a reading; add an [estimator].")
        return scene.surprise()


class Product(Term):
    """1 minus a product of tolerances: the cost for a reward between 0 and 1. A return of R in N steps is a cost of N - R."""

    factors: tuple[Factor, ...]

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """1 minus the reward."""
        reward = jnp.ones(())
        for factor in self.factors:
            reward = reward * factor(scene)
        return 1.0 - reward


class Function(Term):
    """Any JAX function of a scene that returns one number. `name` is for reports."""

    function: Callable[[Scene], Array] = eqx.field(static=True)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The function's number."""
        return jnp.reshape(self.function(scene), ())
