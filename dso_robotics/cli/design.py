"""`dso design`: a study as for `dso train` that optimises a mechanism together with its policy."""

from typing import Any

from dso_robotics.cli.train import add_study_parser


def add_parser(subparsers: Any) -> None:
    """Add `dso design STUDY.toml --out DIR`."""
    add_study_parser(
        subparsers,
        "design",
        "design a mechanism and its policy together",
        "Optimise link lengths, radii, gears or springs of a model together with a policy; the study has [design.NAME] tables.",
    )
