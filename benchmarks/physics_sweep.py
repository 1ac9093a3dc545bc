"""Sweep: the differentiable step against C MuJoCo on every model in gymnasium and dm_control.

    python benchmarks/physics_sweep.py                      # all models not yet measured with this code, smallest first
    python benchmarks/physics_sweep.py --only gymnasium/hopper --again
    python benchmarks/physics_sweep.py --folder my_robots   # any other folder of XML files, named after it
    python benchmarks/physics_sweep.py --table              # only write docs/models.md again

Every model runs in its own process with a time limit. Results are written to benchmarks/results/physics_sweep.json after each
model, and docs/models.md is made from that file. Needs `pip install --no-deps gymnasium dm_control`, for their files only.
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib
import subprocess
import sys

import mujoco

from dso_robotics.cli.jax_setup import add_xla_flags, quick_to_compile

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "physics_sweep.json"
PAGE = ROOT / "docs" / "models.md"
SOURCES = {"gymnasium": "envs/mujoco/assets", "dm_control": "suite"}
VERSIONS = ("mujoco", "mujoco-mjx", "jax", "gymnasium", "dm_control")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", action="append", default=[], help="folder of XML files instead of the two packages")
    parser.add_argument("--states", type=int, default=20, help="states a model is compared on (default 20)")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a model may take (default 900)")
    parser.add_argument("--only", action="append", default=[], metavar="SOURCE/MODEL", help="these models alone")
    parser.add_argument("--again", action="store_true", help="also models that this code has measured")
    parser.add_argument("--table", action="store_true", help="run nothing, write the page")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(examine(args.one, args.states)))
        return
    found, now = read(), code()
    if not args.table:
        files = {k: v for k, v in model_files(args.folder).items() if not args.only or k in args.only}
        for name, path in sorted(files.items(), key=lambda item: size(item[1])):
            if found["models"].get(name, {}).get("code") == now and not args.again:
                continue
            print(name, end=" ", flush=True)
            result = bounded(path, args.states, args.limit) | {"code": now}
            # A compilation cache may be in use: what counts is how long it took without.
            before = found["models"].get(name, {})
            before = before.get("compile_seconds", 0.0) if before.get("code") == now else 0.0
            if "compile_seconds" in result:
                result["compile_seconds"] = max(before, result["compile_seconds"])
            found = read()  # another sweep may have written meanwhile
            found["models"][name] = result
            found["command"] = f"python benchmarks/physics_sweep.py --states {args.states} --limit {args.limit:g}"
            found["versions"] = found.get("versions", {}) | versions()
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            print(result.get("refused") or result.get("failed") or f"step {result['step']:.1e}", flush=True)
    from physics_sweep_page import page

    PAGE.write_text(page(found))


def code() -> str:
    """Hash of the measured code, so that one table never mixes two versions."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "dso_robotics" / "physics").glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def read() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"models": {}}


def model_files(folders: list[str]) -> dict[str, pathlib.Path]:
    """Models by name, `source/stem`."""
    places = {pathlib.Path(folder).resolve().name: pathlib.Path(folder) for folder in folders}
    if not places:
        for package, inside in SOURCES.items():
            spec = importlib.util.find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                sys.exit(f"{package} is not installed: pip install --no-deps {package}")
            places[package] = pathlib.Path(spec.submodule_search_locations[0]) / inside
    return {f"{source}/{path.stem}": path for source, place in places.items() for path in sorted(place.glob("*.xml"))}


def size(path: pathlib.Path) -> float:
    """Approximate cost of compiling the model, for the order."""
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError:
        return 0.0
    return model.nv + 0.3 * model.ngeom + model.ntendon


def bounded(path: pathlib.Path, states: int, limit: float) -> dict:
    """`examine` in its own process."""
    command = [sys.executable, __file__, "--one", str(path), "--states", str(states)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"not finished after {limit:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["?"])[-1]
        return {"failed": f"exit status {done.returncode}: {last[:300]}"}
    return json.loads(done.stdout.splitlines()[-1])


def examine(path: str, states: int) -> dict:
    """Load the model and compare it with C, or return the reason why not."""
    add_xla_flags(*quick_to_compile())
    import jax

    jax.config.update("jax_enable_x64", True)
    from dso_robotics.errors import DsoError
    from dso_robotics.physics.agreement import agreement
    from dso_robotics.physics.device import put_model
    from dso_robotics.physics.model import load

    try:
        model = load(path).mj
        if model.nv == 0:
            return {"refused": "the file has no joints: the package completes it in Python"}
        put_model(model, source=pathlib.Path(path).name)
    except DsoError as error:
        return {"refused": str(error).replace(str(pathlib.Path(path).parent), "").lstrip("/")}
    option = model.opt
    about = {
        "nv": model.nv,
        "nu": model.nu,
        "integrator": mujoco.mjtIntegrator(option.integrator).name.removeprefix("mjINT_").lower(),
        "cone": mujoco.mjtCone(option.cone).name.removeprefix("mjCONE_").lower(),
        "solver": mujoco.mjtSolver(option.solver).name.removeprefix("mjSOL_"),
    }
    return about | dataclasses.asdict(agreement(model, count=states))


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
