"""Block-tridiagonal systems: private unknowns of blocks tied to the next one. The cost is linear in the number of blocks.

One array holds several chains, one after another. If a block is not tied to the next, its block above the diagonal is zero.
"""

import numpy as np

# If rounding makes a Cholesky factor fail, it is retried with this fraction of its largest diagonal entry added.
_REPAIR = 1e-12


class Tridiagonal:
    """Cholesky factors of a symmetric block-tridiagonal matrix.

    diagonal: (B, k, k) blocks on the diagonal.
    above: (B, k, k) blocks that tie b to b + 1. The last one is zero.

    S_0 = D_0, S_{b+1} = D_{b+1} - U_b' S_b^-1 U_b: forward elimination of all chains at once.

    Raises numpy.linalg.LinAlgError if the matrix is far from positive definite.
    """

    def __init__(self, diagonal: np.ndarray, above: np.ndarray):
        self._above = above
        tied = np.abs(above).max((1, 2), initial=0.0) > 0
        self._rows = _by_place(tied)
        self._root = np.empty_like(diagonal)  # inverse of the Cholesky factor of S
        self._pull = np.zeros_like(above)  # S^-1 U
        left = diagonal.copy()
        for rows in self._rows:
            self._root[rows] = _inverse_root(left[rows])
            on = rows[tied[rows]]
            if len(on):
                root = self._root[on]
                self._pull[on] = np.swapaxes(root, 1, 2) @ (root @ above[on])
                left[on + 1] -= np.swapaxes(above[on], 1, 2) @ self._pull[on]
        self._tied = tied

    def solve(self, right: np.ndarray) -> np.ndarray:
        """The inverse of the matrix times `right` (B, k, m)."""
        x = right.copy()
        for rows in self._rows:
            on = rows[self._tied[rows]]
            if len(on):
                x[on + 1] -= np.swapaxes(self._pull[on], 1, 2) @ x[on]
        for rows in reversed(self._rows):
            root = self._root[rows]
            x[rows] = np.swapaxes(root, 1, 2) @ (root @ x[rows])
            on = rows[self._tied[rows]]
            if len(on):
                x[on] -= self._pull[on] @ x[on + 1]
        return x

    def inverse(self) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of the inverse: on the diagonal (B, k, k), and between each block and the next, zero where not tied."""
        own = np.swapaxes(self._root, 1, 2) @ self._root
        between = np.zeros_like(own)
        for rows in reversed(self._rows):
            on = rows[self._tied[rows]]
            if len(on):
                between[on] = -self._pull[on] @ own[on + 1]
                own[on] -= between[on] @ np.swapaxes(self._pull[on], 1, 2)
        return own, between


def _by_place(tied: np.ndarray) -> list[np.ndarray]:
    """Indices of the first blocks of all chains, of the second ones, and so on."""
    first = np.r_[True, ~tied[:-1]]
    place = np.arange(len(tied)) - np.maximum.accumulate(np.where(first, np.arange(len(tied)), 0))
    order = np.argsort(place, kind="stable")
    return np.split(order, np.cumsum(np.bincount(place))[:-1]) if len(tied) else []


def _inverse_root(matrices: np.ndarray) -> np.ndarray:
    """Inverse of the lower Cholesky factors (N, k, k)."""
    eye = np.eye(matrices.shape[-1])
    size = np.einsum("bii->bi", matrices).max(1, initial=0.0)[:, None, None]
    for share in (0.0, _REPAIR, 1e3 * _REPAIR):
        try:
            return np.linalg.inv(np.linalg.cholesky(matrices + share * size * eye))
        except np.linalg.LinAlgError:
            continue
    raise np.linalg.LinAlgError("a block of the chain is not positive definite")
