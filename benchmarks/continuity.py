"""Tied and free windows, on a log with a known truth and on a real arm: error, interval, hold-out error, time.

`python -m benchmarks.continuity` prints one line for each setting: the worst parameter's error (median over noise draws), the
coverage of 95% intervals, their half-width. On the real arm: the error on held-out runs, over 0.5 s from measured states.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.assets import asset
from dso_robotics.data.log import write_log
from dso_robotics.data.registry import fetch
from dso_robotics.parameters.path import parse
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from examples.demo import FREE
from tests.pendulum import PENDULUM, TRUTH, record

SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("free windows", {}),
    ("1", {"continuity": 1.0}),
    ("0.1", {"continuity": 0.1}),
    ("learned", {"continuity": "learned"}),
    ("one long window", {"window": float("inf")}),
)
ARM: tuple[tuple[str, dict[str, Any]], ...] = (
    ("free windows", {}),
    ("100", {"continuity": 100.0}),
    ("10", {"continuity": 10.0}),
    ("1", {"continuity": 1.0}),
    ("learned", {"continuity": "learned"}),
)
PATHS = ("joint/hinge/damping", "joint/hinge/frictionloss", "body/pole/mass")


def synthetic(folder: Path, draws: int) -> None:
    """A pendulum with white sensor noise, three numbers, 3 runs of 4 s to fit and one to predict."""
    (folder / "pendulum.xml").write_text(PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0))
    truth = np.array(list(TRUTH.values()))
    for name, keys in SETTINGS:
        rows = []
        for seed in range(draws):
            write_log(folder / "log.h5", record(seed + 1, runs=4))
            study = IdentifyStudy(
                str(folder / "pendulum.xml"),
                (str(folder / "log.h5"),),
                tuple(map(parse, PATHS)),
                hold_out="run3",
                **({"window": 0.5} | keys),
                score_window=0.5,
            )
            began = time.process_time()
            summary = identify(study, folder / "out", force=True).summary
            seconds = time.process_time() - began
            found = [summary["parameters"][path] for path in PATHS]
            error = np.array([e["value"] for e in found]) / truth - 1
            half = np.array([e["high95"] - e["low95"] for e in found]) / 2 / truth
            held = [e["low95"] <= t <= e["high95"] for e, t in zip(found, truth, strict=True)]
            hold_out = [summary["fit"]["hold_out"][c]["rmse"] for c in ("angle", "speed")]
            rows.append([np.abs(error).max(), np.mean(held), half.max(), *hold_out, seconds])
        error, held, half, angle, speed, seconds = np.median(rows, 0)
        print(
            f"pendulum, {name}: error {100 * error:.3f}%, half-width {100 * half:.3f}%, intervals hold "
            f"{100 * np.mean(np.array(rows)[:, 1]):.1f}%, hold-out {angle:.5f} rad {speed:.5f} rad/s, {seconds:.2f} s"
        )


def real(folder: Path) -> None:
    """The two-joint arm of `make demo`."""
    write_log(folder / "arm.h5", fetch("dfki_double_pendulum_A0"))
    for name, keys in ARM:
        study = IdentifyStudy(
            str(asset("models/two_joint_arm.xml")),
            (str(folder / "arm.h5"),),
            tuple(map(parse, FREE)),
            hold_out="03,05,11,13",
            window=0.8,
            score_window=0.5,
            **keys,
        )
        began = time.process_time()
        summary = identify(study, folder / "out", force=True).summary
        seconds = time.process_time() - began
        hold_out = ", ".join(f"{c} {v['rmse']:.5f} {v['unit']}" for c, v in summary["fit"]["hold_out"].items())
        table = summary["parameters"]
        share = [
            (table[p]["high95"] - table[p]["low95"]) / 2 / abs(table[p]["value"])
            for p in ("joint/elbow/frictionloss", "body/lower/mass", "actuator/tau2/gear[0]")
        ]
        print(
            f"arm, {name}: hold-out {hold_out}; half-widths of the elbow's friction, the lower link's mass, the elbow's gear "
            f"{', '.join(f'{100 * s:.1f}%' for s in share)}; converged {summary['converged']}, {seconds:.0f} s"
        )


def main() -> int:
    """Run the requested measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=30, help="noise draws of the pendulum (default: %(default)s)")
    parser.add_argument("--only", choices=("pendulum", "arm"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.only != "arm":
            synthetic(Path(folder), args.draws)
        if args.only != "pendulum":
            real(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
