"""`dso identify` compared with mujoco.sysid and with a hand-written fit: same model, log, start and bounds.

Run: python benchmarks/identify.py [--only NAME ...] [--phase record time draws page] [--peer-python PYTHON]
It writes results/identify.json, results/identify.png and the tables of docs/identification.md. Without --peer-python it first
makes an environment with mujoco[sysid] from requirements/bench.txt in .cache/identify.

Every tool runs in its own process. `time` runs the first noise draw of every problem, with and without the report that
each tool recommends. It counts imports and records the peak memory of the process. Run it on an idle machine. `draws`
fits all noise draws, in one process per tool. It gives parameter errors, errors on an unfitted run, and the coverage of
95% intervals. A problem with one draw is scored from the timed run.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

import identify_problems as problems
import identify_score as score
from provenance import begun

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "identify.json"
PHASES = ("record", "time", "draws", "page")
NAMES = (*(p.name for p in problems.PROBLEMS), problems.REAL)
# A tool that takes longer than this is timed once; faster ones three times in turn, and the median counts.
LONG = 12.0
# A peer that takes longer than this is not run again for its report, which would only add to it.
VERY_LONG = 60.0


def tools(name: str) -> dict[str, dict]:
    """Settings of every tool on a problem, by displayed name."""
    if name == problems.REAL:
        dso = {"free": problems.REAL_FREE, "study": {"window": 0.8, "score_window": 0.5}}
        dso["study"]["hold_out"] = ",".join(problems.REAL_HOLD_OUT)
        return {"dso": dso, "mujoco.sysid": {}, "no tool": {}}
    p = next(p for p in problems.PROBLEMS if p.name == name)
    hand = {"delay": True} if p.delay else {}
    hand |= {"robust": True} if p.outliers[0] else {}
    return {
        "dso": {"free": p.free + p.extra_free, "study": {"window": p.window, **dict(p.study)}},
        **dict(p.variants),
        "no tool": hand,
    }


def worker(
    tool: str, settings: dict, data: pathlib.Path, out: pathlib.Path, peer: str, *, draws: tuple, report: bool
) -> list[str]:
    """The command that fits draws [first, last) of the problem in `data`."""
    first, last = map(str, draws)
    if tool != "dso":
        script = "identify_byhand.py" if tool == "no tool" else "identify_sysid.py"
        return [peer, str(HERE / script), str(data), str(out), first, last, json.dumps(settings)] + [
            "--report"
        ] * report
    if last != "1":
        return [sys.executable, str(HERE / "identify_dso.py"), str(data), str(out), first, last, json.dumps(settings)]
    flags = [f"--free={path}" for path in settings["free"]]
    for key, value in settings["study"].items():
        flags.append(f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}"))
    run = [
        sys.executable,
        "-m",
        "dso_robotics.cli",
        "identify",
        str(data / "model.xml"),
        str(data / "draw0.h5"),
        *flags,
    ]
    return [*run, "--engine=mujoco", f"--out={out}", "--force"] + ["--no-report"] * (not report)


def measure(command: list[str], log: pathlib.Path) -> dict:
    """Wall seconds and peak memory [MiB] of a child process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=stream, stderr=stream, env=os.environ | {"PYTHONPATH": str(ROOT)})
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ... failed, see {log}:\n{log.read_text()[-2000:]}")
    return {"wall": seconds, "peak": usage.ru_maxrss / 1024}


