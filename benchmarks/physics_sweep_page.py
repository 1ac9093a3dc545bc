"""Writes docs/models.md from the results of the sweep."""

import json
import pathlib

STEP, DERIVATIVE = 1e-9, 1e-5

INTRODUCTION = """\
# Models: the differentiable step against C MuJoCo

Every MuJoCo XML file of the packages gymnasium (`envs/mujoco/assets`) and dm_control (`suite`), at {states} states from
rollouts under random controls, in float64. The models were not tuned for this engine. Both solvers run to convergence
(tolerance 1e-14, 200 iterations), so the comparison shows differences of the physics, not of the number of iterations.

- **step**: largest error of the next state (qpos, qvel, act), relative to the larger of one and its largest element, over the
  states that do not switch.
- **switching**: states left out of **step**, because two of C's own differences by position or velocity disagree there (the
  same rule excludes pairs from **derivative**), and the largest step error on them.
- **derivative**: the largest error over all states and blocks, and its block. Blocks are qpos, qvel, act, ctrl,
  body_mass, body_inertia, body_ipos, body_pos, dof_damping, dof_armature, dof_frictionloss, jnt_stiffness, actuator_gear,
  actuator_gainprm, geom_friction and geom_size, as far as the model has them. The derivative is along one random direction
  for each block. It mixes all elements of the block (parameters move in proportion to their size) and changes every derived
  constant. The reference is a central difference of C with mj_setConst. Errors are relative to the derivative's largest
  element or {floor:g}, whichever is larger: below that a finite difference is rounding.
- **median**: the median over states, for the block where it is largest.
- **compared / excluded**: pairs of a state and a block. A pair is excluded if two of C's own differences (moves of
  {fine:g} and {coarse:g}) disagree by more than 1e-5 of the derivative. There a contact, limit, friction or clip switches, or
  the effect drowns in rounding, so there is no reference.
- **contact**: states with at least one active constraint (limit, friction loss, contact).
- **compile**: seconds for the derivatives of all blocks at once, cold, on two CPU cores busy with other work. It is the
  largest value so far and gives the order of magnitude only.

Bold numbers miss the aims (step {step:g}, derivative {derivative:g}); the notes below the table give the reasons.

Made by `{command}` with {versions}.

| model | nv | step | switching | derivative | median | compared / excluded | contact | compile s |
| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |
"""

PAIRS = """
## Contacts by pair of shapes

Two shapes at random orientations (so mostly touching at one point) overlap by 0.5 to 8 mm, with 60 states for each pair
(`{command}`). The table has the share of states whose next velocity agrees with C to 1e-9, and the median and
largest relative error. As in C are planes with every shape except meshes, and spheres and capsules with each other. For the
other pairs MJX uses its own methods, which find other contact points than C. `dso check` names the geoms concerned. The cure
is a sphere or capsule at the point of contact, or the C engine.

| pair | agree | median | largest |
| --- | ---: | ---: | ---: |
"""


def page(found: dict) -> str:
    """The whole page."""
    from dso_robotics.physics import agreement

    models = found["models"]
    done = {k: v for k, v in models.items() if "step" in v}
    text = INTRODUCTION.format(
        states=max((v["states"] for v in done.values()), default=20),
        floor=agreement.FLOOR,
        fine=agreement.MOVES[0],
        coarse=agreement.MOVES[1],
        step=STEP,
        derivative=DERIVATIVE,
        command=found.get("command", "python benchmarks/physics_sweep.py"),
        versions=", ".join(f"{k} {v}" for k, v in found.get("versions", {}).items()),
    )
    text += "".join(_row(name, result) for name, result in sorted(done.items()))
    good = sum(v["step"] <= STEP and _worst(v)[1]["largest"] <= DERIVATIVE for v in done.values())
    text += f"\n{good} of {len(done)} models meet both aims.\n"
    noted = {k: NOTES[k] for k in sorted(done) if k in NOTES}
    if noted:
        text += "\n## Notes\n\n" + "".join(f"- `{k}`: {v}\n" for k, v in noted.items())
    text += _pairs()
    text += "\n## Not compared\n\n| model | reason |\n| --- | --- |\n"
    for name, result in sorted(models.items()):
        if name not in done:
            text += f"| {name} | {result.get('refused') or result.get('failed')} |\n"
    return text


def _pairs() -> str:
    """Agreement of contacts by pair of shapes, if benchmarks/physics_pairs.py has been run."""
    path = pathlib.Path(__file__).parent / "results" / "physics_pairs.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    rows = [k + ": no collision in MJX" for k, v in found["pairs"].items() if v is None]
    text = PAIRS.format(command=found["command"])
    for name, errors in found["pairs"].items():
        if errors is not None:
            numbers = f"{errors['agree']:.0%} | {errors['median']:.0e} | {errors['largest']:.0e}"
            text += f"| {name} | {numbers} |\n"
    missing = "; ".join(row.partition(":")[0] for row in rows)
    return text + f"\nMJX has no collision function for {missing}: models with such pairs are refused.\n"


def _worst(result: dict) -> tuple[str, dict]:
    return max(result["blocks"].items(), key=lambda item: item[1]["largest"])


def _row(name: str, result: dict) -> str:
    block, worst = _worst(result)
    blocks = result["blocks"].values()
    compared, excluded = sum(b["compared"] for b in blocks), sum(b["excluded"] for b in blocks)
    median = max(b["median"] for b in blocks)
    step, error = _bold(result["step"], STEP), _bold(worst["largest"], DERIVATIVE)
    if result["switching"] == result["states"]:
        step = "-"
    switching = f"{result['switching']}: {result['step_switching']:.0e}" if result["switching"] else "0"
    return (
        f"| {name} | {result['nv']} | {step} | {switching} | {error} {block} | {median:.0e} | {compared} / {excluded} "
        f"| {result['contacts']} of {result['states']} | {result['compile_seconds']:.0f} |\n"
    )


def _bold(value: float, aim: float) -> str:
    return f"{value:.0e}" if value <= aim else f"**{value:.0e}**"


# Why a model misses an aim, found by looking into its worst states.
NOTES: dict[str, str] = {
    "gymnasium/point": (
        "a switching state: the sphere slides along the floor at a distance of exactly zero, so rounding alone decides whether "
        "it is in contact. C's own differences are unreliable there too, so most pairs are excluded."
    ),
    "gymnasium/reacher": (
        "finite-difference noise: velocities reach 35 rad/s, and masses have a small effect on them. With moves ten times "
        "larger the error is 2e-6."
    ),
    "dm_control/stacker": (
        "a known difference: box on box, see the table of pairs below. Half of the states have such contacts. The medians "
        "show that the other states agree. `dso check` names the boxes."
    ),
}
