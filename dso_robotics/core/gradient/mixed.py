"""Combined gradients: score for some parameters and pathwise for others, or both for all, weighted by inverse variance."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import covered
from dso_robotics.core.gradient.estimate import Estimate, group_count
from dso_robotics.core.gradient.pathwise import pathwise
from dso_robotics.core.gradient.score import Baseline, Batch, NoBaseline, assemble, batch_gradient
from dso_robotics.core.objective import Problem, check_theta
from dso_robotics.core.value import Value


def mixed(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    count: int,
    by_score: np.ndarray,
    horizon: int | None = None,
    value: Value | None = None,
    baseline: Baseline | None = None,
    lam: float = 1.0,
    checkpoint: int | None = None,
    groups: int | None = None,
) -> tuple[Estimate, Batch]:
    """One unbiased gradient from one batch: score for the entries of the mask `by_score`, pathwise for the others.

    lam: of the score, see `score`.
    """
    check_theta(theta)
    chosen = covered(problem.chain, theta, by_score)
    through, path = pathwise(
        key, problem, theta, count=count, horizon=horizon, value=value, checkpoint=checkpoint, groups=groups
    )
    groups = group_count(count, theta.shape[0], groups)
    baseline = NoBaseline() if baseline is None else baseline
    batch = _assemble(problem, theta, path, baseline, lam)
    scored = _gradient(batch, jnp.asarray(chosen), groups)
    return Estimate(
        value=through.value,
        gradient=jnp.where(chosen, scored.gradient, through.gradient),
        standard_error=jnp.where(chosen, scored.standard_error, through.standard_error),
        value_error=through.value_error,
        samples=through.samples,
        diverged=jnp.maximum(scored.diverged, through.diverged),
        entries=jnp.ones(theta.shape[0], bool),
    ), batch


_assemble = eqx.filter_jit(assemble)


@eqx.filter_jit
def _gradient(batch: Batch, entries: Array, groups: int) -> Estimate:
    return batch_gradient(batch, entries=entries, groups=groups)


def combine(first: Estimate, second: Estimate, weights_from: tuple[Estimate, Estimate]) -> Estimate:
    """(1 - alpha) first + alpha second, with alpha = v0 / (v0 + v1) for each parameter; v are squared standard errors.

    The weights come from two other estimates, from earlier batches: weights from the same samples would bias the sum.
    `first` and `second` must use different keys, otherwise the standard error is wrong. If one estimate does not cover an
    entry, the other one has the full weight.
    """
    v0, v1 = (jnp.square(estimate.standard_error) for estimate in weights_from)
    alpha = jnp.where(v0 + v1 > 0.0, v0 / jnp.where(v0 + v1 > 0.0, v0 + v1, 1.0), 0.5)
    alpha = jnp.where(jnp.isfinite(alpha), alpha, 0.5)
    alpha = jnp.where(first.entries, jnp.where(second.entries, alpha, 0.0), 1.0)
    value_alpha = first.samples / (first.samples + second.samples)
    return Estimate(
        value=value_alpha * first.value + (1.0 - value_alpha) * second.value,
        gradient=(1.0 - alpha) * first.gradient + alpha * second.gradient,
        standard_error=jnp.hypot((1.0 - alpha) * first.standard_error, alpha * second.standard_error),
        value_error=jnp.hypot(value_alpha * first.value_error, (1.0 - value_alpha) * second.value_error),
        samples=first.samples + second.samples,
        diverged=first.diverged + second.diverged,
        entries=first.entries | second.entries,
    )
