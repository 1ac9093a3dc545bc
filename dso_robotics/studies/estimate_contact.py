"""The tables [contact.NAME] of an estimation: feet whose velocity is zero while they stand."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace

import mujoco

from dso_robotics.data.foot_contact import PREFIX, FootContact
from dso_robotics.data.log import Log
from dso_robotics.data.match import Channels, sensor_channels
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot
from dso_robotics.robot import foot_velocity, strapdown
from dso_robotics.robot.filter_data import select_channels
from dso_robotics.table import Table, key

_PLACES = ("site", "body", "geom")


@dataclasses.dataclass(frozen=True)
class ContactTable(Table):
    """A foot whose velocity a Kalman filter takes for zero while it stands, but for noise that is learned."""

    channel: str | None = key(
        "sensor or other channel of the log that tells whether it stands: a touch sensor, a force, or 0 and 1; none: it always "
        "does, as what a hand holds stays near",
        None,
        example="left_touch",
    )
    site: str | None = key("the point of the foot that stands", None, example="left_sole")
    body: str | None = key("the same as the origin of a body", None, example="left_foot")
    geom: str | None = key("the same as the centre of a geom", None, example="left_foot")
    above: float = key("it stands while the channel is above this", 0.5, within="(-inf, inf)", unit="the channel's")
    noise: float = key(
        "standard deviation of its velocity while it stands, where the search begins", 0.02, unit="m/s",
        within="(0, inf)",
    )  # fmt: skip
    gate: float = key(
        "share of right readings of zero velocity that are let in; the others are a foot that slips",
        0.99, within="(0, 1)",
    )  # fmt: skip

    def check(self) -> None:
        """One place."""
        if sum(getattr(self, kind) is not None for kind in _PLACES) != 1:
            raise DsoError('name what stands by one of `site`, `body` and `geom`, such as site = "left_sole".')

    @property
    def place(self) -> tuple[str, str]:
        """Kind and name of the object that stands."""
        return next((kind, getattr(self, kind)) for kind in _PLACES if getattr(self, kind) is not None)


def feet(tables: Mapping[str, ContactTable]) -> tuple[FootContact, ...]:
    """The feet of a study."""
    return tuple(
        FootContact(name, t.channel, t.above, t.noise, t.gate if t.channel is not None else 1.0)
        for name, t in tables.items()
    )


def with_velocities(tables: Mapping[str, ContactTable], robot: Robot) -> Robot:
    """`robot` with a sensor of the velocity of each foot. Raises DsoError as `foot_velocity.with_velocities`."""
    return foot_velocity.with_velocities(robot, _places(tables), feet(tables))


def with_zeros(tables: Mapping[str, ContactTable], log: Log, recorded: Log, model: mujoco.MjModel) -> Log:
    """`log` with a channel for each direction in which a foot can move: 0 while it stands, else NaN.

    recorded: the same rollouts with all their channels.

    Raises:
      DsoError: a rollout lacks the channel that tells whether a foot stands, or it never does; or that sensor is late.
    """
    for name, table in tables.items():
        if table.channel is None:
            continue
        sensor = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, table.channel)
        if sensor >= 0 and model.sensor_delay[sensor] > 0:
            raise DsoError(
                f"[contact.{name}] channel = {table.channel!r}: this sensor is late, so it tells where the foot stood; "
                "take the delay out of the model and of the log."
            )
    return foot_velocity.with_zeros(log, recorded, model, _places(tables), feet(tables))


def channels(
    tables: Mapping[str, ContactTable],
    log: Log,
    model: mujoco.MjModel,
    sensors: Sequence[str] | None,
    *,
    strapped: bool,
) -> Channels:
    """What the estimator reads: the channels of `sensors`, then the velocities of feet.

    Without `sensors`, what tells that a foot stands is no reading besides.
    """
    if strapped:
        sensors = strapdown.kinematic(
            model, log, sensors, [name for name in sensor_channels(model) if name.startswith(PREFIX)]
        )
    if not tables:
        return replace(select_channels(log, model, sensors), strapped=strapped)
    mine, every = feet(tables), sensor_channels(model)
    logged = {name for rollout in log.rollouts for name in rollout.sensor_names}
    moves = [name for foot in mine for name in every if name.split("[")[0] == foot.sensor and name in logged]
    if sensors is None:
        apart = {foot.reading for foot in mine} | {*moves}
        sensors = [name for name in every if name in logged and name not in apart]
    return replace(select_channels(log, model, [*sensors, *moves]), feet=mine, strapped=strapped)


def read_channels(tables: Mapping[str, ContactTable], sensors: Sequence[str]) -> tuple[str, ...]:
    """The channels of the log that an estimator reads: `sensors`, and those that tell whether a foot stands."""
    return (*sensors, *(table.channel for table in tables.values() if table.channel is not None))


def on_the_ground(tables: Mapping[str, ContactTable], doubts: Sequence[str], *, strapped: bool) -> list[str]:
    """What may be wrong with a filter that is doubted, if forces of a ground in the model move its feet."""
    if strapped or not tables or not doubts:
        return []
    return [
        f"Forces of the model's ground act on {', '.join(tables)}, so its height, friction and stiffness (solref) are to be "
        'those of the true one; strapdown = "ACCELEROMETER" makes a filter that needs no ground.'
    ]


def without_notes(tables: Mapping[str, ContactTable], notes: Sequence[str]) -> list[str]:
    """`notes` on channels that are left out, but for those that tell whether a foot stands."""
    used = tuple(f"log channel {table.channel!r} is no sensor of the model" for table in tables.values())
    return [note for note in notes if not note.startswith(used)] if used else list(notes)


def _places(tables: Mapping[str, ContactTable]) -> dict[str, tuple[str, str]]:
    """By foot, kind and name of the object that stands."""
    return {name: table.place for name, table in tables.items()}
