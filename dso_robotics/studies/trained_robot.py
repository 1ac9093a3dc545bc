"""The robot of a training at some theta: its estimator."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from dso_robotics.robot.learned import Learned
from dso_robotics.robot.system import RobotSystem


def learned_filter(chain: RobotSystem, theta: Any) -> Learned:
    """The estimator at theta, in the form that `Estimator.load` reads."""
    filter, sensing, theta = chain.filter, chain.sensing, jnp.asarray(theta)
    assert filter is not None
    assert sensing is not None
    scale, bias, late = (np.asarray(part) for part in chain.sensors(theta))
    ny, corrector = sensing.size, filter.corrector
    part = np.asarray(chain.layout.split(theta)["corrector"])
    return Learned(
        corrector=corrector,
        weights=part[: corrector.size],
        scales=filter.scales,
        scale=scale,
        bias=bias,
        delay=late,
        sigma=filter.scales.innovation * np.exp(part[corrector.size :]),
        spread=np.zeros((ny, corrector.nf)),
        covariance=None,
        names=sensing.names,
        addresses=np.array(sensing.addresses, int),
        interval=sensing.interval,
        substeps=chain.substeps,
    )
