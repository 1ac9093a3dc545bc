"""What costs and observations read of a simulated state besides qpos, qvel and act, as sensors of C MuJoCo.

A sensor comes with its derivative. So a cost may use the place of a body, for which MJX would need its kinematics.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco import batch

from dso_robotics.errors import DsoError
from dso_robotics.physics.batch import set_fields
from dso_robotics.physics.callback import call
from dso_robotics.physics.divergence import State
from dso_robotics.physics.model import Robot, compile_spec

_SENSOR, _OBJECT, _STAGE = mujoco.mjtSensor, mujoco.mjtObj, mujoco.mjtStage
_AXES = (_SENSOR.mjSENS_FRAMEXAXIS, _SENSOR.mjSENS_FRAMEYAXIS, _SENSOR.mjSENS_FRAMEZAXIS)
# What can be read: the kind of object, MuJoCo's sensors that read it one after another, and how many numbers each has.
_READ = {
    "body place": (_OBJECT.mjOBJ_BODY, (_SENSOR.mjSENS_FRAMEPOS,), 3),
    "body velocity": (_OBJECT.mjOBJ_BODY, (_SENSOR.mjSENS_FRAMELINVEL,), 3),
    "body spin": (_OBJECT.mjOBJ_BODY, (_SENSOR.mjSENS_FRAMEANGVEL,), 3),
    "body origin": (_OBJECT.mjOBJ_XBODY, (_SENSOR.mjSENS_FRAMEPOS,), 3),
    "body axes": (_OBJECT.mjOBJ_XBODY, _AXES, 3),
    "site place": (_OBJECT.mjOBJ_SITE, (_SENSOR.mjSENS_FRAMEPOS,), 3),
    "geom place": (_OBJECT.mjOBJ_GEOM, (_SENSOR.mjSENS_FRAMEPOS,), 3),
    "geom axes": (_OBJECT.mjOBJ_GEOM, _AXES, 3),
    "actuator force": (_OBJECT.mjOBJ_ACTUATOR, (_SENSOR.mjSENS_ACTUATORFRC,), 1),
    "actuator speed": (_OBJECT.mjOBJ_ACTUATOR, (_SENSOR.mjSENS_ACTUATORVEL,), 1),
}
SENSORS = "sensors"


@dataclasses.dataclass(frozen=True)
class Watch:
    """The things that are read, in the order of their numbers.

    mj: the model of the chain.
    things: what is read (a key of the table above) and the object's id; `SENSORS` is all of the model's own sensordata.
    model: `mj` with a sensor for each number.
    columns: positions (size,) of the numbers in the sensordata of `model`.
    """

    mj: mujoco.MjModel
    things: tuple[tuple[str, int], ...]
    model: mujoco.MjModel
    columns: tuple[int, ...]

    @functools.cached_property
    def places(self) -> dict[tuple[str, int], slice]:
        """Where the numbers of each thing are."""
        ends = np.cumsum([0] + [self._width(what) for what, _ in self.things])
        return {thing: slice(int(a), int(b)) for thing, a, b in zip(self.things, ends, ends[1:], strict=False)}

    @property
    def size(self) -> int:
        """How many numbers are read."""
        return len(self.columns)

    @property
    def accelerations(self) -> bool:
        """Whether a number depends on accelerations or forces, and with them on the control."""
        stage = np.zeros(self.model.nsensordata, int)
        for first, size, needed in zip(
            self.model.sensor_adr, self.model.sensor_dim, self.model.sensor_needstage, strict=True
        ):
            stage[first : first + size] = needed
        return bool(np.any(stage[list(self.columns)] >= int(mujoco.mjtStage.mjSTAGE_ACC)))

    def _width(self, what: str) -> int:
        return _width(self.mj, what)

    def of(self, shown: Any, what: str, at: int) -> Any:
        """The numbers of one thing, from all of them, `shown` (size,)."""
        return shown[self.places[what, at]]

    def reading(self, engine: batch.Batch) -> np.ndarray:
        """The numbers (N, size) in the states of an engine of `model`, under its controls."""
        if not self.size:
            return np.zeros((engine.nsim, 0))
        read = engine.bind("sensordata")  # filled by every call after the first `bind`
        engine.forward(stage=_STAGE.mjSTAGE_ACC if self.accelerations else _STAGE.mjSTAGE_VEL)
        return read[:, list(self.columns)]

    def read(self, data: mujoco.MjData) -> np.ndarray:
        """The numbers (size,) in `data` after mj_forward. Its model may be another with the same objects."""
        found = [self._now(data, what, at) for what, at in self.things]
        return np.concatenate([np.zeros(0), *found])

    def _now(self, data: mujoco.MjData, what: str, at: int) -> np.ndarray:
        if what == SENSORS:
            return data.sensordata[: self.mj.nsensordata]
        if what in ("body velocity", "body spin"):
            both = np.zeros(6)
            mujoco.mj_objectVelocity(data.model, data, int(_OBJECT.mjOBJ_BODY), at, both, 0)
            return both[3:] if what == "body velocity" else both[:3]
        if what.endswith("axes"):
            return (data.xmat if what == "body axes" else data.geom_xmat)[at].reshape(3, 3).T.ravel()
        return {
            "body place": data.xipos,
            "body origin": data.xpos,
            "site place": data.site_xpos,
            "geom place": data.geom_xpos,
            "actuator force": data.actuator_force[:, None],
            "actuator speed": data.actuator_velocity[:, None],
        }[what][at]


def watching(robot: Robot, mj: mujoco.MjModel, things: tuple[tuple[str, int], ...]) -> Watch:
    """The watch of `things` in `mj`, which is made of `robot`.

    Raises:
      DsoError: a place is read, and there is no description of the robot to which sensors could be added.
    """
    added = [(what, at, sensor) for what, at in things if what != SENSORS for sensor in _READ[what][1]]
    columns, following = [], int(mj.nsensordata)
    for what, _ in things:
        first, width = (0, _width(mj, what)) if what == SENSORS else (following, _width(mj, what))
        columns += range(first, first + width)
        following += 0 if what == SENSORS else width
    if not added:
        return Watch(mj, things, mj, tuple(columns))
    if robot.spec is None:
        raise DsoError(
            f"{robot.source}: the costs read places of bodies, sites or geoms, for which the C engine adds sensors, and a "
            'compiled MjModel cannot be changed; load the XML file, or train with engine = "mjx".'
        )
    spec = robot.spec.copy()
    spec.compile()
    _as_compiled(spec, robot.mj, mj)
    for what, at, sensor in added:
        name = f"dso/{what}/{at}/{int(sensor)}"
        spec.add_sensor(name=name, type=sensor, objtype=_READ[what][0], objname=_name(spec, what, at))
    return Watch(mj, things, compile_spec(spec, robot.source), tuple(columns))


def _width(mj: mujoco.MjModel, what: str) -> int:
    return int(mj.nsensordata) if what == SENSORS else _READ[what][2] * len(_READ[what][1])


def _name(spec: mujoco.MjSpec, what: str, at: int) -> str:
    """The name of an object; one without a name gets one."""
    kind = what.split()[0]
    element = next(one for one in getattr(spec, {"body": "bodies"}.get(kind, kind + "s")) if one.id == at)
    if not element.name:
        element.name = f"dso/{kind}/{at}"
    return element.name


def _as_compiled(spec: mujoco.MjSpec, given: mujoco.MjModel, used: mujoco.MjModel) -> None:
    """Change `spec`, which compiles to `given`, so that it compiles to `used`: without shortcuts and delays."""
    for body in spec.bodies:
        if given.body_simple[body.id] and not used.body_simple[body.id]:
            body.simple = False
    if (np.any(given.actuator_delay) or np.any(given.sensor_delay)) and not (
        np.any(used.actuator_delay) or np.any(used.sensor_delay)
    ):
        for element in (*spec.actuators, *spec.sensors):
            element.delay, element.nsample = 0.0, 0


class Wishes:
    """Notes what is read, in the place of a watch. Everything reads as the one number that is shown, which is zero."""

    size = 1

    def __init__(self, mj: mujoco.MjModel):
        self._mj = mj
        self._wanted: dict[tuple[str, int], None] = {}

    def of(self, shown: Any, what: str, at: int) -> Any:
        """As many numbers as are asked for, which depend on the state as far as a trace can tell."""
        self._wanted[what, at] = None
        zeros = np.zeros(_width(self._mj, what))
        return zeros if shown is None else zeros + shown[0]

    @property
    def things(self) -> tuple[tuple[str, int], ...]:
        """What was read."""
        return tuple(self._wanted)


def step_on_c(
    watch: Any, fields: Mapping[str, Any], body: State, ctrl: Any, substeps: int
) -> tuple[State, Float[Array, " w"]]:
    """`substeps` steps of C MuJoCo as a JAX function without derivative: the body after them, and what is read there.

    A window is simulated much faster by `robot.windows`. This serves what looks at single states.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.asarray(leaf).dtype), body)
    out = shapes, jax.ShapeDtypeStruct((watch.size,), jnp.zeros(()).dtype)

    def run(fields: Mapping[str, Any], body: State, ctrl: Any) -> tuple[State, np.ndarray]:
        model = watch.model
        engine = batch.Batch(model, 1, 1)
        set_fields(engine, model, {name: np.asarray(value)[None] for name, value in fields.items()})
        engine.reset(stage=_STAGE.mjSTAGE_NONE)
        names = ("qpos", "qvel", *(["act"] if model.na else []), "warmstart")
        places = {name: engine.bind("qacc_warmstart" if name == "warmstart" else name) for name in names}
        for name, place in places.items():
            place[:] = getattr(body, name)
        engine.bind("ctrl")[:] = ctrl
        if substeps:
            engine.step(nstep=substeps)
        now: dict[str, Any] = {"act": np.zeros(0)} | {name: place[0].copy() for name, place in places.items()}
        found = State(**now, time=body.time + substeps * model.opt.timestep), watch.reading(engine)[0]
        return jax.tree.map(lambda value, shape: np.array(value, shape.dtype), found, out)

    return call(run, out, dict(fields), body, ctrl)
