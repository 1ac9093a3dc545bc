"""One recording: time, controls and sensor channels, checked at construction."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dso_robotics.errors import DsoError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Rollout:
    """One uninterrupted recording of a mechanism.

    name: name of the rollout.
    time: (T,) [s], strictly increasing, not necessarily uniform.
    ctrl: (T, nu), held from `time[t]` to `time[t + 1]`. A channel that is NaN at every sample was not recorded and is left out.
    ctrl_names: (nu,).
    ctrl_units: (nu,).
    sensordata: (T, ns), NaN where a channel was not measured, also throughout.
    sensor_names: (ns,).
    sensor_units: (ns,).
    qpos: (T, nq), if the state was recorded.
    qvel: (T, nv), if the state was recorded.
    An unknown unit is the empty string. If no unit is known, the tuples of units may be left out.

    Arrays are converted to read-only float64. Raises DsoError naming the rollout, the channel and the sample when a length, a
    name, the time or a value is invalid.
    """

    name: str
    time: Array
    ctrl: Array | None = None
    ctrl_names: tuple[str, ...] = ()
    ctrl_units: tuple[str, ...] = ()
    sensordata: Array | None = None
    sensor_names: tuple[str, ...] = ()
    sensor_units: tuple[str, ...] = ()
    qpos: Array | None = None
    qvel: Array | None = None

    def __repr__(self) -> str:
        length = f"{len(self.time):,} samples, {self.time[-1] - self.time[0]:.4g} s" if len(self.time) else "no samples"
        lines = [f"Rollout {self.name!r}: {length}"]
        for kind, prefix in (("ctrl", "ctrl"), ("sensordata", "sensor")):
            channels = zip(getattr(self, f"{prefix}_names"), getattr(self, f"{prefix}_units"), strict=True)
            if shown := [f"{name} [{unit}]" if unit else name for name, unit in channels]:
                lines.append(
                    f"  {kind:<10}  {', '.join(shown[:12])}{f' and {len(shown) - 12} more' if shown[12:] else ''}"
                )
        state = [
            f"{kind} ({values.shape[1]})" for kind in ("qpos", "qvel") if (values := getattr(self, kind)) is not None
        ]
        return "\n".join([*lines, *([f"  state       {', '.join(state)}"] if state else [])])

    def __post_init__(self):
        where = f"rollout {self.name!r}"
        if not self.name or "/" in self.name or self.name in (".", ".."):
            raise DsoError(f"{where}: a rollout name is not empty and has no slash; rename it.")
        _check_text([self.name], "a rollout name")
        time = _array(self.time, 1, f"{where}, time")
        _check_time(time, where)
        object.__setattr__(self, "time", time)
        for kind, prefix in (("ctrl", "ctrl"), ("sensordata", "sensor")):
            values = getattr(self, kind)
            names = tuple(getattr(self, f"{prefix}_names"))
            units = tuple(getattr(self, f"{prefix}_units")) or ("",) * len(names)
            if values is None:
                if names:
                    raise DsoError(f"{where}: has names of {kind} channels but no {kind}; give both or neither.")
            else:
                values = _array(values, 2, f"{where}, {kind}")
                _check_length(values, time, f"{where}, {kind}")
                _check_names(names, units, values.shape[1], f"{where}, {kind}")
                if kind == "ctrl":
                    values, names, units = _recorded(values, names, units)
                    _check_finite(values, names, time, f"{where}, {kind}")
                    values = values if names else None
                else:
                    _check_sensors(values, names, time, f"{where}, {kind}")
            object.__setattr__(self, kind, values)
            object.__setattr__(self, f"{prefix}_names", names)
            object.__setattr__(self, f"{prefix}_units", units)
        for kind in ("qpos", "qvel"):
            if (values := getattr(self, kind)) is not None:
                values = _array(values, 2, f"{where}, {kind}")
                _check_length(values, time, f"{where}, {kind}")
                _check_finite(values, [f"{kind}[{i}]" for i in range(values.shape[1])], time, f"{where}, {kind}")
                object.__setattr__(self, kind, values)

    def sensor(self, name: str) -> Array:
        """Values (T,) of the sensor channel `name`. Raises DsoError listing the valid names when there is none."""
        return _column(self.sensordata, self.sensor_names, name, f"rollout {self.name!r}, sensordata")

    def control(self, name: str) -> Array:
        """Values (T,) of the control channel `name`. Raises DsoError listing the valid names when there is none."""
        return _column(self.ctrl, self.ctrl_names, name, f"rollout {self.name!r}, ctrl")

    def ordered_like(self, other: "Rollout") -> "Rollout":
        """This rollout with its channels in the order of `other`, if both have the same channels; otherwise unchanged."""
        changes: dict[str, Any] = {}
        for kind, prefix in (("ctrl", "ctrl"), ("sensordata", "sensor")):
            mine, theirs = getattr(self, f"{prefix}_names"), getattr(other, f"{prefix}_names")
            if mine != theirs and sorted(mine) == sorted(theirs):
                order = [mine.index(name) for name in theirs]
                units = getattr(self, f"{prefix}_units")
                changes |= {kind: getattr(self, kind)[:, order], f"{prefix}_names": theirs}
                changes[f"{prefix}_units"] = tuple(units[i] for i in order)
        return replace(self, **changes) if changes else self


def nearest(name: str, names: tuple[str, ...]) -> str:
    """`" Did you mean 'x'?"` for the closest of `names`, or an empty string if none is close."""
    close = get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(names: tuple[str, ...]) -> str:
    """Names as text for a message: at most twelve and the total number; `none` for an empty tuple.

    What a damaged file calls a name may be long or hold line ends: each is cut, and unprintable characters are escaped.
    """
    shown = ", ".join(_shown(name) for name in names[:12])
    return (shown + (f", ... ({len(names)} in all)" if len(names) > 12 else "")) or "none"


def _shown(name: str) -> str:
    plain = name if name.isprintable() else ascii(name)[1:-1]
    return plain if len(plain) <= 200 else f"{plain[:200]}..."


def duplicates(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _column(values: Array | None, names: tuple[str, ...], name: str, where: str) -> Array:
    if values is None or name not in names:
        raise DsoError(f"{where} has no channel {name!r}.{nearest(name, names)} Its channels: {listed(names)}.")
    return values[:, names.index(name)]


def _array(values: Any, rank: int, where: str) -> Array:
    try:
        array = np.array(values)
    except ValueError as error:
        raise DsoError(f"{where}: rows differ in length ({error}); give a rectangular array.") from error
    if array.dtype.kind not in "fiu":
        raise DsoError(f"{where}: has values of type {array.dtype}, not real numbers; store floats.")
    if array.ndim != rank:
        expected = "(samples,)" if rank == 1 else "(samples, channels)"
        raise DsoError(f"{where}: has shape {array.shape}, expected {expected}; reshape it.")
    if rank == 2 and array.shape[1] == 0:
        raise DsoError(f"{where}: has no channels (shape {array.shape}); leave it out instead.")
    array = np.ascontiguousarray(array, dtype=np.float64)
    array.flags.writeable = False
    return array


def _check_time(time: Array, where: str) -> None:
    if len(time) < 2:
        raise DsoError(f"{where}: has {len(time)} sample(s); at least 2 are needed, so remove the rollout.")
    if not np.isfinite(time).all():
        t = int(np.argmin(np.isfinite(time)))
        raise DsoError(f"{where}: time is {time[t]} at sample {t}; remove that sample or repair its time stamp.")
    back = np.flatnonzero(np.diff(time) <= 0)
    if len(back):
        t = int(back[0]) + 1
        raise DsoError(
            f"{where}: time does not increase at sample {t} ({time[t]:.9g} s after {time[t - 1]:.9g} s"
            f"{f', and {len(back) - 1} more' if len(back) > 1 else ''}); sort the samples, drop repeated stamps."
        )


def _check_length(values: Array, time: Array, where: str) -> None:
    if len(values) != len(time):
        raise DsoError(
            f"{where}: has {len(values)} samples but time has {len(time)}; each sample needs one time stamp, so cut or "
            "record both to the same length."
        )


def _check_names(names: tuple[str, ...], units: tuple[str, ...], count: int, where: str) -> None:
    if len(names) != count:
        raise DsoError(
            f"{where}: has {count} channel(s) but {len(names)} name(s) ({listed(names)}); name each channel."
        )
    if len(units) != count:
        raise DsoError(f"{where}: has {count} channel(s) but {len(units)} unit(s); give one each, '' where unknown.")
    empty = [i for i, name in enumerate(names) if not name]
    if empty:
        raise DsoError(f"{where}: channel {empty[0]} has an empty name; name each channel.")
    _check_text((*names, *units), f"{where}: a name or unit")
    if repeated := duplicates(names):
        raise DsoError(f"{where}: the name {repeated[0]!r} is given to several channels; names must differ.")


def _check_text(texts: Iterable[str], what: str) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DsoError(f"{what} is {text!r}, whose bytes are no UTF-8; rename it.") from None


def _check_finite(values: Array, names: Any, time: Array, where: str) -> None:
    if not np.isfinite(values).all():
        t, c = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise DsoError(
            f"{where}: channel {names[c]!r} is {values[t, c]} at sample {t} ({time[t]:.6g} s); this must be known at "
            "every sample, so cut the recording there or fill the value in."
        )


def _recorded(
    values: Array, names: tuple[str, ...], units: tuple[str, ...]
) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """Control channels without those that are NaN at every sample."""
    kept = np.flatnonzero(~np.isnan(values).all(axis=0))
    if len(kept) == len(names):
        return values, names, units
    values = np.ascontiguousarray(values[:, kept])
    values.flags.writeable = False
    return values, tuple(names[i] for i in kept), tuple(units[i] for i in kept)


def _check_sensors(values: Array, names: tuple[str, ...], time: Array, where: str) -> None:
    if np.isinf(values).any():
        t, c = (int(i) for i in np.argwhere(np.isinf(values))[0])
        raise DsoError(
            f"{where}: channel {names[c]!r} is {values[t, c]} at sample {t} ({time[t]:.6g} s); store NaN where nothing "
            "was measured."
        )
