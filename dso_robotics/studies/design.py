"""Design a mechanism and its policy in one vector: a training with design numbers, evaluated before and after on C."""

from collections.abc import Callable
from pathlib import Path

from dso_robotics.errors import DsoError
from dso_robotics.progress.report import Progress
from dso_robotics.studies.train import Trained, train
from dso_robotics.studies.train_study import TrainStudy


def design(
    study: TrainStudy,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    longer: bool = False,
    report: Callable[[Trained, Path], object] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """`train` for a study with [design.NAME] or [motor.NAME] tables.

    Raises:
      DsoError: the study designs nothing, or what `train` raises.
    """
    if not study.design and not study.motor:
        raise DsoError(
            f"{study.source}: the study has no [design.NAME] and no [motor.NAME] table, so there is no mechanism to design; "
            'add one, such as [design.reach] with kind = "length" and of = "forearm", or use `dso train`.'
        )
    return train(
        study, out, command="design", resume=resume, force=force, longer=longer, report=report, progress=progress
    )
