"""How much memory a file may claim: what it declares is judged before anything of it is read."""

from pathlib import Path

from dso_robotics.errors import DsoError

FLOOR_BYTES = 256 << 20
"""What any file may claim, however small: constant channels compress a thousandfold and are legitimate."""
RATIO = 16
"""Beyond the floor: float32 counts twice here, and quantised encoders compress a few times more."""
CEILING_BYTES = 4 << 30
"""No recording this package is meant for needs more; a sparse file can make the ratio meaningless."""


def allowed_bytes(path: str | Path) -> int:
    """Bytes of memory the arrays of `path` may claim in all, as float64."""
    return min(FLOOR_BYTES + RATIO * Path(path).stat().st_size, CEILING_BYTES)


def refuse_oversized(claimed: int, path: str | Path, thing: str) -> None:
    """Raise DsoError when `thing` in `path` claims more than `allowed_bytes`; `claimed` counts bytes as float64."""
    allowed = allowed_bytes(path)
    if claimed > allowed:
        raise DsoError(
            f"{path}: {thing} claims {claimed / 2**20:,.0f} MiB of memory, but a file of "
            f"{Path(path).stat().st_size / 2**20:.3g} MiB may claim at most {allowed / 2**20:,.0f} MiB, so its shapes "
            "are taken to be damaged or forged and nothing was read; write the log again, or cut it into several files."
        )
