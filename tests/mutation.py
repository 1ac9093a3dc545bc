"""Does a test notice? Each line of MUTATIONS breaks one line of a copy of the package, and its tests must then fail.

    python tests/mutation.py [WORD ...]

runs those whose file or name holds a WORD, all by default, prints the ones that no test noticed and exits with status 1
where there are any. It takes about ten seconds a mutation and is not part of the test run.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Mutation(NamedTuple):
    """A line of `file` (below dso_robotics/) with `old` replaced by `new`; each of `tests` (below tests/) must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


ENUMERATION, ZLEARNING, EXACT = "core/test_enumeration.py", "core/test_zlearning.py", "core/test_exact.py"
START = f"{ENUMERATION}::test_hessian_where_the_start_depends_on_theta"
STARTS = f"{EXACT}::test_gradient_and_hessian_where_the_start_depends_on_theta"
NOTHING = "robot/test_robot_system.py::test_a_policy_that_does_nothing_plays_no_control_clipped_to_the_range"
SLOPES = "physics/test_window_slopes.py"
CRITIC = "core/test_gradient.py::test_the_critic_at_the_end_of_a_window_is_discounted_to_its_time"

MUTATIONS = (
    Mutation(
        "survival counted as a weight",
        "core/curvature.py",
        "batch.credit.move_weight / batch.problem.objective.gamma",
        "batch.credit.move_weight / batch.problem.objective.discount",
        (f"{ENUMERATION}::test_fisher_products_under_random_ends",),
    ),
    Mutation(
        "radius of the natural step under random ends",
        "core/method/natural.py",
        "axis=1)) / batch.problem.objective.gamma",
        "axis=1)) / batch.problem.objective.discount",
        (f"{ENUMERATION}::test_the_natural_step_has_the_kl_it_promises_under_random_ends",),
    ),
    Mutation(
        "start left out of the sampled Hessian",
        "core/curvature.py",
        "if starts and not isinstance(batch.problem.objective, Average):",
        "if False:",
        (START,),
    ),
    Mutation(
        "start left out of the exact Hessian",
        "core/exact.py",
        "cross = cross + jax.jacfwd(lambda t: _start_mass(problem, t))(theta).T @ value_slope",
        "cross = cross + 0.0",
        (f"{STARTS}[objective0]",),
    ),
    Mutation(
        "start left out of Theorem 1",
        "core/exact.py",
        " + _start_mass(problem, t) @ ahead\n",
        "\n",
        (f"{STARTS}[objective0]",),
    ),
    Mutation(
        "start left out of Theorem 3",
        "core/exact.py",
        "jax.grad(lambda t: _start_mass(problem, t) @ ahead[0])(theta)",
        "jnp.zeros_like(theta)",
        (f"{STARTS}[objective1]",),
    ),
    Mutation(
        "start taken as constant",
        "core/finite.py",
        "if type(self).log_initial is Chain.log_initial:\n            return self.start",
        "if True:\n            return self.start",
        (STARTS,),
    ),
    Mutation(
        "largest weight of another chain's samples",
        "core/zlearning.py",
        "rate / (weight + visits[state] / patience)",
        "rate / (1.0 + visits[state] / patience)",
        (f"{ZLEARNING}::test_average_cost_table_from_a_chain_that_makes_moves_the_baseline_never_makes",),
    ),
    Mutation(
        "unsettled table handed out",
        "core/zlearning.py",
        "wrong = ~(worst <= 1.0) if average",
        "wrong = worst < 0.0 if average",
        (f"{ZLEARNING}::test_a_table_that_has_not_settled_is_refused",),
    ),
    Mutation(
        "sampling chain not checked",
        "core/zlearning.py",
        "    sampling.check(passive)\n",
        "",
        (f"{ZLEARNING}::test_a_sampling_chain_that_misses_moves_of_the_baseline_is_refused",),
    ),
    Mutation(
        "sampling chain asked what follows a terminal state",
        "core/zlearning.py",
        "jnp.where((passive.base > 0.0) & ~passive.exits[:, None],",
        "jnp.where((passive.base > 0.0),",
        (f"{ZLEARNING}::test_a_sampling_chain_that_misses_moves_of_the_baseline_is_refused",),
    ),
    Mutation(
        "optimal z without exits",
        "core/exact.py",
        "closing = refuse(closing, ~jnp.any(exits), ENDLESS)",
        "pass",
        (f"{ZLEARNING}::test_first_exit_problems_without_exits_are_refused",),
    ),
    Mutation(
        "table without exits",
        "core/zlearning.py",
        "start = refuse(passive.start, endless & ~jnp.any(passive.exits), ENDLESS)",
        "start = passive.start",
        (f"{ZLEARNING}::test_first_exit_problems_without_exits_are_refused",),
    ),
    Mutation(
        "strain from the middle of the range",
        "robot/system.py",
        "self.noise_scale(theta), noises.passive_mean(self.squash), passive)",
        "self.noise_scale(theta), jnp.zeros_like(mean), passive)",
        (NOTHING,),
    ),
    Mutation(
        "passive drift in the middle of the range",
        "robot/passive.py",
        "self.chain.play(noises.passive_mean(self.chain.squash),",
        "self.chain.play(jnp.zeros_like(state.action),",
        (NOTHING,),
    ),
    Mutation(
        "passive move in the middle of the range",
        "robot/passive.py",
        "mean = self.chain.mj.nu, noises.passive_mean(self.chain.squash)",
        "mean = self.chain.mj.nu, 0.0 * noises.passive_mean(self.chain.squash)",
        (NOTHING,),
    ),
    Mutation(
        "passive density about the middle of the range",
        "robot/passive.py",
        "deviation = following.action - noises.passive_mean(self.chain.squash)",
        "deviation = following.action",
        (NOTHING,),
    ),
    Mutation(
        "zero control outside the range",
        "robot/noise.py",
        "jnp.clip(-squash.middle / half, -1.0 + _INSIDE, 1.0 - _INSIDE)",
        "-squash.middle / half",
        (NOTHING,),
    ),
    Mutation(
        "gamma in (89)",
        "core/zlearning.py",
        "- self.gamma * (self.features @ theta)",
        "- (self.features @ theta)",
        (f"{ZLEARNING}::test_energy_chain_is_that_of_equation_89",),
    ),
    Mutation(
        "lambda in the traces",
        "core/fitting.py",
        "return objective.discount * lam * continues",
        "return objective.discount * continues",
        ("core/test_fitting.py::test_td_lambda_with_too_few_features_is_the_fixed_point_of_its_lambda[0.5]",),
    ),
    Mutation(
        "leverage of a block",
        "core/covariance.py",
        "np.eye(len(hessian)) - shares @ part",
        "np.eye(len(hessian)) - 0.0 * shares",
        ("core/test_gauss_newton.py::test_the_jackknife_is_that_of_fits_without_each_block",),
    ),
    Mutation(
        "elimination in a block's information",
        "core/method/normal.py",
        "blocks = blocks - self.zx @ self.response",
        "blocks = blocks",
        ("core/test_gauss_newton.py::test_each_block_s_share_of_the_information_is_what_its_own_unknown_leaves",),
    ),
    Mutation(
        "relative damping",
        "core/method/natural.py",
        "level = damping * jnp.where(scale > 0.0, scale, 1.0)",
        "level = damping",
        ("core/test_curvature.py::test_damping_of_the_natural_step_has_no_unit",),
    ),
    Mutation(
        "V_{t+1} in the baseline",
        "core/gradient/score.py",
        "baseline.value.at(time + 1)",
        "baseline.value.at(time)",
        (f"{ENUMERATION}::test_the_baseline_of_step_t_is_the_value_of_the_next_time",),
    ),
    Mutation(
        "gamma^H of the critic, windows",
        "core/gradient/pathwise.py",
        "jnp.where(closes, closing_weight * closing, 0.0)",
        "jnp.where(closes, closing, 0.0)",
        (f"{CRITIC}[1]", f"{CRITIC}[2]"),
    ),
    Mutation(
        "gamma^H of the critic, whole rollout",
        "core/gradient/pathwise.py",
        "closing_weight[-1] * value.at",
        "value.at",
        (f"{CRITIC}[3]",),
    ),
    Mutation(
        "gamma^H of the critic in J",
        "core/gradient/pathwise.py",
        "objective.discount**objective.steps * ahead",
        "ahead",
        (CRITIC,),
    ),
    Mutation(
        "sub-steps without the control's own part",
        "physics/sensitivity.py",
        "a @ found.ctrl[e, t] + b",
        "a @ found.ctrl[e, t]",
        (SLOPES,),
    ),
    Mutation(
        "muscles under implicit integrators by stages",
        "physics/sensitivity.py",
        "np.any(moving | others)",
        "np.any(moving & others)",
        (SLOPES,),
    ),
    Mutation(
        "centred differences by control as MuJoCo gives them",
        "physics/sensitivity.py",
        "d = None if self._centred else self._d",
        "d, self._by_control = self._d, lambda: None",
        (SLOPES,),
    ),
)


