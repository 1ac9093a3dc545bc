"""Limit of the memory that a file may need. Its declared sizes are checked before any data are read."""

from pathlib import Path

from dso_robotics.errors import DsoError

FLOOR_BYTES = 256 << 20
"""Limit for small files: constant channels compress a thousandfold, so a small file may be large in memory."""
RATIO = 16
"""Limit relative to the file size: float32 doubles in memory, and quantised encoders compress a few times more."""
CEILING_BYTES = 4 << 30
"""Absolute limit, more than any recording needs: in a sparse file the ratio means nothing."""


def allowed_bytes(path: str | Path) -> int:
    """Bytes of memory that all arrays of `path` may need together, as float64."""
    return min(FLOOR_BYTES + RATIO * stored_bytes(path), CEILING_BYTES)


def stored_bytes(path: str | Path) -> int:
    """The size of a file, or of all files in a folder."""
    path = Path(path)
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def refuse_oversized(claimed: int, path: str | Path, thing: str) -> None:
    """Raise DsoError when `thing` in `path` needs more than `allowed_bytes`. `claimed` is in bytes, as float64."""
    allowed, claimed = allowed_bytes(path), int(claimed)
    if claimed > allowed:
        # A forged shape may be a number of thousands of digits.
        shown = f"{claimed >> 20:,}" if claimed < 1 << 70 else "over 10^15"
        raise DsoError(
            f"{path}: {thing} claims {shown} MiB of memory, but a file of "
            f"{stored_bytes(path) / 2**20:.3g} MiB may claim at most {allowed / 2**20:,.0f} MiB, so its shapes "
            "are probably damaged or forged and nothing was read; write the log again, or cut it into several files."
        )
