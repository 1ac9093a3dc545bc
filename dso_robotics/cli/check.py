"""`dso check`: what a model contains, which engine supports it, and how accurate its gradients are."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dso_robotics.errors import DsoError

if TYPE_CHECKING:
    from dso_robotics.physics.agreement import Agreement
    from dso_robotics.physics.refinement import Refinement

_EPILOG = """\
examples:
  dso check models/two_joint_arm.xml
  dso check hopper.xml --gradients --refine

--gradients compiles the derivatives of the model, which takes from seconds to minutes the first time.
"""
_GOOD_STEP, _GOOD_DERIVATIVE = 1e-9, 1e-5


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `subparsers`, as argparse's add_subparsers returns them."""
    parser = subparsers.add_parser(
        "check",
        help="what a model contains, which engine supports it, how accurate its gradients are",
        description="Examine a model before using it: contents, options, what each engine supports and what to change. "
        "With --gradients, also compare its derivatives with finite differences of C MuJoCo.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="MJCF or URDF file")
    parser.add_argument("--gradients", action="store_true", help="compare step and derivatives with C MuJoCo")
    parser.add_argument(
        "--refine", action="store_true", help="see how a gradient through contact changes with smaller time steps"
    )
    parser.add_argument("--states", type=int, default=20, metavar="N", help="states to compare (default: %(default)s)")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 0. Raises DsoError when the model does not load."""
    from dso_robotics.cli.jax_setup import prepare_jax
    from dso_robotics.extras import require_mjx
    from dso_robotics.physics.model import load

    if args.gradients or args.refine:
        require_mjx("`dso check --gradients`" if args.gradients else "`dso check --refine`")
    if args.states < 1:
        raise DsoError(f"--states {args.states}: give a number of states of at least 1.")
    robot = load(args.model)
    prepare_jax()
    from dso_robotics.report.table import overview_lines
    from dso_robotics.studies.check import overview, silent

    seen = overview(robot)
    print("\n".join(overview_lines(args.model, seen)))
    if not (args.gradients or args.refine):
        return 0
    if seen.engines["mjx"] or robot.mj.nv == 0:
        why = (
            "this model has no joints" if robot.mj.nv == 0 else "the differentiable engine does not support this model"
        )
        print(f"\nNo derivatives to check: {why}.")
        return 0
    if args.gradients:
        from dso_robotics.physics.agreement import agreement, sample_states

        found = agreement(robot.mj, count=args.states)
        quiet = silent(robot.mj, *sample_states(robot.mj, args.states)[:2])
        print("\n" + "\n".join(_gradients(found, quiet)))
    if args.refine:
        from dso_robotics.physics.refinement import refine

        print("\n" + "\n".join(_refinement(refine(robot.mj))))
    return 0


def _gradients(found: Agreement, quiet: list[str]) -> list[str]:
    from dso_robotics.report.table import columns

    rows = [("derivative by", "largest error", "median", "compared", "excluded", "")]
    for name, block in found.blocks.items():
        note = "exactly zero" if block.zero else "" if block.largest <= _GOOD_DERIVATIVE else "LARGE"
        largest, median = (f"{value:.1e}" if block.compared else "-" for value in (block.largest, block.median))
        rows.append((name, largest, median, str(block.compared), str(block.excluded), note))
    lines = [
        f"against C MuJoCo on {found.states} states, {found.contacts} of them with an active constraint "
        f"(compiled in {found.compile_seconds:.0f} s)",
        f"next state: largest error {found.step:.1e}" + ("" if found.step <= _GOOD_STEP else "  LARGE"),
        "",
        columns(rows, "<>>>><"),
        "",
        "Errors are relative to the derivative. A state is excluded if C's own differences at two step sizes disagree: there a",
        "contact, limit, friction or clip switches, or the effect is too small for a finite difference.",
    ]
    if found.switching:
        lines.insert(
            2,
            f"not included: {found.switching} states that switch (see below), largest error {found.step_switching:.1e}",
        )
    zero = [name for name, block in found.blocks.items() if block.zero]
    if zero:
        lines.append(
            f"exactly zero on every state: {', '.join(zero)}. Nothing in these simulations depends on them, so a gradient "
            "method will not change them."
        )
    return lines + quiet


def _refinement(found: Refinement) -> list[str]:
    from dso_robotics.report.table import columns

    names = list(found.derivatives)
    rows = [("time step s", *(f"by {name}" for name in names))]
    for i, timestep in enumerate(found.timesteps):
        rows.append((f"{timestep:.6g}", *(f"{found.derivatives[name][i]:.6g}" for name in names)))
    lines = [
        f"derivative of the final state (sum of its elements) after {found.seconds:g} s, for smaller and smaller time steps",
        f"contact or joint limit on {found.touching:.0%} of the steps, {found.switches} switches",
        "",
        columns(rows, ">" * len(rows[0])),
        "",
        *(f"The derivative by {name} {found.verdict(name)}" for name in names),
    ]
    if not found.touching:
        lines.append("There was no contact or limit: this says nothing about gradients through impacts.")
    return lines
