"""Registered recordings that are not plain tables: converts their files to rollouts with names and units.

Each function takes one file as its authors published it, and the rollout's name (or the beginning of the names). It returns
the rollouts and further attributes of the log.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dso_robotics.data.archive import open_archive
from dso_robotics.data.rollout import Array, Rollout
from dso_robotics.errors import DsoError

# Duty cycle per radian of error and unit of firmware gain: 4096 counts a turn, gains in 1/256, full scale 885.
_DUTY = 4096 / (2 * np.pi) / 256 / 885
Converted = tuple[tuple[Rollout, ...], dict[str, float | str]]


def position_servo(path: Path, name: str) -> Converted:
    """A hobby servo that follows goal positions: a JSON file of entries, with the firmware's gain in its header.

    The firmware's duty cycle is `target` - `feedback` * angle, clipped to -1 and 1. The controls are `feedback` [1/rad], the
    gain; `target`, the gain times the goal; and `powered`, 1 or 0. While the torque is off, all three are 0.
    The sensors are `pos` [rad] and `vel` [rad/s]. The times are those of the file, with irregular steps.
    """
    with path.open() as stream:
        content = json.load(stream)
    entries = content["entries"]

    def column(key: str) -> Array:
        return np.array([entry[key] for entry in entries], float)

    on = column("torque_enable")
    gain = float(content["kp"]) * _DUTY * on
    rollout = Rollout(
        name=name,
        time=column("timestamp"),
        ctrl=np.stack([gain * column("goal_position"), gain, on], axis=1),
        ctrl_names=("target", "feedback", "powered"),
        ctrl_units=("1", "1/rad", "1"),
        sensordata=np.stack([column("position"), column("speed")], axis=1),
        sensor_names=("pos", "vel"),
        sensor_units=("rad", "rad/s"),
    )
    return (rollout,), {}


def falling_arms(path: Path, name: str) -> Converted:
    """Freely swinging arms on a clamped cart: a MATLAB file of consecutive pieces of one recording.

    Rollouts `id01`, `id02`, ... are the authors' identification pieces; `val1`, ... are their validation pieces. In the file
    angles are absolute and zero is upright. In the log `pos1` [rad] is zero when the arm hangs down, and `pos2` [rad] is
    relative to the first arm. `vel1` and `vel2` are their rates [rad/s], smoothed by the authors.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path)
    except MatReadError as error:
        raise ValueError(str(error)) from error
    rollouts = []
    for kind, label in (("id", "id{:02d}"), ("vad", "val{:d}")):
        cells = zip(content[f"Time_{kind}"][:, 0], content[f"Y_{kind}"][:, 0], strict=True)
        for number, (time, angles_and_rates) in enumerate(cells, 1):
            angle, rate = np.split(np.asarray(angles_and_rates, float).T, 2, axis=1)
            joints = range(1, angle.shape[1] + 1)
            # Angle and rate of each arm relative to the arm it hangs on; for the first arm relative to straight down.
            relative = [np.diff(angle, axis=1, prepend=np.pi), np.diff(rate, axis=1, prepend=0.0)]
            rollouts.append(
                Rollout(
                    name=f"{name}{label.format(number)}",
                    time=np.ravel(time),
                    sensordata=np.concatenate(relative, axis=1),
                    sensor_names=tuple(f"{kind}{joint}" for kind in ("pos", "vel") for joint in joints),
                    sensor_units=("rad",) * len(joints) + ("rad/s",) * len(joints),
                )
            )
    return tuple(rollouts), {}


def inertial_unit(path: Path, name: str) -> Converted:
    """A hand-held inertial measurement unit with an optical reference: an HDF5 file of arrays.

    Sensors in the unit's own axes: `gyro[i]` [rad/s], `accelerometer[i]` [m/s^2], `magnetometer[i]` [uT].
    From the cameras: `orientation[i]`, the quaternion w, x, y, z from the unit to east, north, up, and `position[i]` [m]. They
    are NaN where the cameras lost the markers.
    The log's attributes give the begin and end of the movement [s]: errors count only between them.
    """
    sources = {
        "gyro": ("imu_gyr", "rad/s"),
        "accelerometer": ("imu_acc", "m/s^2"),
        "magnetometer": ("imu_mag", "uT"),
        "orientation": ("opt_quat", "1"),
        "position": ("opt_pos", "m"),
    }
    with open_archive(path, "recording", "restore it") as archive:

        def read(key: str) -> Any:
            stored = archive.child(archive.file, key)
            if not isinstance(stored, h5py.Dataset):
                raise KeyError(key)
            return archive.values(stored)

        arrays = {channel: np.asarray(read(key), float) for channel, (key, _) in sources.items()}
        rate = float(np.asarray(archive.attribute(archive.file, "sampling_rate")))
        moving = np.flatnonzero(np.asarray(read("movement"), bool))
    time = np.arange(len(arrays["gyro"])) / rate
    rollout = Rollout(
        name=name,
        time=time,
        sensordata=np.concatenate(list(arrays.values()), axis=1),
        sensor_names=tuple(f"{channel}[{i}]" for channel, values in arrays.items() for i in range(values.shape[1])),
        sensor_units=tuple(sources[channel][1] for channel, values in arrays.items() for _ in range(values.shape[1])),
    )
    span = {f"{name}.movement_begins": float(time[moving[0]]), f"{name}.movement_ends": float(time[moving[-1]])}
    return (rollout,), dict(span)


CONVERTERS: dict[str, Callable[[Path, str], Converted]] = {
    "position_servo": position_servo,
    "falling_arms": falling_arms,
    "inertial_unit": inertial_unit,
}


def convert_recording(kind: str, path: Path, name: str) -> Converted:
    """The file at `path`, converted by the converter `kind`. Raises DsoError when the file is not what `kind` expects."""
    try:
        return CONVERTERS[kind](path, name)
    except (DsoError, OSError, KeyError, ValueError, TypeError) as error:
        raise DsoError(
            f"{path}: is not the file it is registered as ({type(error).__name__}: {error}); restore it."
        ) from error
