"""Every ready study on MuJoCo 4 beside MuJoCo 3.17: does it run, and does it end where it ends on 3.17.

    python benchmarks/studies_on_versions.py --other PYTHON [--iterations 5] [--only NAME ...] [--page]

PYTHON is the interpreter of an environment with `pip install '.[train]' 'mujoco>=4,<5'`. Each study runs on the engine that it
takes by itself, with seed 0 and a few iterations; studies of estimators run whole. Results go to
results/studies_on_versions.json after each study; what is there is not run again. `--page` writes the table into
docs/physics.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from provenance import begun, write_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "studies_on_versions.json", ROOT / "docs" / "physics.md"
STUDIES = sorted((ROOT / "examples" / "studies").glob("[!_]*.toml"))


def version(python: str) -> str:
    """Version of MuJoCo in the environment of an interpreter."""
    ask = "import importlib.metadata as m; print(m.version('mujoco'))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def run(python: str, study: Path, iterations: int) -> dict:
    """Cost before and after a short run of a study, or the last line of what it said where it failed."""
    found = re.search(r"Run: dso (\w+)", study.read_text())
    assert found is not None, study
    command = found.group(1)
    with tempfile.TemporaryDirectory() as folder:
        words = [python, "-m", "dso_robotics.cli", command, str(study), "--out", folder, "--force", "--no-report"]
        words += [] if command == "estimate" else ["--iterations", str(iterations)]
        ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        if ended.returncode:
            return {"failed": (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-1]}
        summary = json.loads((Path(folder) / "summary.json").read_text())
    return {"command": command, "cost": summary["cost"], "engine": summary.get("engine")}


def page(results: dict) -> str:
    """The table of the docs."""
    rows = ["| study | cost, 3.17 | cost, 4.0 | relative difference |", "| --- | ---: | ---: | ---: |"]
    for name, ran in sorted(results["studies"].items()):
        if any("failed" in one for one in ran):
            cells = [one.get("failed", "runs") for one in ran] + [""]
        else:
            old, new = (one["cost"]["total"] for one in ran)
            cells = [f"{old:.6g}", f"{new:.6g}", f"{abs(new - old) / abs(old):.0e}" if new != old else "0"]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main():
    """Run what is missing, and write the page if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="interpreter with MuJoCo 4")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    if given.other:
        results = begun(RESULTS, {"studies": {}})
        pythons = (sys.executable, given.other)
        results |= {"versions": [version(p) for p in pythons], "iterations": given.iterations}
        for study in STUDIES:
            if study.stem in results["studies"] or (given.only and study.stem not in given.only):
                continue
            results["studies"][study.stem] = [run(python, study, given.iterations) for python in pythons]
            print(study.stem, *results["studies"][study.stem], sep="\n  ", flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if given.page:
        write_table(PAGE, Path(__file__).name, page(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
