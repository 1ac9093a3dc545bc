"""Several processes, on one or on many computers, that do one piece of work together. Imports JAX only where it is used.

All processes run the same program on the same inputs and come to the same numbers; what depends on the clock or on a file is
decided by the first one (`agreed`). Only the first one writes results.
"""

import sys
from contextvars import ContextVar
from typing import Any

from dso_robotics.errors import DsoError

# The number of devices that share the work; see `core.devices.on_devices`.
SHARING: ContextVar[int] = ContextVar("sharing", default=1)


def join(where: str) -> None:
    """Become one of several processes. Must be called before JAX is used.

    where: "auto" takes place and number from what the scheduler has set (Slurm, Open MPI, Kubernetes, TPU pods: whatever
      `jax.distributed` detects); "HOST:PORT,COUNT,INDEX" says them, with the address of the first process.

    Raises:
      DsoError: there is nothing to detect, the text is something else, or the others were not reached.
    """
    import jax

    given: dict[str, Any] = {}
    if where != "auto":
        address, _, rest = where.partition(",")
        total, _, mine = rest.partition(",")
        if ":" not in address or not (total.isdigit() and mine.isdigit() and int(mine) < int(total)):
            raise DsoError(
                f"--hosts {where}: write auto under a scheduler, or HOST:PORT,COUNT,INDEX: the address of the first process, "
                "the number of processes, and which one this is, from 0."
            )
        given = {"coordinator_address": address, "num_processes": int(total), "process_id": int(mine)}
    try:
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        cure = (
            "write HOST:PORT,COUNT,INDEX"
            if where == "auto"
            else "check the address, and that all processes were started"
        )
        raise DsoError(f"--hosts {where}: the processes did not find each other ({reason}); {cure}.") from error


def index() -> int:
    """Which process this is; 0 if there is one."""
    return _jax().process_index() if _joined() else 0


def count() -> int:
    """How many processes there are."""
    return _jax().process_count() if _joined() else 1


def agreed(answer: bool) -> bool:
    """The first process's answer, in all of them. All must ask."""
    if count() == 1:
        return answer
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))


def refuse_sharing(who: str) -> None:
    """Refuse several devices for work that only one can do; `who` does it.

    Raises:
      DsoError: there are several devices.
    """
    if SHARING.get() > 1:
        raise DsoError(
            f"--devices: {who} works on the threads of one computer, and other devices would do nothing; give --engine mjx "
            '(or engine = "mjx" in the study), or leave --devices and --hosts out.'
        )


def _jax() -> Any:
    return sys.modules["jax"]


def _joined() -> bool:
    return sys.modules.get("jax") is not None and _jax().distributed.is_initialized()
