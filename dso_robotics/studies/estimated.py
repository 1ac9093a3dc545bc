"""Numbers that every identification estimates in addition to theta: noise scales and start states.

They are not part of the vector: the likelihood gives each scale in closed form, and a start state belongs to one window.
If `sensor/NAME/noise` or `log/NAME/initial_state` is freed, the table of parameters lists them with intervals.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dso_robotics.core.covariance import Z95, Uncertainty
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.match import Channels
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, escape, has_noise, matches, noise_named, noise_path
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import nearest
from dso_robotics.physics.state import Tangent

_STATE = re.compile(r"^log/(?P<name>[^/]+)/initial_state$")


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which of these numbers a study names.

    noise: channels with the bounds (low, high) of their scale; equal bounds if the scale is known.
    reported: channels whose scale is in the table.
    states: recordings whose first start state is in the table.
    """

    noise: Mapping[str, tuple[float, float]]
    reported: tuple[str, ...]
    states: tuple[str, ...]


def split_free(
    free: Sequence[Declaration], known: Mapping[str, float], channels: Channels, rollouts: Sequence[str], source: str
) -> tuple[tuple[Declaration, ...], Asked]:
    """The declarations of theta, and the numbers requested by the other declarations and the `known` noise scales.

    Raises:
      DsoError: a channel or recording that does not exist, or numbers that do not fit.
    """
    rest, noise, reported, states = [], {name: (sigma, sigma) for name, sigma in known.items()}, [], []
    for name in known:
        if name not in channels.sensor_names:
            raise DsoError(
                f"{source}: noise is given for '{name}', which is no channel; the channels are "
                f"{', '.join(channels.sensor_names)}."
            )
    for declared in free:
        scale, state = noise_named(declared.path), _STATE.match(declared.path)
        if scale:
            found = [n for c, n in enumerate(channels.sensor_names) if has_noise(scale, *_sensor(channels, c))]
            if not found:
                raise DsoError(
                    f"{declared.path}: no channel is called '{scale[0]}'; the channels are "
                    f"{nearest(scale[0], channels.sensor_names, 8)}."
                )
            low, high = declared.low or 0.0, np.inf if declared.high is None else declared.high
            if low < 0 or declared.prior is not None:
                raise DsoError(f"{declared.path}: a noise scale has bounds @LOW:HIGH from 0 on, and no prior.")
            noise |= {n: (low, high) for n in found if n not in known}
            reported += found
        elif state:
            found = [n for n in rollouts if matches(n, state["name"])]
            if not found:
                raise DsoError(
                    f"{declared.path}: no recording is called '{state['name']}'; the recordings to fit are "
                    f"{nearest(state['name'], rollouts, 8)}."
                )
            if (declared.init, declared.low, declared.high, declared.prior) != (None, None, None, None):
                raise DsoError(f"{declared.path}: a start state begins as measured; leave =INIT and @LOW:HIGH out.")
            states += found
        else:
            rest.append(declared)
    return tuple(rest), Asked(noise, tuple(dict.fromkeys(reported)), tuple(dict.fromkeys(states)))


def _sensor(channels: Channels, c: int) -> tuple[str, str]:
    """Name of the sensor that channel `c` belongs to and, where it has several components, the index `[k]` of this one."""
    name = channels.sensor_names[c]
    if (channels.sensor_ids == channels.sensor_ids[c]).sum() == 1:
        return name, ""
    stem, _, index = name.rpartition("[")
    return stem, f"[{index}"


def table(
    asked: Asked,
    vector: ParameterVector,
    problem: WindowedIdentification,
    solution: Solution,
    spread: Uncertainty,
    begun: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """Rows for the table of parameters; `begun` are the noise scales (C,) and start states (B, nq+nv+na) of the start."""
    channels, rows = problem.windows.channels, {}
    sigma, deviation = problem.pooled_sigma(), problem.noise_deviation(solution.z, solution.x)
    for name in asked.reported:
        c = channels.sensor_names.index(name)
        low, high = asked.noise[name]
        factor = 1.0 if low == high else float(np.exp(Z95 * deviation[c]))
        rows[noise_path(*_sensor(channels, c))] = _row(
            sigma[c],
            begun[0][c],
            channels.sensor_units[c],
            sigma[c] / factor,
            sigma[c] * factor,
            sigma[c] in (low, high),
        )
    tangent, model = Tangent(vector.mj), vector.mj
    units = _state_units(vector)
    for name in asked.states:
        recording = [r.name for r in problem.windows.rollouts].index(name)
        window = int(np.flatnonzero(problem.windows.rollout == recording)[0])
        x = solution.x[window]
        h = 1e-6 * np.eye(tangent.size)
        slope = (tangent.move(np.tile(x, (len(h), 1)), h) - tangent.move(np.tile(x, (len(h), 1)), -h)).T / 2e-6
        covariance = slope @ solution.private_covariance(window, spread.covariance) @ slope.T
        half = Z95 * np.sqrt(np.maximum(np.diag(covariance), 0.0))
        for k in range(model.nq + model.nv + model.na):
            rows[f"log/{escape(name)}/initial_state[{k}]"] = _row(
                x[k], begun[1][window, k], units[k], x[k] - half[k], x[k] + half[k], False
            )
    return rows


def _row(value: float, initial: float, unit: str, low: float, high: float, at_bound: bool) -> dict[str, Any]:
    return {
        "value": float(value),
        "initial": float(initial),
        "unit": unit,
        "low95": float(low),
        "high95": float(high),
        "at_bound": bool(at_bound),
        "determined": True,
    }


def _state_units(vector: ParameterVector) -> list[str]:
    model, position, velocity = vector.mj, [], []
    for kind in map(int, model.jnt_type):
        position += {0: ["m"] * 3 + ["1"] * 4, 1: ["1"] * 4, 2: ["m"], 3: ["rad"]}[kind]
        velocity += {0: ["m/s"] * 3 + ["rad/s"] * 3, 1: ["rad/s"] * 3, 2: ["m/s"], 3: ["rad/s"]}[kind]
    return position + velocity + ["1"] * int(model.na)
