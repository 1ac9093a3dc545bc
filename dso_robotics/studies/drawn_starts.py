"""Starts of episodes, drawn by a study's chain and stored with its result for those who play the policy without JAX."""

from typing import Any

import numpy as np

from dso_robotics.robot.episode_starts import EpisodeStarts
from dso_robotics.robot.play import Player

STORED = 100


def drawn_starts(player: Player, theta: Any, *, seconds: float, count: int = STORED) -> EpisodeStarts:
    """The starts of seeds 0 to `count` - 1 at theta, task numbers included."""
    chain = player.chain
    states = [player.start(theta, seed) for seed in range(count)]
    bodies = [state.body for state in states]
    ny = 0 if chain.sensing is None else chain.sensing.size
    scale, bias, late = (np.zeros(0),) * 3 if chain.sensing is None else map(np.asarray, chain.sensors(theta))
    beliefs = [np.zeros(0) if s.estimated is None else np.asarray(s.estimated.belief.state) for s in states]
    return EpisodeStarts(
        seconds=seconds,
        qpos=np.array([body.qpos for body in bodies]),
        qvel=np.array([body.qvel for body in bodies]),
        act=np.array([body.act for body in bodies]).reshape(count, -1),
        task=np.array([chain.context.task(s.context) for s in states]).reshape(count, -1),
        late=np.array(
            [np.zeros(0) if (d := chain.context.late(s.context)) is None else [float(d)] for s in states]
        ).reshape(count, -1),
        estimate=np.array(beliefs),
        names=() if chain.sensing is None else chain.sensing.names,
        scale=np.broadcast_to(scale, (ny,)),
        bias=np.broadcast_to(bias, (ny,)),
        delay=np.broadcast_to(late, (ny,)),
    )
