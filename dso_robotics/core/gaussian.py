"""State-noise chains x' = F(x, theta) + S^(1/2) xi, and linear-quadratic ones, whose value has a closed form."""

import functools

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain
from dso_robotics.core.gradient.bottleneck import BottleneckChain
from dso_robotics.errors import DsoError

Vector = Float[Array, " nx"]


class GaussianChain(Chain):
    """A chain with Gaussian state noise. A subclass defines `initial`, `drift`, `cost`, and the noise as a field or a method.

    `root(theta)` is S^(1/2), (nx, k): any matrix with S = root root^T. If it has fewer columns than rows, or is singular,
    log P exists for no parameter of the drift. Then `scored` is False everywhere, and score estimators raise DsoError.
    """

    def root(self, theta: Float[Array, " n"]) -> Float[Array, "nx k"]:
        """S^(1/2). By default the field `noise`."""
        noise = getattr(self, "noise", None)
        if noise is None:
            raise DsoError(f"{type(self).__name__}: give a field `noise` (nx, k), or define root(theta).")
        return noise if isinstance(noise, jax.Array) else jnp.asarray(noise)

    def draw(self, key: PRNGKeyArray, theta: Float[Array, " n"], steps: int) -> Float[Array, "steps k"]:
        """xi ~ N(0, I)."""
        root = jax.eval_shape(self.root, theta)
        return jax.random.normal(key, (steps, root.shape[1]), root.dtype)

    def move(self, noise: Float[Array, " k"], state: Vector, theta: Float[Array, " n"]) -> Vector:
        """F(x, theta) + S^(1/2) xi."""
        return self.drift(state, theta) + self.root(theta) @ noise

    def step(self, key: PRNGKeyArray, state: Vector, theta: Float[Array, " n"]) -> Vector:
        """F(x, theta) + S^(1/2) xi."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def inferred(self, following: Vector, state: Vector, theta: Float[Array, " n"]) -> Float[Array, " k"]:
        """The noise xi with which `move` goes from x to a recorded x': off-policy data as noise (stochastic value gradients).

        It is a constant: no derivative by theta. With it the recorded step can be differentiated as `move(xi, x, theta)`. If
        the noise has fewer dimensions than the state, it is the one that comes closest to x'.
        """
        deviation = jax.lax.stop_gradient(following - self.drift(state, theta))
        return jnp.linalg.lstsq(jax.lax.stop_gradient(self.root(theta)), deviation)[0]

    def log_prob(self, following: Vector, state: Vector, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """log N(x'; F(x, theta), S(theta))."""
        return gaussian_log(following - self.drift(state, theta), self.root(theta))

    def divergence(
        self, key: PRNGKeyArray, state: Vector, old: Float[Array, " n"], new: Float[Array, " n"]
    ) -> Float[Array, ""]:
        """KL(N(F_old, S_old) || N(F_new, S_new)) in closed form."""
        return gaussian_divergence(self.drift(state, old), self.root(old), self.drift(state, new), self.root(new))

    def scored(self, theta: Float[Array, " n"]) -> np.ndarray:
        """All entries if S has full rank, else none."""
        return np.full(np.shape(theta)[0], full_rank(type(self).root(self, theta)))


def full_rank(root: Float[Array, "nx k"]) -> bool:
    """Whether S = root root^T is invertible. If the values are traced, only the shape is checked."""
    if root.shape[1] < root.shape[0]:
        return False
    if isinstance(root, jax.core.Tracer):
        return True
    host = np.asarray(root)
    return _rank(host.tobytes(), host.dtype.str, host.shape) == root.shape[0]


@functools.lru_cache(maxsize=64)
def _rank(entries: bytes, kind: str, shape: tuple[int, ...]) -> int:
    """Rank of a matrix, cached: a descent asks for the same root before every gradient."""
    return int(np.linalg.matrix_rank(np.frombuffer(entries, kind).reshape(shape)))


def _triangle(root: Float[Array, "nx k"]) -> Float[Array, "nx nx"]:
    """The lower Cholesky factor of root root^T."""
    return jnp.linalg.cholesky(root @ root.T)


def gaussian_log(deviation: Vector, root: Float[Array, "nx k"]) -> Float[Array, ""]:
    """log N(deviation; 0, root root^T)."""
    factor = _triangle(root)
    size = deviation.shape[0]
    # The inverse of the factor does not depend on the state, so a batch of deviations costs one product.
    white = jsl.solve_triangular(factor, jnp.eye(size, dtype=factor.dtype), lower=True) @ deviation
    return -0.5 * white @ white - jnp.sum(jnp.log(jnp.diag(factor))) - 0.5 * size * jnp.log(2.0 * jnp.pi)


def gaussian_divergence(
    mean: Vector, root: Float[Array, "nx k"], other_mean: Vector, other_root: Float[Array, "nx k"]
) -> Float[Array, ""]:
    """KL(N(mean, root root^T) || N(other_mean, other_root other_root^T))."""
    factor, other = _triangle(root), _triangle(other_root)
    spread = jsl.solve_triangular(other, factor, lower=True)
    shift = jsl.solve_triangular(other, other_mean - mean, lower=True)
    logs = jnp.sum(jnp.log(jnp.diag(other))) - jnp.sum(jnp.log(jnp.diag(factor)))
    return 0.5 * (jnp.sum(spread**2) + shift @ shift - mean.shape[0]) + logs


class LinearQuadratic(GaussianChain, BottleneckChain):
    """x' = A x + B K x + S^(1/2) xi, L = x.Q x + (K x).R (K x), x0 ~ N(0, P0). theta holds the entries of K, row by row.

    The reference for tests of continuous chains: V(x) = x.M x + c, with M from a discrete Lyapunov equation.
    """

    a: Float[Array, "nx nx"]
    b: Float[Array, "nx nu"]
    q: Float[Array, "nx nx"]
    r: Float[Array, "nu nu"]
    noise: Float[Array, "nx k"]
    start: Float[Array, "nx nx"]

    def __check_init__(self) -> None:
        nx, nu = np.shape(self.b)
        for name, shape in {"a": (nx, nx), "q": (nx, nx), "r": (nu, nu), "start": (nx, nx)}.items():
            if np.shape(getattr(self, name)) != shape:
                raise DsoError(
                    f"{name}: expected shape {shape} to match b {nx, nu}, got {np.shape(getattr(self, name))}."
                )
        if np.ndim(self.noise) != 2 or np.shape(self.noise)[0] != nx:
            raise DsoError(f"noise: expected S^(1/2) with {nx} rows, got shape {np.shape(self.noise)}.")

    def gain(self, theta: Float[Array, " n"]) -> Float[Array, "nu nx"]:
        """K as a matrix."""
        return theta.reshape(self.b.shape[1], self.b.shape[0])

    def initial(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> Vector:
        """x0 ~ N(0, start start^T)."""
        return self.start @ jax.random.normal(key, (self.start.shape[1],), self.a.dtype)

    def bottleneck(self, state: Vector, theta: Float[Array, " n"]) -> Float[Array, " nu"]:
        """u = K x."""
        return self.gain(theta) @ state

    def drift(self, state: Vector, theta: Float[Array, " n"]) -> Vector:
        """A x + B K x."""
        return self.a @ state + self.b @ self.bottleneck(state, theta)

    def step(self, key: PRNGKeyArray, state: Vector, theta: Float[Array, " n"]) -> Vector:
        """A x + B u + S^(1/2) xi."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def step_through(self, key: PRNGKeyArray, state: Vector, h: Float[Array, " nu"]) -> Vector:
        """A x + B u + S^(1/2) xi with u = h."""
        return self.a @ state + self.b @ h + self.noise @ jax.random.normal(key, (self.noise.shape[1],), self.a.dtype)

    def cost_through(self, state: Vector, h: Float[Array, " nu"]) -> Float[Array, ""]:
        """x.Q x + u.R u with u = h."""
        return state @ self.q @ state + h @ self.r @ h

    def log_prob_through(self, following: Vector, state: Vector, h: Float[Array, " nu"]) -> Float[Array, ""]:
        """log N(x'; A x + B u, S) with u = h."""
        return gaussian_log(following - self.a @ state - self.b @ h, self.noise)

    def value_matrix(self, theta: Float[Array, " n"], gamma: float) -> Float[Array, "nx nx"]:
        """M = Q + K.R K + gamma (A + B K).M (A + B K), by one linear solve, differentiable in theta."""
        gain = self.gain(theta)
        return discounted_sum(self.a + self.b @ gain, self.q + gain.T @ self.r @ gain, gamma)

    def episodic_cost(self, theta: Float[Array, " n"], gamma: float) -> Float[Array, ""]:
        """J = tr(M P0) + gamma tr(M S) / (1 - gamma), for gamma < 1."""
        matrix = self.value_matrix(theta, gamma)
        return jnp.vdot(matrix, self.start @ self.start.T + gamma / (1.0 - gamma) * self.noise @ self.noise.T)

    def average_cost(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """J = tr(M S) with gamma = 1. The closed loop must be stable."""
        return jnp.vdot(self.value_matrix(theta, 1.0), self.noise @ self.noise.T)

    def horizon_cost(self, theta: Float[Array, " n"], steps: int) -> Float[Array, ""]:
        """J of the time-varying problem with L_t = L for t = 0..steps."""
        gain = self.gain(theta)
        loop, stage = self.a + self.b @ gain, self.q + gain.T @ self.r @ gain
        matrix, noise = stage, jnp.zeros(())
        for _ in range(steps):
            noise = noise + jnp.vdot(matrix, self.noise @ self.noise.T)
            matrix = stage + loop.T @ matrix @ loop
        return jnp.vdot(matrix, self.start @ self.start.T) + noise


def discounted_sum(loop: Float[Array, "nx nx"], stage: Float[Array, "nx nx"], gamma: float) -> Float[Array, "nx nx"]:
    """M = stage + gamma loop^T M loop. The squared spectral radius of the loop times gamma must be below 1."""
    size = loop.shape[0]
    system = jnp.eye(size * size) - gamma * jnp.kron(loop.T, loop.T)
    matrix = jnp.linalg.solve(system, stage.reshape(-1)).reshape(size, size)
    lowest = jnp.min(jnp.linalg.eigvalsh((matrix + matrix.T) / 2.0))
    unstable = ~(lowest >= -1e-6 * jnp.linalg.norm(matrix))
    return eqx.error_if(matrix, unstable, "The closed loop is unstable under this theta: its value is not finite.")


def log_slope_of_tanh(x: Float[Array, "*N n"]) -> Float[Array, "*N n"]:
    """log(1 - tanh(x)^2), without overflow: what squashing adds to a log-density."""
    return 2.0 * (jnp.log(2.0) - x - jax.nn.softplus(-2.0 * x))
