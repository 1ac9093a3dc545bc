"""mujoco.sysid on one problem of `identify.py`, used as its README and tutorial notebook recommend. Needs mujoco[sysid] only.

Run: python identify_sysid.py FOLDER OUT FIRST LAST SETTINGS.json [--report]
For each draw it writes OUT/drawK.mjb and one entry of OUT/result.json.
"""

import json
import pathlib
import sys
import time

import mujoco
import numpy as np
from mujoco import sysid


def main(folder: pathlib.Path, out: pathlib.Path, first: int, last: int, settings: dict, report: bool) -> None:
    """Fit every draw in turn."""
    out.mkdir(parents=True, exist_ok=True)
    problem = json.loads((folder / "problem.json").read_text())
    results = [fit(problem, folder, out, draw, settings, report) for draw in range(first, last)]
    (out / "result.json").write_text(json.dumps(results))


def fit(problem: dict, folder: pathlib.Path, out: pathlib.Path, draw: int, settings: dict, report: bool) -> dict:
    """Define parameters, package data, build the residual, optimise, save."""
    began = time.perf_counter()
    spec = mujoco.MjSpec.from_file(str(folder / "model.xml"))
    model = spec.compile()
    pieces = np.load(folder / f"draw{draw}.npz")
    count = sum(key.startswith("time") for key in pieces)
    params = sysid.ParameterDict()
    for free in problem["free"]:
        params.add(parameter(free, spec, model))
    build = {}
    if "delay" in settings:
        init, low, high = settings["delay"]
        params.add(sysid.Parameter("delay", init, low, high))
        transform = sysid.SignalTransform()
        transform.delay("*", params["delay"])
        build["modify_residual"] = transform.apply
    starts = [sysid.create_initial_state(model, pieces[f"qpos{k}"], pieces[f"qvel{k}"]) for k in range(count)]
    if settings.get("start_hook"):
        # mujoco.sysid has no start states to estimate; its hook for a rollout of one's own can be used for them.
        params.add(sysid.Parameter("start", starts[0][1:], starts[0][1:] - 5.0, starts[0][1:] + 5.0))
        build["custom_rollout"] = rollout_from_own_start
    # Its rollouts stamp the reading of the state before a step with the time after it, so its logs must be stamped like that.
    shift = model.opt.timestep
    control = [sysid.TimeSeries.from_control_names(pieces[f"time{k}"], pieces[f"ctrl{k}"], model) for k in range(count)]
    sensors = [
        sysid.TimeSeries.from_names(pieces[f"time{k}"] + shift, pieces[f"sensor{k}"], model) for k in range(count)
    ]
    names = [f"run{k}" for k in range(count)]
    sequences = sysid.ModelSequences(problem["name"], spec, names, starts, control, sensors)
    residual = sysid.build_residual_fn(models_sequences=[sequences], **build)
    options = {key: settings[key] for key in ("x_scale", "loss") if key in settings}
    if "noise_scale" in settings:
        # f_scale in units of its normalised residual: noise over the channel's norm / sqrt(2).
        norm = np.linalg.norm(pieces["sensor0"], axis=0) / np.sqrt(2)
        half = len(norm) // 2
        options["f_scale"] = float(
            np.median(np.r_[[settings["noise_scale"][0]] * half, [settings["noise_scale"][1]] * half] / norm)
        )
    found, result = sysid.optimize(
        initial_params=params, residual_fn=residual, optimizer=settings.get("optimizer", "mujoco"), **options
    )
    seconds = time.perf_counter() - began
    residuals, _, _ = residual(result.x, found, return_pred_all=True)
    _, half_widths = sysid.calculate_intervals(residuals, result.jac)
    sysid.save_results(str(out / f"saved{draw}"), [sequences], params, found, result, residual)
    if report:
        sysid.default_report(
            models_sequences=[sequences], initial_params=params, opt_params=found, residual_fn=residual, opt_result=result,
            save_path=out / f"saved{draw}", generate_videos=False,
        )  # fmt: skip
    fitted = sysid.apply_param_modifiers(found, mujoco.MjSpec.from_file(str(folder / "model.xml")))
    mujoco.mj_saveModel(fitted, str(out / f"draw{draw}.mjb"))
    values, begin = {}, 0
    for name, p in found.items():
        for i in range(p.size):
            width = float(half_widths[begin + i])
            values[name if p.size == 1 else f"{name}[{i}]"] = [
                float(p.value[i]),
                p.value[i] - width,
                p.value[i] + width,
            ]
        begin += p.size
    return {"draw": draw, "values": values, "seconds": seconds}


def parameter(free: dict, spec: mujoco.MjSpec, model: mujoco.MjModel) -> sysid.Parameter:
    """A path of dso as a parameter with the modifier of mujoco.sysid's README for such a quantity."""
    kind, name, field = free["path"].split("/")
    if field == "inertia":
        return sysid.body_inertia_param(
            spec, model, name, inertia_type=sysid.InertiaType.Pseudo, param_name=free["path"],
            modifier=lambda s, p: mend(s, sysid.apply_body_inertia(s, name, p), name),
        )  # fmt: skip
    attribute, _, index = field.rstrip("]").partition("[")
    at = int(index or 0)

    def modify(s: mujoco.MjSpec, p: sysid.Parameter) -> None:
        thing = getattr(s, kind)(name)
        value = getattr(thing, attribute)
        if isinstance(value, np.ndarray):
            value[at] = p.value[0]
        else:
            setattr(thing, attribute, p.value[0])

    return sysid.Parameter(free["path"], free["init"], free["low"], free["high"], modifier=modify)


def mend(spec: mujoco.MjSpec, _: object, name: str) -> None:
    """In 3.17.0 the default modifier leaves NaN in iquat, and every pseudo-inertia fails to compile; this repairs it."""
    spec.body(name).iquat = [1, 0, 0, 0]


def rollout_from_own_start(*, param_dicts, initial_states, **rest):
    """The default rollout, started at the start state in the parameter dictionary."""
    each = len(initial_states) // len(param_dicts)
    starts = [np.r_[0.0, p["start"].value] for p in param_dicts for _ in range(each)]
    return sysid.sysid_rollout(initial_states=starts, **rest)


if __name__ == "__main__":
    folders, draws = map(pathlib.Path, sys.argv[1:3]), map(int, sys.argv[3:5])
    main(*folders, *draws, json.loads(sys.argv[5]), "--report" in sys.argv)
