"""A policy as JSON: all that a runner in another program needs, in full precision. docs/deployment.md has the formulas."""

import json
import math
from collections.abc import Sequence
from typing import Any

from dso_robotics import __version__
from dso_robotics.robot.policy_numbers import PolicyNumbers

SCHEMA, SCHEMA_VERSION = "dso-policy", 2


def policy_json(numbers: PolicyNumbers, *, source: str) -> str:
    """The text of the file. source: what made it."""
    return json.dumps(policy_table(numbers, source=source), indent=1, ensure_ascii=False) + "\n"


def policy_table(numbers: PolicyNumbers, *, source: str) -> dict[str, Any]:
    """The content of the file as plain lists, numbers and strings."""
    n, width = numbers, len(numbers.labels)
    parts = [part.tolist() for part in n.split()]
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "made_by": f"dso {__version__}",
        "source": source,
        "state": {"nq": n.nq, "nv": n.nv, "na": n.na},
        "control": {
            "period": n.period,
            "unit_of_period": "s",
            "delay_steps": n.delay,
            "names": list(n.ctrl_names),
            "squash": ["tanh" if limited else "none" for limited in n.limited],
            "offset": n.middle.tolist(),
            "scale": n.half.tolist(),
            "shift": n.shift.tolist(),
            "gain": n.gain.tolist(),
            "step": [step if math.isfinite(step) else None for step in n.step.tolist()],
            "home": n.home.tolist(),
        },
        "observation": {
            "of": "sensors" if n.columns else "estimate" if n.on_estimate else "state",
            "entries": _entries(n),
            "mean": n.mean[:width].tolist(),
            "spread": n.spread[:width].tolist(),
        },
        "tasks": [
            {"name": name, "low": low, "high": high, "first": first, "mean": mean, "spread": spread}
            for name, low, high, first, mean, spread in zip(
                n.tasks,
                n.task_low.tolist(),
                n.task_high.tolist(),
                n.task_first.tolist(),
                n.mean[width:].tolist(),
                n.spread[width:].tolist(),
                strict=True,
            )
        ],
        "time": {"features": n.features, "kind": "waves" if n.cyclic else "bumps", "clock": n.clock}
        if n.features
        else None,
        "memory": n.memory,
        "network": {"kind": n.kind, **_network(n.kind, parts)},
    }


def _entries(n: PolicyNumbers) -> list[dict[str, Any]]:
    """Where each observed value comes from, in order."""
    if n.columns:
        places = [("sensordata", at, "none") for at in n.columns]
    else:
        places = [("qpos", at, "none") for at in n.plain]
        places += [("qpos", at, function) for function in ("sin", "cos") for at in n.turning]
        places += [("qvel", at, "none") for at in range(n.nv)] + [("act", at, "none") for at in range(n.na)]
    rows = zip(n.labels, places, strict=True)
    return [{"name": name, "from": array, "index": at, "function": does} for name, (array, at, does) in rows]


def _network(kind: str, parts: Sequence[Any]) -> dict[str, Any]:
    """Matrices and offsets by name."""
    if kind in ("brain", "gated"):
        names = ("input", "recurrent", "bias")
        gate = {"gate": dict(zip(names, parts[3:6], strict=True))} if kind == "gated" else {}
        out = dict(zip(("memory", "input", "bias"), parts[-3:], strict=True))
        return {"units": dict(zip(names, parts[:3], strict=True)), **gate, "output": out, "activation": "tanh"}
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    layers = [{"weight": weight, "bias": bias, "activation": "tanh"} for weight, bias in pairs]
    layers[-1]["activation"] = "none"
    return {"layers": layers}
