"""Base parameters that do not depend on an excitation, so that recordings of different ones can be compared."""

import mujoco
import numpy as np

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.regressor import regressor
from dso_robotics.studies.base_parameters import _numbers as inertial_numbers

# A number leads a combination if what is new in its column is more than this share of it.
_NEW = 1e-4


class BaseNumbers:
    """Combinations of the ten numbers of each full inertia, of damping and of dry friction, that generalised forces show.

    size: (n,) usual sizes of the numbers. lead: (b,) the numbers that lead a combination, found from 400 random states.
    join: (b, n) the weights of the numbers in each.
    """

    def __init__(self, vector: ParameterVector):
        self.vector, model, rng = vector, vector.mj, np.random.default_rng(0)
        self.bodies = [model.body(p.path.split("/")[1]).id for p in vector.parameters if p.factor is not None]
        _, _, numbers = inertial_numbers(vector, vector.initial)
        self.size = np.array([number.size for number in numbers])
        rank = np.array([number.rank for number in numbers])
        qpos = rng.uniform(-3, 3, (400, model.nq))
        rows = self.rows(model, qpos, 3 * rng.normal(size=(400, model.nv)), 10 * rng.normal(size=(400, model.nv)))
        rows = rows * self.size
        lead, basis = [], np.zeros((len(rows), 0))
        for k in sorted(range(len(numbers)), key=lambda k: (rank[k], -k)):
            rest = rows[:, k]
            for _ in range(2):
                rest = rest - basis @ (basis.T @ rest)
            if np.linalg.norm(rest) > _NEW * max(np.linalg.norm(rows[:, k]), 1e-9):
                lead.append(k)
                basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
        self.lead = np.array(sorted(lead))
        join = np.linalg.lstsq(rows[:, self.lead], rows, rcond=None)[0]
        join[np.abs(join) < 1e-7] = 0.0
        self.join = join * self.size[self.lead][:, None] / self.size

    def rows(self, model: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray, qacc: np.ndarray) -> np.ndarray:
        """The regressor (T * nv, n) of the generalised forces, numbers in the order of the vector's."""
        whole = regressor(model, qpos, qvel, qacc, self.bodies)
        columns, body = [], 0
        for p in self.vector.parameters:
            if p.factor is not None:
                columns.append(whole[:, :, body])
                body += 1
                continue
            kind, name, what = p.path.split("/")
            assert kind == "joint", p.path
            assert what in ("damping", "frictionloss"), p.path
            force = qvel if what == "damping" else np.sign(qvel)
            column, dof = np.zeros((*qvel.shape, 1)), int(model.joint(name).dofadr[0])
            column[:, dof, 0] = force[:, dof]
            columns.append(column)
        return np.concatenate(columns, -1).reshape(-1, len(self.vector.initial))

    def values(self, z: np.ndarray) -> np.ndarray:
        """The combinations (b,) at coordinates z (n,)."""
        return self.join @ inertial_numbers(self.vector, z)[0]

    def spread(self, z: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Standard deviations (b,) of the combinations, of a covariance (n, n) of z."""
        slope = self.join @ inertial_numbers(self.vector, z)[1]
        return np.sqrt(np.maximum(np.einsum("bi,ij,bj->b", slope, covariance, slope), 0.0))
