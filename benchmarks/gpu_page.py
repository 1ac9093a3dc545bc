"""docs/gpu.md from the rows of benchmarks/gpu.py."""

import json
import pathlib
import textwrap
from collections.abc import Callable

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "gpu.md"
Rows = list[dict]
_HEAD = """# On a GPU

{text}

```sh
python benchmarks/gpu.py --minutes 8     # writes benchmarks/results/gpu.json, a row as soon as it is there
python benchmarks/gpu.py --table         # writes this page from the rows
```
"""
_TEXT = (
    "One {devices} with {cores} cores of a CPU beside it; {versions}. Made by `{command}`. {note} On a machine without a "
    "network, `benchmarks/gpu_wheels.sh` says how wheels travel: everything but JAX, its CUDA plugin, NumPy and SciPy, which "
    "are taken as they are installed there."
)
# The cost of an episode at which a task counts as solved.
SOLVED = {"cartpole_swing_up": 300.0, "everything": 50.0}


def page(found: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    said = {
        "devices": ", ".join(found["devices"]),
        "cores": found.get("cores", "?"),
        "versions": versions,
        "note": found.get("note", ""),
    }
    lines = [_HEAD.format(text=filled(_TEXT.format(command=found["command"], **said)))]
    for made in (correct, speed, trainings, brax, left_out):
        lines += made(found["rows"])
    return "\n".join(lines)


def correct(rows: Rows) -> list[str]:
    columns: dict[str, Callable[[dict], object]] = {
        "model": lambda r: r["model"],
        "precision": lambda r: r["precision"],
        "largest error of the state": lambda r: r["state_largest"],
        "median": lambda r: r["state_median"],
        "largest error of the derivative": lambda r: r["derivative_largest"],
        "median of it": lambda r: r["derivative_median"],
    }
    text = (
        "One step from each of 64 random states, many of them in contact, against C MuJoCo in float64, and its "
        "derivative against centred differences of C MuJoCo. Errors are relative. In float64 the GPU is C MuJoCo to "
        "rounding. In float32 the solver of contacts leaves errors of 1e-3 to 5e-2 in some derivatives: `dso` "
        "computes in float64 unless `JAX_ENABLE_X64=0` says otherwise, and at 4,096 environments float64 is as fast for "
        "the two models measured."
    )
    return section("Correctness", text, measured(rows, "correct"), columns)


def speed(rows: Rows) -> list[str]:
    kept = {key(r): r for r in measured(rows, "speed")}
    names = dict.fromkeys((model, precision, batch) for model, precision, batch, *_ in kept)
    table = []
    for model, precision, batch in sorted(names, key=lambda n: (*n[:2], n[2])):
        gradient, forward, plain = (
            kept.get((model, precision, batch, *what))
            for what in (("dso", "gradient"), ("dso", "forward"), ("mjx", "forward"))
        )
        table.append({"model": model, "precision": precision, "batch": batch, "g": gradient, "f": forward, "m": plain})

    def rate(row: dict, name: str) -> object:
        return "" if row[name] is None else row[name]["steps_per_second"]

    columns: dict[str, Callable[[dict], object]] = {
        "model": lambda r: r["model"],
        "precision": lambda r: r["precision"],
        "batch": lambda r: r["batch"],
        "with gradient [steps/s]": lambda r: rate(r, "g"),
        "forward": lambda r: rate(r, "f"),
        "plain MJX, forward": lambda r: rate(r, "m"),
        "forward, ratio to plain MJX": lambda r: (
            f"{r['f']['steps_per_second'] / r['m']['steps_per_second']:.2f}" if r["f"] and r["m"] else ""
        ),
        "gradient compiled in [s]": lambda r: "" if r["g"] is None else r["g"]["compile_seconds"],
        "its memory [MB]": lambda r: "" if r["g"] is None or r["g"]["memory_bytes"] is None else r["g"]["memory_bytes"] / 1e6,
    }  # fmt: skip
    text = (
        "Rollouts of 32 steps under random controls; a step is one of the physics. The best of at least three runs. "
        "Several programs compiled at the same time, so compilation takes longer here than alone. A ratio below 1 "
        "means that plain `mjx.step` is faster. Speed grows almost in proportion to the batch up to tens of "
        "thousands: below that the GPU waits for launches of kernels. The ant is gymnasium's: it integrates with RK4, "
        "which is four solves of the contacts a step, with up to 100 iterations of a search of 50 points; the others "
        "have an implicit or Euler step and options of a few iterations."
    )
    return section("Speed", text, table, columns)


def key(row: dict) -> tuple:
    return tuple(row[name] for name in ("model", "precision", "batch", "engine", "what"))


def trainings(rows: Rows) -> list[str]:
    runs: dict[tuple, Rows] = {}
    for row in [*measured(rows, "train"), *measured(rows, "together")]:
        runs.setdefault((row["study"], row["engine"], row["precision"], row["environments"]), []).append(row)
    table = []
    for (study, engine, precision, environments), looks in runs.items():
        looked, first = [row for row in looks if not row.get("last")], looks[0]["first_iteration_seconds"]
        solved = next((row for row in looked if row["episode_cost"] <= SOLVED[study]), None)
        least = min(looked, key=lambda row: row["episode_cost"])
        table.append(
            {
                "study": study,
                "engine": engine,
                "precision": precision,
                "environments": environments,
                "first": first,
                "solved": f"{solved['seconds']:.0f}" if solved else f"not in {looked[-1]['seconds']:.0f}",
                "least": least["episode_cost"],
                "at": least["seconds"],
                "steps": looked[-1]["environment_steps"],
                "rate": looked[-1]["environment_steps"] / max(looked[-1]["seconds"] - first, 1e-9),
            }
        )  # fmt: skip
    columns: dict[str, Callable[[dict], object]] = {
        "study": lambda r: r["study"],
        "engine": lambda r: r["engine"],
        "precision": lambda r: r["precision"],
        "environments": lambda r: r["environments"],
        "first iteration after [s]": lambda r: r["first"],
        "solved after [s]": lambda r: r["solved"],
        "least cost of an episode": lambda r: r["least"],
        "after [s]": lambda r: r["at"],
        "environment steps": lambda r: r["steps"],
        "steps/s after the first iteration": lambda r: r["rate"],
    }
    solved = ", ".join(f"{cost:g} for `{study}`" for study, cost in SOLVED.items())
    text = (
        "The ready studies, from the start of the process, compilation included, one seed each. Episodes are judged "
        f"on C MuJoCo. Solved means a cost of at most {solved}; a return of R in the swing-up is a cost of 1000 - R. "
        "Looks at an episode on C MuJoCo are part of the time. When these rows were made, the policy was computed on "
        "the GPU in such an episode, and in all of a training on C: it was waited for in each of 1000 control steps, "
        "which took most of the time after the first iteration. It is computed on the CPU since."
    )
    return section("Training", text, table, columns)


def brax(rows: Rows) -> list[str]:
    kept = measured(rows, "brax")
    for row in kept:
        row["found"] = json.loads(row["result"])
    columns: dict[str, Callable[[dict], object]] = {
        "environments": lambda r: r["found"]["settings"]["num_envs"],
        "environment steps": lambda r: r["found"]["training_steps"],
        "compiled in [s]": lambda r: r["found"]["compile"],
        "seconds in all": lambda r: r["found"]["total"],
        "return of an episode": lambda r: max(r["found"]["final"]),
        "ended by": lambda r: {"time": "its limit of 45 s"}.get(r["found"]["ended"], r["found"]["ended"]),
    }
    text = (
        "PPO of Brax with the settings that MuJoCo Playground publishes for this task, on the swing-up of the section "
        "before and the same physics (`benchmarks/policy_brax.py`). Brax 0.14.2 calls a function that JAX 0.11 no "
        "longer has; the script gives it one. The row shows how far PPO came in its time, not what it reaches: on a "
        "CPU with all its steps it is in docs/policies.md."
    )
    return section("Brax", text, kept, columns)


def left_out(rows: Rows) -> list[str]:
    missing = [row for row in rows if "left_out" in row]
    if not missing:
        return []
    said = [f"- {row['kind']} {row.get('argument', row.get('model', ''))}: {row['left_out']}" for row in missing]
    return ["## Left out", "", *said, ""]


def measured(rows: Rows, kind: str) -> Rows:
    return [row for row in rows if row["kind"] == kind and "left_out" not in row]


def section(title: str, text: str, rows: Rows, columns: dict[str, Callable[[dict], object]]) -> list[str]:
    if not rows:
        return []
    lines = [f"## {title}", "", filled(text), "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(shown(value(row)) for value in columns.values())} |" for row in rows), ""]


def filled(text: str) -> str:
    return textwrap.fill(text, 128, break_on_hyphens=False, break_long_words=False)


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
