"""What a study of a robot system may have wrong: each is named before anything compiles."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.record import record
from dso_robotics.errors import DsoError
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.everything import CART

MODEL = """
model = "robot.xml"
control_step = 0.05
"""
FREE = 'free = ["body/cart/mass=1.2@0.2:5"]\n'
TASK = """
[cost.task]
kind = "square"
quantity = "joint/x/position"
"""
SENSORS = '[sensors]\nnoise = { "*" = 0.02 }\n'
ESTIMATOR = "[estimator]\n"


def cost(kind: str, log: str = "log.h5", more: str = "") -> str:
    return f'[cost.data]\nkind = "{kind}"\nlog = "{log}"\n{more}\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The cart, a log of it, and logs without actions, without states, of other intervals and with gaps."""
    folder = tmp_path_factory.mktemp("input")
    (folder / "robot.xml").write_text(CART)
    (folder / "blind.xml").write_text(CART[: CART.index("<sensor>")] + "</mujoco>")
    (folder / "other.xml").write_text(CART.replace('name="speed" joint="x"', 'name="velocity" joint="x"'))
    model, rng = mujoco.MjModel.from_xml_string(CART), np.random.default_rng(0)
    ctrl = np.sin(np.arange(40) / 3)[:, None]
    write_log(folder / "log.h5", record(model, rng, [("one", ctrl)], keep_state=True))
    write_log(folder / "stateless.h5", record(model, rng, [("one", ctrl)]))
    write_log(folder / "slow.h5", record(model, rng, [("one", ctrl)], every=2, keep_state=True))
    one = read_log(folder / "log.h5").rollouts[0]
    silent = dataclasses.replace(one, ctrl=None, ctrl_names=(), ctrl_units=())
    write_log(folder / "silent.h5", Log("", "cart", "", (silent,)))
    return folder


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (FREE + TASK + cost("identification", "silent.h5"), r"silent.h5.*'one'.*not recorded.*identification_cloning"),
        (TASK + SENSORS + ESTIMATOR + cost("estimation", "silent.h5"), "silent.h5.*not recorded"),
        (TASK + SENSORS + cost("estimation"), r"log.h5.*\[estimator\]"),
        (SENSORS + TASK.replace("square", "estimation").replace('quantity = "joint/x/position"', ""), r"\[estimator\]"),
        (TASK + cost("calibration"), r"log.h5.*no \[sensors\]"),
        (TASK + SENSORS + cost("calibration", "stateless.h5"), "stateless.h5.*qpos"),
        (TASK + SENSORS + ESTIMATOR + cost("estimation", "slow.h5"), "slow.h5.*0.1 s apart.*control_step = 0.1"),
        (TASK + SENSORS + ESTIMATOR + "[policy]\ndelay = 0.05\n" + cost("estimation"), "delay"),
        (TASK + cost("identification_cloning", "stateless.h5"), "stateless.h5.*qpos"),
        (TASK + cost("identification_cloning", more="window = 0.01"), "shorter than a control step"),
        (TASK + ESTIMATOR, r"no \[sensors\] table"),
        (TASK + SENSORS + '[policy]\nobserve = "estimate"\n', r"no \[estimator\]"),
        (TASK + '[policy]\nobserve = "readings"\n', r"no \[sensors\]"),
        (TASK + '[policy]\nobserve = "reading"\n', "observe: .*no sensor 'reading'.*\"estimate\""),
        (TASK + '[sensors]\nchannels = ["plce"]\nnoise = { "*" = 0.1 }\n', "'plce'.*place"),
        (TASK + "[sensors]\nnoise = { place = 0.1 }\n", "'speed' is missing"),
        (TASK + '[sensors]\nnoise = { "*" = 0.0 }\n', "positive number"),
        (TASK + '[sensors]\nnoise = { "*" = -1.0 }\n', "positive number"),
        (TASK + '[sensors]\nnoise = { "*" = nan }\n', "positive number"),
        (TASK + '[sensors]\nnoise = { "*" = 0.1, gyro = 0.1 }\n', "'gyro'"),
        ('free = ["sensor/place/bias"]\n' + TASK, r"sensor/place/bias is free.*\[sensors\]"),
        ('free = ["sensor/place/noise"]\n' + TASK, r"sensor/place/noise is free.*\[sensors\]"),
        ('free = ["sensor/plac/noise"]\n' + TASK + SENSORS, "no channel that is read"),
        ('free = ["sensor/place/noise=0.1@0:1"]\n' + TASK + SENSORS, "neither bounds"),
        ('free = ["sensor/place/noise"]\n' + TASK + SENSORS, r"no cost moves the block 'sensor noise'.*\[flow\]"),
        (FREE + TASK + '[randomise]\n"body/cart/mass" = [0.5, 2.0]\n', "body/cart/mass is in `free` and in `randomise`"),
        ('free = ["actuator/push/gear[0]=2@1:4"]\n' + TASK + '[design.g]\nkind = "gear"\nof = "push"\n', "both set"),
        (FREE + TASK + '[flow]\nmotor = ["rollouts"]\n', r"\[flow\] motor.*'physics'|\[flow\] motor.*physics"),
        (FREE + TASK + '[flow]\nphysics = ["log"]\n', r"\[flow\] physics: there is no source 'log'"),
        (FREE + TASK + "[flow]\nphysics = []\n", "no cost moves the block 'physics'"),
        (TASK + "weight = -1.0\n", "reward"),
        (TASK + 'weight = "balanced"\n', "weight"),
        (TASK + '[training]\nmethod = "gauss_newton"\n', "minimises costs of logs alone"),
        (FREE + cost("identification") + '[training]\nmethod = "pathwise"\n', "no cost is of the motion"),
        (TASK + SENSORS + ESTIMATOR + 'model = "own"\n', "of its own"),
        (TASK + "[judge]\nmodel = \"other.xml\"\n", "other joints, actuators or sensors"),
        (TASK + '[judge]\nvalues = { "body/crt/mass" = 1.0 }\n', r"\[judge\].*crt"),
        (TASK + '[judge]\nvalues = { "sensor/place/bias" = 1.0 }\n', r"no \[sensors\] table"),
        (TASK + SENSORS + '[judge]\nvalues = { "sensor/plac/noise" = 1.0 }\n', "no channel that is read"),
        (cost("calibration") + SENSORS + 'free = 1\n', "free"),
        (TASK.replace("[cost.task]", "[cost.rollouts]"), "all costs of the motion"),
    ],
)  # fmt: skip
def test_it_is_named_before_anything_compiles(folder, text, told):
    lines = text.splitlines()
    top = [line for line in lines if line.startswith("free =")]
    rest = [line for line in lines if line not in top]
    (folder / "study.toml").write_text("\n".join([MODEL, *top, *rest, ""]))
    with pytest.raises(DsoError, match=f"(?s){told}") as error:
        build(TrainStudy.read(folder / "study.toml"))
    assert "study.toml" in str(error.value) or ".h5" in str(error.value) or "robot.xml" in str(error.value)


def test_a_model_without_sensors_has_nothing_to_read(folder):
    (folder / "study.toml").write_text(MODEL.replace("robot", "blind") + TASK + SENSORS)
    with pytest.raises(DsoError, match="no sensors"):
        build(TrainStudy.read(folder / "study.toml"))
