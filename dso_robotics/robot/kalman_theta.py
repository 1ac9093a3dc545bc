"""The theta of a Kalman filter: logarithms of its noises, by joint and by sensor channel, and the physics beside them."""

import functools
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np

from dso_robotics.data.quaternion import Places
from dso_robotics.parameters.theta import Block, Prior, Theta
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.correctors.kalman import KalmanCorrector, Noise

# A noise is believed to be within a factor exp(3) = 20 of its start value, and held within exp(12).
_SPREAD, _REACH = 3.0, 12.0
# The same of a noise that readings hardly show.
_HELD_SPREAD, _HELD_REACH = 0.5, 1.1
# The same of the noise of a base's rate of turning, where a gyroscope moves the base.
_TURN_SPREAD, _TURN_REACH = 0.1, 0.5
_LENGTHS, _TURNS = ("m", "m/s"), ("rad", "rad/s")


@dataclass(frozen=True, eq=False)
class Group:
    """Tangent directions that share one noise.

    name: such as "joint/elbow/velocity". unit: of the noise. members: indices into the tangent space.
    """

    name: str
    unit: str
    members: tuple[int, ...]


def groups(model: mujoco.MjModel) -> list[Group]:
    """The groups of a model: position and velocity of each joint, rotation apart from translation, and each activation."""
    found: list[Group] = []
    for order, what in enumerate(("position", "velocity")):
        for j in range(model.njnt):
            name, first = model.joint(j).name or str(j), int(model.jnt_dofadr[j]) + order * model.nv
            kind = mujoco.mjtJoint(int(model.jnt_type[j]))
            path = f"joint/{name}/{what}"
            if kind == mujoco.mjtJoint.mjJNT_FREE:
                found.append(Group(path, f"{_LENGTHS[order]}/sqrt(s)", tuple(range(first, first + 3))))
                turn = f"joint/{name}/{'rotation' if not order else 'angular velocity'}"
                found.append(Group(turn, f"{_TURNS[order]}/sqrt(s)", tuple(range(first + 3, first + 6))))
            elif kind == mujoco.mjtJoint.mjJNT_BALL:
                found.append(Group(path, f"{_TURNS[order]}/sqrt(s)", tuple(range(first, first + 3))))
            else:
                unit = _LENGTHS if kind == mujoco.mjtJoint.mjJNT_SLIDE else _TURNS
                found.append(Group(path, f"{unit[order]}/sqrt(s)", (first,)))
    found += [Group(f"activation[{i}]", "1/sqrt(s)", (2 * model.nv + i,)) for i in range(model.na)]
    return found


@dataclass(frozen=True, eq=False)
class KalmanTheta(Theta):
    """Theta of a Kalman filter: blocks "process", "sensor", "drift" (logarithms of standard deviations) and "physics".

    physics: parameters of the model and its sensors.
    begin: the noises at the start, with (k,) and (ny,) entries. Its prior and offset are not learned.
    members: by block, which directions or channels each number is the noise of, rows of zeros and ones.
    channels: names of the ny channels. quaternions: places of quaternions among them; their channels share one noise.
    held: (ny,), which channels have noises that their readings hardly show, and which so stay near where they begin: the
      velocity of a foot, where nothing but zero is ever read, and a gyroscope that moves the base.
    turned: (k,), which directions of the process are rates that a gyroscope moves; their noises stay where they begin.
    """

    blocks: tuple[Block, ...] = field(init=False)
    members: dict[str, np.ndarray] = field(init=False)
    physics: ParameterVector
    begin: Noise
    channels: tuple[str, ...]
    quaternions: Places = ()
    held: np.ndarray | None = None
    turned: np.ndarray | None = None

    def __post_init__(self):
        model, begin = self.physics.mj, self.begin
        made = groups(model)
        process = _membership([g.members for g in made], 2 * model.nv + model.na)
        whole = {places[0]: places for places in self.quaternions}
        rest = {c for places in self.quaternions for c in places}
        tied = [whole.get(c, (c,)) for c in range(len(self.channels)) if c in whole or c not in rest]
        sensor = _membership(tied, len(self.channels))
        drift = _membership([(int(c),) for c in begin.drifting], len(self.channels))
        members = {"process": process, "sensor": sensor, "drift": drift}
        names = {
            "process": tuple(g.name for g in made),
            "sensor": tuple(self.channels[group[0]] for group in tied),
            "drift": tuple(self.channels[c] for c in begin.drifting),
        }
        blocks = []
        for name, member in members.items():
            squares = member @ getattr(begin, name) ** 2 / np.maximum(member.sum(1), 1)
            start = 0.5 * np.log(squares)
            spread, reach = np.full_like(start, _SPREAD), np.full_like(start, _REACH)
            held = self.held if name == "sensor" else self.turned if name == "process" else None
            if held is not None:
                which = member @ held > 0
                near = (_HELD_SPREAD, _HELD_REACH) if name == "sensor" else (_TURN_SPREAD, _TURN_REACH)
                spread, reach = (
                    np.where(which, value, all_) for value, all_ in zip(near, (spread, reach), strict=True)
                )
            prior = Prior(start, spread, np.zeros(len(start), bool))
            box = {"low": start - reach, "high": start + reach}
            blocks.append(Block(name, start, **box, scale=np.ones_like(start), prior=prior, entries=names[name]))
        object.__setattr__(self, "blocks", (*blocks, self.physics.block("physics")))
        object.__setattr__(self, "members", members)
        super().__post_init__()

    @functools.cached_property
    def corrector(self) -> KalmanCorrector:
        """The corrector that these numbers belong to."""
        return KalmanCorrector(len(self.begin.process), len(self.channels), 0)

    def noise(self, z: np.ndarray) -> Noise:
        """The noises at z (n,)."""
        parts = self.split(z)
        spread = {name: np.exp(parts[name]) @ member for name, member in self.members.items()}
        return replace(self.begin, **spread)

    def slopes(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Derivatives of the squares of the noises "process", "sensor" and "drift" by z: (n, k), (n, ny), (n, ny)."""
        parts, found = self.split(z), {}
        for name, member in self.members.items():
            found[name] = np.zeros((self.size, member.shape[1]))
            found[name][self.where(name)] = 2 * np.exp(2 * parts[name])[:, None] * member
        return found

    def physical(self, z: np.ndarray) -> np.ndarray:
        """The physics coordinates (m,) of z."""
        return self.split(z)["physics"]

    def weights(self, z: np.ndarray) -> np.ndarray:
        """The flat weights of the corrector at z."""
        noise = self.noise(z)
        return self.corrector.layout.join({name: getattr(noise, name) for name in self.corrector.shapes()})

    def by_name(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """The noises by block and physics by path, for the run file."""
        weights = self.corrector.split(self.weights(z))
        return {f"corrector/{name}": value for name, value in weights.items()} | self.physics.split(self.physical(z))


def _membership(members: list[tuple[int, ...]], size: int) -> np.ndarray:
    """A row (size,) of zeros and ones for each group."""
    found = np.zeros((len(members), size))
    for row, places in enumerate(members):
        found[row, list(places)] = 1.0
    return found