def fails(folder: pathlib.Path, *tests: str) -> bool:
    """Whether any of the tests fails with the package in `folder`; one that cannot be found is an error."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"tests/{test}" for test in tests),
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{tests}: pytest ended with status {done.returncode}.\n{done.stdout[-2000:]}{done.stderr}")
    return done.returncode == 1


def survivors(mutations: list[Mutation]) -> list[str]:
    """What no test noticed, a line each."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        skip = shutil.ignore_patterns("__pycache__")
        for part in ("dso_robotics", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=skip)
        for part in ("models", "datasets", "pyproject.toml"):
            (folder / part).symlink_to(ROOT / part)
        if fails(folder, *sorted({test for mutation in mutations for test in mutation.tests})):
            raise SystemExit("Some of these tests fail without any mutation; mend them first.")
        for mutation in mutations:
            path = folder / "dso_robotics" / mutation.file
            text = path.read_text()
            if text.count(mutation.old) != 1:
                raise SystemExit(f"{mutation.name}: {mutation.file} holds the text {text.count(mutation.old)} times.")
            path.write_text(text.replace(mutation.old, mutation.new))
            for test in mutation.tests:
                noticed = fails(folder, test)
                print(f"{'noticed ' if noticed else 'SURVIVED'}  {mutation.name}  ({test})", flush=True)
                if not noticed:
                    found.append(f"{mutation.name}: {test}")
            path.write_text(text)
    return found


def main(words: list[str]) -> int:
    """Run the chosen mutations; the number of survivors, at most 1, is the status."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.name or word in m.file for word in words)]
    left = survivors(chosen)
    print(f"{len(chosen)} mutations, {len(left)} survivors" + "".join(f"\n  {line}" for line in left))
    return min(len(left), 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
