"""Units that people log in, and the factor from one to another."""

import re

from dso_robotics.physics.unit import canonical

# Factor to the SI unit of each dimension.
_FACTORS: dict[str, dict[str, float]] = {
    "angle": {
        "rad": 1.0,
        "mrad": 1e-3,
        "deg": 0.017453292519943295,
        "rev": 6.283185307179586,
        "turn": 6.283185307179586,
    },
    "angular speed": {
        "rad/s": 1.0,
        "mrad/s": 1e-3,
        "deg/s": 0.017453292519943295,
        "rev/s": 6.283185307179586,
        "rpm": 0.10471975511965977,
    },
    "angular acceleration": {"rad/s^2": 1.0, "deg/s^2": 0.017453292519943295},
    "length": {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "km": 1e3, "in": 0.0254},
    "speed": {"m/s": 1.0, "cm/s": 1e-2, "mm/s": 1e-3, "km/h": 1 / 3.6},
    "acceleration": {"m/s^2": 1.0, "cm/s^2": 1e-2, "mm/s^2": 1e-3, "g": 9.80665, "mg": 9.80665e-3},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0},
    "force": {"n": 1.0, "mn": 1e-3, "kn": 1e3},
    "torque": {"n*m": 1.0, "mn*m": 1e-3, "n*cm": 1e-2, "n*mm": 1e-3, "kn*m": 1e3},
    "mass": {"kg": 1.0, "g": 1e-3},
    "inertia": {"kg*m^2": 1.0, "kg*cm^2": 1e-4, "kg*mm^2": 1e-6, "g*m^2": 1e-3, "g*cm^2": 1e-7, "g*mm^2": 1e-9},
    "torque constant": {"n*m/a": 1.0, "mn*m/a": 1e-3, "n*cm/a": 1e-2},
    "resistance": {"ohm": 1.0, "mohm": 1e-3},
    "current": {"a": 1.0, "ma": 1e-3},
    "voltage": {"v": 1.0, "mv": 1e-3},
    "power": {"w": 1.0, "mw": 1e-3, "kw": 1e3},
    "ratio": {"1": 1.0, "%": 1e-2},
    "magnetic field": {"t": 1.0, "mt": 1e-3, "ut": 1e-6},
}
_SPELLINGS = {
    "mnm": "mn*m",
    "nmm": "n*mm",
    "ncm": "n*cm",
    "knm": "kn*m",
    "nm/a": "n*m/a",
    "mnm/a": "mn*m/a",
    "ncm/a": "n*cm/a",
    "kgm^2": "kg*m^2",
    "kgcm^2": "kg*cm^2",
    "kgmm^2": "kg*mm^2",
    "gm^2": "g*m^2",
    "gcm^2": "g*cm^2",
    "gmm^2": "g*mm^2",
    "ω": "ohm",
    "ohms": "ohm",
    "mω": "mohm",
    "dps": "deg/s",
    "rev/min": "rpm",
    "r/min": "rpm",
    "u/min": "rpm",
    "1/min": "rpm",
    "min^-1": "rpm",
    "turns": "turn",
    "turn/s": "rev/s",
    "turns/s": "rev/s",
    "revolutions": "rev",
    "msec": "ms",
    "usec": "us",
    "nsec": "ns",
    "milliseconds": "ms",
    "microseconds": "us",
    "nanoseconds": "ns",
    "minutes": "min",
    "percent": "%",
    "meters": "m",
    "metres": "m",
    "newtons": "n",
    "ampere": "a",
    "amperes": "a",
    "amps": "a",
    "volt": "v",
    "volts": "v",
}
_OTHERS = {
    "counts",
    "count",
    "ticks",
    "tick",
    "lsb",
    "bit",
    "bits",
    "steps",
    "raw",
    "c",
    "k",
    "degc",
    "bar",
    "pa",
    "kpa",
    "mpa",
    "hz",
}
_OTHERS |= {"khz", "j", "bool", "index", "kg*m^2", "n*m*s/rad", "none", "nm/rad", "n/m", "ohm", ""}
_BRACKETS = re.compile(r"^\s*(?:\((?P<round>[^()]*)\)|\[(?P<square>[^\[\]]*)\]|<(?P<angle>[^<>]*)>)\s*$")
_SUFFIX = re.compile(r"^.*\S\s*(?:\((?P<round>[^()]+)\)|\[(?P<square>[^\[\]]+)\])\s*$")


def spelled(unit: str) -> str:
    """One spelling of `unit`, without brackets, in lower case."""
    found = _BRACKETS.match(unit)
    text = next(part for part in found.groups() if part is not None) if found else unit
    text = canonical(text.replace("º", "°").replace("°", "deg").replace("µ", "u").replace("μ", "u"))
    text = text.replace("degrees", "deg").replace("degree", "deg").replace("radians", "rad").replace("sec", "s")
    return _SPELLINGS.get(text, _SPELLINGS.get(text.replace("*", ""), text))


def factor(unit: str, wanted: str) -> float | None:
    """The number by which values in `unit` are multiplied to be in `wanted`; None if it is not known."""
    here, there = spelled(unit), spelled(wanted)
    if here == there:
        return 1.0
    for units in _FACTORS.values():
        if here in units and there in units:
            return units[here] / units[there]
    return None


def unit_like(text: str) -> bool:
    """Whether a cell below a column's name may be its unit: `N*m`, `(deg)`, `°`, `-`, or nothing."""
    if _BRACKETS.match(text):
        return True
    unit = spelled(text)
    return unit in _OTHERS or any(unit in units for units in _FACTORS.values())


def unit_cell(text: str) -> str:
    """The unit in a cell below a column's name, without brackets; "" for none."""
    found = _BRACKETS.match(text)
    unit = (next(part for part in found.groups() if part is not None) if found else text).strip()
    return "" if unit == "-" else unit


def unit_in_name(name: str) -> str:
    """The unit that a column's name ends with: `deg` of `angle [deg]`; "" if it ends with none."""
    found = _SUFFIX.match(name)
    unit = next((part for part in found.groups() if part), "") if found else ""
    return unit if unit and not unit.strip().isdigit() and unit_like(unit) else ""
