"""The model beside a trained estimator or policy: whether it is the one of the training. And numbers that a caller gives."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dso_robotics.data.bundle import digest_of_files
from dso_robotics.data.match import sensor_channels
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot, load

LARGEST = 1e10
"""MuJoCo treats a simulation with larger numbers as diverged, and ignores larger controls."""
DIGEST = "model_digest"
_MODEL = "model.xml"
# Meshes may be moved together with a result.
_PLACES = re.compile(r'\b(?:meshdir|texturedir|assetdir|file)="[^"]*"')
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def model_digest(mjcf: str, beside: Path) -> str:
    """SHA-256 of an MJCF text without its comments, its spaces and the places of its files, and of these files' contents.

    beside: the folder that relative places are relative to.
    """
    bare = "".join(_PLACES.sub("", _COMMENT.sub("", mjcf)).split()) + digest_of_files(mjcf, beside)
    return hashlib.sha256(bare.encode()).hexdigest()


def model_beside(folder: Path, tree: Mapping[str, Any]) -> tuple[Robot, str]:
    """The robot in model.xml of a result, and its text.

    tree: contents of the result's run.h5.

    Raises:
      DsoError: there is no such model, or it is not the one that the run wrote.
    """
    path = folder / _MODEL
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise DsoError(f"{path}: the model of this result cannot be read ({reason}); copy the whole folder.") from error
    stored = tree.get(DIGEST)
    if stored is not None and stored != model_digest(text, folder):
        raise DsoError(
            f"{path}: this is not the model that the run wrote: it or a mesh of it was changed afterwards, and what was "
            "trained need not fit it; put the file back, or run the study again with the new model."
        )
    return load(path), text


def check_sensors(model: mujoco.MjModel, names: Sequence[str], addresses: np.ndarray, source: str) -> None:
    """Check that each named channel has the position in `sensordata` that it had in training.

    Raises:
      DsoError: a channel is missing or elsewhere.
    """
    channels = sensor_channels(model)
    for name, address in zip(names, addresses, strict=True):
        if name not in channels or channels[name][1] != int(address):
            found = f"at {channels[name][1]}" if name in channels else "missing"
            raise DsoError(
                f"{source}: sensor channel {name!r} was reading {int(address)} of the model in training and is {found} in this "
                "one, so this is not the model that the estimator was learned for; put that back, or run the study again."
            )


def checked_numbers(name: str, value: Any, size: int, owner: str) -> np.ndarray:
    """`value` as an array (size,) of finite numbers.

    Raises:
      DsoError: it is of another type or size, or a number is not finite or beyond `LARGEST`.
    """
    given = as_numbers(name, value)
    if given.shape != (size,):
        raise DsoError(f"{name} has shape {given.shape}, but the {owner} is ({size},); give {size} numbers.")
    good = np.abs(given) < LARGEST
    if not good.all():
        raise DsoError(f"{name} holds {given[~good][0]}; give finite numbers below {LARGEST:g}.")
    return given


def as_numbers(name: str, value: Any) -> np.ndarray:
    """A new float array. Raises DsoError for anything that is not real numbers in a rectangle."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufO":
            raise TypeError
        return np.array(array, float)
    except (TypeError, ValueError, OverflowError):
        raise DsoError(f"{name} is {_shown(value)}, not numbers; give a list or an array of them.") from None


def as_number(name: str, value: Any) -> float:
    """A float. Raises DsoError for anything else than one finite real number."""
    number = as_numbers(name, value)
    if number.size != 1 or not np.isfinite(number).all():
        raise DsoError(f"{name} is {_shown(value)}, not a finite number; give one.")
    return float(number.reshape(()))


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