def timed(name: str, chosen: dict[str, dict], work: pathlib.Path, peer: str) -> dict[str, dict]:
    """Whole processes on the first draw: {tool: wall, wall with report, peak memory of both}."""
    data, found = work / name, {}
    for report in (False, True):
        runs: dict[str, list[dict]] = {}
        for turn in range(3):
            for tool, settings in chosen.items():
                slow = turn and (tool not in runs or runs[tool][0]["wall"] > LONG)
                if (
                    slow
                    or "," in tool
                    or (report and tool != "dso" and (tool == "no tool" or found[tool]["wall"] > VERY_LONG))
                ):
                    continue
                out = data / "time" / tool.replace(" ", "_")
                command = worker(tool, settings, data, out, peer, draws=(0, 1), report=report)
                runs.setdefault(tool, []).append(measure(command, data / "time" / f"{tool.replace(' ', '_')}.log"))
        for tool, measured in runs.items():
            key = " with report" if report else ""
            found.setdefault(tool, {})[f"wall{key}"] = statistics.median(m["wall"] for m in measured)
            found[tool][f"peak{key}"] = max(m["peak"] for m in measured)
    return found


def drawn(name: str, chosen: dict[str, dict], work: pathlib.Path, peer: str, limit: int | None) -> dict[str, dict]:
    """All noise draws of every tool: errors, coverage, hold-out."""
    data, found = work / name, {}
    count = json.loads((data / "problem.json").read_text())["draws"]
    for tool, settings in chosen.items():
        out = data / "draws" / tool.replace(" ", "_")
        timed_out = data / "time" / tool.replace(" ", "_")
        if count == 1 and timed_out.exists():
            out = timed_out
        else:
            shutil.rmtree(out, ignore_errors=True)
            last = 1 if count == 1 else min(count, limit or count)
            measure(worker(tool, settings, data, out, peer, draws=(0, last), report=False), out.with_suffix(".log"))
        folder = (out / "summary.json").exists()
        if name == problems.REAL:
            found[tool] = score.real(data, out / ("model.xml" if folder else "draw0.mjb"))
        else:
            found[tool] = score.cli(name, data, out) if folder else score.all_draws(name, data, out)
    return found


def environment(given: str | None) -> str:
    """A Python with mujoco[sysid]: the one given, or one made from the locked requirements."""
    if given:
        return given
    folder = ROOT / ".cache" / "identify" / "peers"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        locked = ROOT / "requirements" / "bench.txt"
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(locked)], check=True
        )
    return str(python)


def main() -> None:
    """The chosen phases of the chosen problems."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=NAMES, choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument("--phase", nargs="+", default=PHASES, choices=PHASES)
    parser.add_argument("--peer-python", help="a Python that has mujoco[sysid]==3.17.0")
    parser.add_argument(
        "--work", default=ROOT / ".cache" / "identify", type=pathlib.Path, help="folder for logs and results"
    )
    parser.add_argument("--tool", nargs="+", help="only these, such as dso or 'no tool'")
    parser.add_argument("--draws", type=int, help="at most so many noise draws")
    args = parser.parse_args()
    peer = environment(args.peer_python) if {"time", "draws"} & set(args.phase) else ""
    for name in args.only:
        if "record" in args.phase:
            if name == problems.REAL:
                problems.write_real(args.work / name)
            else:
                problems.write(next(p for p in problems.PROBLEMS if p.name == name), args.work / name)
        chosen = {tool: how for tool, how in tools(name).items() if args.tool is None or tool in args.tool}
        measured: list[dict] = []
        if "time" in args.phase:
            measured.append(timed(name, chosen, args.work, peer))
        if "draws" in args.phase:
            measured.append(drawn(name, chosen, args.work, peer, args.draws))
        here = keep(name, measured)
        print(name, *(f"  {tool}: {score.line(row)}" for tool, row in here.items()), sep="\n", flush=True)
    if "page" in args.phase:
        import identify_page

        identify_page.write(json.loads(RESULTS.read_text()), ROOT)


def keep(name: str, measured: list[dict[str, dict]]) -> dict[str, dict]:
    """Add measurements to results/identify.json; returns all measurements of the problem."""
    results = begun(RESULTS, {"problems": {}})
    results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    here = results["problems"].setdefault(name, {})
    for rows in measured:
        for tool, row in rows.items():
            here.setdefault(tool, {}).update(row)
    results["problems"][name] = {tool: here[tool] for tool in tools(name) if tool in here}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return results["problems"][name]


if __name__ == "__main__":
    main()
