"""Tables of the measurement pages, from benchmarks/results alone: `python -m website.measured` writes them into the pages.

A table stands between `<!-- measured: NAME -->` and `<!-- end -->`.
"""

import json
import pathlib
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_PLACE = re.compile(r"(<!-- measured: (?P<name>[\w ]+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)
_SPREAD = ("dso", "dso-natural", "dso-pco")


def pages() -> Iterator[tuple[pathlib.Path, str]]:
    """Each measurement page, and what it should be."""
    for path in sorted((ROOT / "docs" / "measurements").glob("*.md")):
        yield path, filled(path.read_text())


def filled(page: str) -> str:
    """A page with its tables made anew."""
    made = {name for name in globals() if not name.startswith("_")}

    def anew(found: re.Match[str]) -> str:
        name, *arguments = found["name"].split()
        return f"{found[1]}\n{globals()[name](*arguments)}\n{found[4]}" if name in made else found[0]

    return _PLACE.sub(anew, page)


def result(name: str) -> Any:
    """benchmarks/results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def swing_up() -> str:
    """dso on the cart-pole, seed by seed."""
    rows = []
    for run in result("policy")["runs"]["dso"]:
        compiled = f"{run['compile']:.0f}"
        rows.append([run["seed"], _range(run["final"]), _first(run), f"{run['total']:.0f}", compiled])
    return _table(["seed", "final return", "steps to 700", "seconds", "of them compiling"], rows)


def peers() -> str:
    """Others on the cart-pole, a run a line."""
    rows = []
    for tool, runs in result("policy")["runs"].items():
        if tool == "dso":
            continue
        for i, run in enumerate(runs):
            starts = "as dso" if tool in _SPREAD else "spread" if tool.endswith("-wide") else "hanging"
            steps = f"{run['training_steps']:,}" + (", then its time was over" if run.get("ended") == "time" else "")
            cells = [f"`{tool}`" if not i else "", starts if not i else "", run["seed"], steps]
            rows.append([*cells, _first(run), _range(run["final"]), f"{run['total']:.0f}"])
    return _table(["tool", "starts", "seed", "environment steps", "steps to 700", "final return", "seconds"], rows)


def design(study: str) -> str:
    """Costs of a design study by tool and seed, at the model's own and at a quarter of its time step."""
    rows = []
    for tool, runs in result("design")["runs"][study].items():
        by_seed = {run["seed"]: f"{run['cost']:.1f} / {run['quarter_timestep']:.1f}" for run in runs}
        seconds = [run["total"] for run in runs]
        taken = f"{min(seconds):.0f}" + (f" to {max(seconds):.0f}" if len(seconds) > 1 else "")
        rows.append([f"`{tool}`", *(by_seed.get(seed, "") for seed in range(5)), taken])
    return _table(["tool", "seed 0", "1", "2", "3", "4", "seconds"], rows)


def estimator_grid() -> str:
    """Squared errors over the claim on held-out runs, by circumstances: with the state in the log / without it."""
    rows, cells = {}, {}
    for one in result("estimate_grid")["rows"]:
        key = one["robot"], one["runs"], one["window"]
        rows[key] = None
        cells[*key, one["wrong"], one["state"]] = (
            "unstable" if not one["stable"] else f"{one['nees']:.2f}" + ("" if one["converged"] else " (not converged)")
        )
    robots = list(dict.fromkeys(key[0] for key in rows))
    lines = []
    for robot, runs, window in sorted(rows, key=lambda key: (robots.index(key[0]), *key[1:])):
        both = (
            " / ".join(cells.get((robot, runs, window, wrong, state), "not run") for state in (True, False))
            for wrong in (False, True)
        )
        lines.append([robot, runs, f"{window:g} s", *both])
    return _table(["robot", "runs", "windows", "right model", "wrong mass"], lines)


def lorenz() -> str:
    """Mean square errors on the Lorenz attractor [dB]."""
    found = result("estimate_lorenz")
    sampling, rotation = found["sampling"], found["rotation"]
    rows = [
        [
            "sampling mismatch, T = 3000, 0 dB",
            sampling["ekf_published"],
            sampling["ekf"],
            sampling["kalmannet_published"],
            sampling["mlp"]["test"],
            "",
        ],
        [
            "the same, on a trajectory that is not in the training data",
            "",
            sampling["ekf_fresh"],
            "",
            sampling["mlp"]["fresh"],
            "",
        ],
        [
            "sensor turned by 1°, 20 dB",
            rotation["ekf_published"],
            rotation["ekf"],
            rotation["kalmannet_published"],
            rotation["mlp_supervised"]["test"],
            rotation["gain_and_sensor_from_measurements"]["test"],
        ],
    ]
    head = ["task", "EKF published", "EKF here", "KalmanNet published", "MLP corrector, supervised", "no ground truth"]
    return _table(head, [[f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row] for row in rows])


def imu() -> str:
    """Angles to the cameras' orientation [deg]."""
    found, rows = result("estimate_imu"), []
    learned = found["learned_deg"]
    for trial, published in found["published_deg"].items():
        cells = [f"{published[name]:.2f}" for name in ("madgwick", "mahony")]
        start = next(iter(learned.values()))["start"][trial]
        for trained, one in learned.items():
            cells.append(f"**{one['trained'][trial]:.2f}**" if trained != trial else f"{one['trained'][trial]:.2f}")
        cells.insert(2, f"{start:.2f}")
        rows.append([" ".join(part for part in trial.split("_")[:-1] if part != "undisturbed"), *cells])
    named = [f"trained on {trial[:2]}" for trial in learned]
    return _table(["trial", "Madgwick", "Mahony", "hand-set gain", *named], rows)


def mismatch() -> str:
    """Filters whose model is wrong: innovation [mrad] / error of the speed [rad/s]."""
    columns = {
        "EKF, dynamax": "ekf (dynamax)",
        "UKF, dynamax": "ukf (dynamax)",
        "gain": "gain",
        "linear": "linear",
        "gain, with mass, friction and bias": "gain and model",
    }
    rows = []
    for world, found in result("estimate")["mismatch"].items():
        cells = [
            f"{1000 * found[k]['innovation_rmse'][0]:.2f} / {found[k]['state_rmse'][1]:.3f}" for k in columns.values()
        ]
        rows.append([world, *cells, f"{found['ekf smoother (dynamax)']['state_rmse'][1]:.3f}"])
    return _table(["the world differs by", *columns, "RTS smoother, dynamax (speed)"], rows)


# What made the results that do not hold their command, where that is certain.
_COMMANDS = {
    "engine_rule": "python benchmarks/engine_rule.py",
    "engines": "python benchmarks/engines.py",
    "estimate": "python benchmarks/estimate.py --out benchmarks/results/estimate.json",
    "mechanisms": "python benchmarks/mechanisms.py",
}


def when() -> str:
    """Every result with its versions, the date of its file, and the command."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        command = found.get("command") or _COMMANDS.get(path.stem)
        told = f"`{command}`" if command else f"`python benchmarks/{path.stem}.py`, its options were not kept"
        rows.append([f"`{path.name}`", _date(path), _versions(found), told])
    return _table(["result", "date", "versions", "command"], rows)


def _date(path: pathlib.Path) -> str:
    asked = ["git", "log", "-1", "--format=%cs", "--", str(path)]
    try:
        return subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _versions(found: Any) -> str:
    versions = found.get("versions") or found.get("machine", "") if isinstance(found, dict) else ""
    if isinstance(versions, dict):
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        str(versions)
        .replace("two cores of a shared x86 machine, ", "")
        .replace("x86_64, ", "")
        .replace("2 cores, ", "")
    )


def _first(run: Any) -> str:
    reached = np.flatnonzero(np.asarray(run["return"]) >= 700)
    return f"{run['steps'][reached[0]]:,.0f}" if reached.size else "not reached"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for place, text in pages():
        place.write_text(text)
