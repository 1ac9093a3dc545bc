"""The ready trainings and designs: each is read and made ready to the last check before anything compiles."""

import jax
import numpy as np
import pytest

from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.example_files import EXAMPLES

STUDIES = sorted(path for path in (EXAMPLES / "studies").glob("*.toml") if not path.stem.startswith("estimate_"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_can_be_built(path):
    task = build(TrainStudy.read(path))
    assert task.steps == pytest.approx(task.study.seconds / (task.chain.substeps * task.chain.mj.opt.timestep))
    start = task.chain.start(jax.random.key(0)).body.qpos
    assert np.all(np.isfinite(np.asarray(start)))
    if task.study.design:
        mechanism = task.chain.mechanism
        assert mechanism is not None
        assert np.all((mechanism.low < mechanism.initial) & (mechanism.initial < mechanism.high))
