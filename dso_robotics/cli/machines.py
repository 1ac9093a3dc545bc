"""Several devices and processes for one command: `--devices` and `--hosts`."""

import argparse
import contextlib
import os
from collections.abc import Iterator

from dso_robotics.errors import DsoError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of a command that computes with JAX."""
    group = parser.add_argument_group("devices (docs/devices.md)")
    group.add_argument(
        "--devices",
        type=_count,
        metavar="N|all",
        help="split rollouts and windows over so many GPUs, or other devices of JAX (1, with --hosts all); the result is the "
        "same to rounding",
    )
    group.add_argument(
        "--hosts",
        metavar="auto|HOST:PORT,COUNT,INDEX",
        help="this is one of several processes that share the work: found out from the scheduler (Slurm, Open MPI, ...), or "
        "the address of the first process, their number, and which one this is, from 0; only the first one writes DIR",
    )


def _count(text: str) -> int | str:
    if text == "all" or (text.isdigit() and int(text)):
        return text if text == "all" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of devices; give one from 1, or all")


@contextlib.contextmanager
def joined(args: argparse.Namespace) -> Iterator[None]:
    """Within the context the command works on the devices and with the processes that its options name."""
    devices, where = getattr(args, "devices", None), getattr(args, "hosts", None)
    if where is None and devices in (None, 1):
        yield
        return
    from dso_robotics.cli.jax_setup import prepare_jax
    from dso_robotics.extras import require_mjx

    require_mjx("--devices" if where is None else "--hosts")
    prepare_jax()
    from dso_robotics.core import devices as shared
    from dso_robotics.core import hosts

    if where is not None:
        hosts.join(where)
    number = devices if isinstance(devices, int) else None
    if hosts.index() == 0:
        with shared.on_devices(number):
            yield
        return
    # The first process speaks for all.
    args.quiet = True
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), shared.on_devices(number):
        try:
            yield
        except DsoError as error:
            raise DsoError(f"process {hosts.index()}: {error}") from error
