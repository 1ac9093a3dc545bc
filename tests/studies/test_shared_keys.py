"""A key means the same in every study."""

import dataclasses
import inspect

import pytest

import dso_robotics as dso
from dso_robotics.errors import DsoError
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.train_study import SensorsTable, TrainStudy
from dso_robotics.table import keys, words

pytestmark = pytest.mark.mjx
TRAIN = {"model": "m.xml", "cost": {"effort": {"kind": "control"}}}
ESTIMATE = {"model": "m.xml", "logs": ["log.h5"]}


def test_sensors_are_a_list_or_a_table():
    for given in ("gyro", ["gyro"], {"channels": ["gyro"]}):
        assert TrainStudy.read(**TRAIN, sensors=given).sensors == SensorsTable(channels=("gyro",))
        study = EstimateStudy.read(**ESTIMATE, sensors=given)
        assert study.sensors == ("gyro",)
        assert EstimateStudy.from_dict(study.as_dict()) == study
    study = TrainStudy.read(**TRAIN, sensors=["gyro"])
    assert TrainStudy.from_dict(study.as_dict()) == study


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"noise": {"*": 0.1}}, "noises of sensors are learned"),
        ({"channel": ["gyro"]}, "no key 'channel'"),
        (3, "a list of names"),
        ([3], "a list of names"),
    ],
)
def test_other_sensors_are_refused(given, said):
    with pytest.raises(DsoError, match=said):
        EstimateStudy.read(**ESTIMATE, sensors=given)


def test_the_same_keys_expect_the_same():
    for name in ("engine", "seed", "model", "free"):
        assert len({words(study, name) for study in (IdentifyStudy, EstimateStudy, TrainStudy)}) == 1, name


def test_every_key_of_a_training_is_an_argument():
    asked = set(keys(TrainStudy))
    assert asked <= set(inspect.signature(dso.train).parameters)
    assert asked == {field.name for field in dataclasses.fields(TrainStudy)} - {"source"}
    with pytest.raises(DsoError, match="no study was given"):
        dso.design(**{name: None for name in asked})
