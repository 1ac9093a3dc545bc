"""The length of windows as an option of a command."""

import argparse


def window_length(text: str) -> float:
    """Seconds, or infinity for "full". Raises ArgumentTypeError for anything else."""
    try:
        return float("inf") if text == "full" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds; give one, such as 0.5, or full"
        ) from None
