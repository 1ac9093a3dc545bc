"""A trained estimator and policy together at run time: readings in, controls out. Uses C MuJoCo and NumPy, without JAX.

>>> controller = Controller.load("result")            # doctest: +SKIP
>>> ctrl = controller.reset(qpos=[0.0, 0.3])          # doctest: +SKIP
>>> while True:                                       # doctest: +SKIP
...     ctrl = controller.update(apply_and_measure(ctrl))
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.estimator import Estimate, Estimator

Vector = Sequence[float] | np.ndarray


class Controller:
    """The policy of a training acts on the estimate of the same training, once per control step.

    estimate: the latest `Estimate`.
    """

    def __init__(self, estimator: Estimator, policy: Policy):
        self.estimator, self.policy = estimator, policy
        self.estimate: Estimate | None = None
        self._ctrl = np.zeros(len(policy.ctrl_names))

    @classmethod
    def load(cls, folder: str | Path) -> "Controller":
        """Load what `dso train --out FOLDER` wrote for a policy that observes the estimate.

        Raises:
          DsoError: the folder holds no such training, or it is damaged.
        """
        policy = Policy.load(folder)
        if not policy.numbers.on_estimate:
            raise DsoError(
                f'{folder}: its policy does not observe an estimate; use Policy.load, or train with observe = "estimate".'
            )
        return cls(Estimator.load(folder), policy)

    def reset(
        self,
        qpos: Vector | None = None,
        qvel: Vector | None = None,
        act: Vector | None = None,
        *,
        task: Mapping[str, float] | None = None,
    ) -> np.ndarray:
        """Start an episode from an estimate of the state, and return the first control (nu,).

        qpos, qvel, act, task: as for `Estimator.reset` and `Policy.reset`.
        """
        self.policy.reset(task)
        self.estimate = self.estimator.reset(qpos, qvel, act)
        return self._act()

    def update(self, measurement: Vector | Mapping[str, float]) -> np.ndarray:
        """The next control (nu,), from the readings at the end of the control step in which the last control acted.

        Raises:
          DsoError: what `Estimator.update` raises, or `reset` was not called. The state is then unchanged.
        """
        if self.estimate is None:
            raise DsoError("the controller has no state yet; call reset() first.")
        self.estimate = self.estimator.update(self._ctrl, measurement)
        return self._act()

    def _act(self) -> np.ndarray:
        estimate = self.estimate
        assert estimate is not None
        self._ctrl = self.policy.act(qpos=estimate.qpos, qvel=estimate.qvel, act=estimate.act)
        return self._ctrl
