"""A learned Kalman filter as one C99 header that uses MuJoCo's C API."""

import mujoco
import numpy as np

from dso_robotics.data.foot_contact import ContactReadings
from dso_robotics.data.match import quaternion_places
from dso_robotics.errors import DsoError
from dso_robotics.robot import c_source as c
from dso_robotics.robot.kalman_cloud import heading_unknown
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from dso_robotics.robot.kalman_search import turns_around
from dso_robotics.robot.learned import MOST_PREDICTED
from dso_robotics.robot.tangent_turn import TangentTurns


def kalman_constants(estimator: KalmanEstimator, source: str) -> tuple[dict[str, int], list[str]]:
    """The #define constants and arrays of the filter's numbers, beside those that every estimator has.

    Raises:
      DsoError: the filter does what its C code does not: late sensors, a heading to be found, or the integrator RK4.
    """
    model, learned, noise = estimator.model, estimator.learned, estimator.noise
    space = estimator.space
    if (learned.delay > 0).any():
        late = learned.names[int(np.argmax(learned.delay > 0))]
        raise DsoError(
            f"{source}: sensor {late!r} is late, and the C code of a Kalman filter takes no late readings; leave the sensor "
            'out, or learn corrector = "gain".'
        )
    if heading_unknown(space, noise):
        raise DsoError(
            f"{source}: the C code of a Kalman filter follows one hypothesis, and the heading of this free body needs several; "
            'give it a sensor of its orientation (framequat), or learn corrector = "gain".'
        )
    if int(model.opt.integrator) == int(mujoco.mjtIntegrator.mjINT_RK4):
        raise DsoError(f"{source}: MuJoCo's C API has no derivatives of the integrator RK4; choose implicitfast.")
    biases, places = noise.drifting, quaternion_places(model, learned.addresses)
    turns = TangentTurns(model)
    contacts = learned.contacts or ContactReadings.of(learned.names, ())
    gate = estimator.gate
    # By sensor, the square that 0, 1, ... of its channels may reach.
    limits = np.full((len(gate.names), len(learned.names) + 1), np.inf)
    for row, values in zip(limits, gate.limits, strict=True):
        row[: len(values)] = values
    sizes = {
        "BIASES": len(biases), "QUATERNIONS": len(places), "ANGLES": len(turns.angles), "TURNS": len(turns.places),
        "HINGES": len(turns.hinges), "FREE": len(space.free_turns), "MOST": MOST_PREDICTED, "READINGS": len(contacts.names),
    }  # fmt: skip
    arrays = [
        c.integers("dso_estimator_biases", biases),
        c.integers("dso_estimator_angles", turns.angles),
        c.integers("dso_estimator_turns", turns.places),
        c.integers("dso_estimator_hinges", turns.hinges),
        c.integers("dso_estimator_free_turns", space.free_turns),
        c.integers("dso_estimator_prompt", estimator.prompt),
        c.doubles("dso_estimator_around", turns_around()),
        c.doubles("dso_estimator_process", np.concatenate([noise.process, noise.drift[biases]]) ** 2),
        c.doubles("dso_estimator_noise", noise.sensor**2),
        c.doubles("dso_estimator_prior", np.concatenate([noise.prior, noise.offset[biases]])),
        c.doubles("dso_estimator_widest", estimator.widest),
        c.doubles("dso_estimator_limits", limits),
        c.strings("dso_estimator_readings", contacts.names),
        c.integers("dso_estimator_source", contacts.source),
        c.doubles("dso_estimator_above", contacts.above),
        c.integers("dso_estimator_foot", gate.foot),
    ]
    return sizes, arrays
