"""docs/models.md from the results of the sweep."""

import json
import pathlib

STEP, DERIVATIVE = 1e-9, 1e-5

INTRODUCTION = """\
# Models: the differentiable step against C MuJoCo

Every MuJoCo XML that the packages gymnasium (`envs/mujoco/assets`) and dm_control (`suite`) ship, at {states} states reached
by rollout under random controls, in float64. Nobody tuned the models for this engine. Both solvers run to convergence
(tolerance 1e-14, 200 iterations), so that the comparison is of the physics and not of where a solver stopped.

- **step**: largest error of the next state (qpos, qvel, act), relative to the larger of one and its largest element, over the
  states that do not switch.
- **switching**: states left out of **step**, because two of C's own differences by position or velocity disagree there (the
  same rule that leaves pairs out of **derivative**), and the largest step error on them.
- **derivative**: the largest error over all states and blocks, and the block it is in. Blocks are qpos, qvel, act, ctrl,
  body_mass, body_inertia, body_ipos, body_pos, dof_damping, dof_armature, dof_frictionloss, jnt_stiffness, actuator_gear,
  actuator_gainprm, geom_friction and geom_size, each that the model has. One random direction a block mixes all its elements
  (parameters move in proportion to their size), followed by every derived constant; C supplies central differences with
  mj_setConst. Errors are relative to the derivative's largest element or {floor:g}, whichever is larger: below that a
  finite difference is rounding.
- **median**: the largest over blocks of the median over states.
- **compared / excluded**: pairs of a state and a block. Excluded are those where two of C's own differences (moves of
  {fine:g} and {coarse:g}) disagree by more than 1e-5 of the derivative: a contact, limit, friction or clip switches there, or
  the effect drowns in rounding, so there is no number to compare with.
- **contact**: states with at least one active constraint (limit, friction loss, contact).
- **compile**: seconds for the derivatives of all blocks at once, cold, on two CPU cores busy with other work, the
  largest seen so far: an order of magnitude.

Bold numbers miss the aims (step {step:g}, derivative {derivative:g}); the notes below the table say why.

Made by `{command}` with {versions}.

| model | nv | step | switching | derivative | median | compared / excluded | contact | compile s |
| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |
"""

PAIRS = """
## Contacts by pair of shapes

Two shapes at random orientations (so mostly touching at one point), overlapping by 0.5 to 8 mm, 60 states a pair
(`{command}`): the share of states whose next velocity agrees with C to 1e-9, and the median and
largest relative error. Planes meet every shape but meshes as in C, and so do spheres and capsules among themselves. The other
pairs are collided by MJX's own methods, which find other contact points than C: `dso check` names the geoms concerned, and the
cure is a sphere or capsule where they touch, or the C engine.

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
    """Agreement of contacts by pair of shapes, when benchmarks/physics_pairs.py has been run."""
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
    return text + f"\nMJX has no collision for {missing}: models with such pairs are refused.\n"


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
        "it is in contact. C's own differences are wild there too, which is why most pairs are excluded."
    ),
    "gymnasium/reacher": (
        "finite-difference noise: velocities reach 35 rad/s and the effect of a mass on them is small. With moves ten times "
        "larger the error is 2e-6."
    ),
    "dm_control/stacker": (
        "a difference that stands: box on box, see the table of pairs below. Half of the states have such contacts, and the "
        "medians show the others agree. `dso check` names the boxes."
    ),
}
