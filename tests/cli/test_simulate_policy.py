"""Train, record, identify, train: a loop of commands. The recording robot is another than the one of the training."""

import mujoco
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics import cli
from dso_robotics.data.log import read_log

CART = """<mujoco model="cart">
  <option timestep="0.05" integrator="Euler"><flag contact="disable" eulerdamp="disable"/></option>
  <worldbody><body name="cart">
    <joint name="x" type="slide" axis="1 0 0" damping="0.1"/>
    <geom name="cart" type="box" size="0.1 0.1 0.1" mass="1"/>
  </body></worldbody>
  <actuator><motor name="push" joint="x" gear="2" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos name="place" joint="x"/><jointvel name="speed" joint="x"/></sensor>
</mujoco>"""
STUDY = """
model = "{model}"
seconds = 2.0
[policy]
kind = "linear"
noise = 0.1
[start]
position = {{ x = 1.0 }}
spread = 0.2
{cost}
[training]
environments = 8
horizon = 8
iterations = {iterations}
critic_hidden = 8
learning_rate = 0.05
"""
PLACE = '[cost.place]\nkind = "square"\nquantity = "joint/x/position"'


def ran(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("mujoco.mjx", reason="a training needs MJX")
    folder = tmp_path_factory.mktemp("circle")
    (folder / "cart.xml").write_text(CART)
    (folder / "true.xml").write_text(CART.replace('mass="1"', 'mass="1.7"').replace('damping="0.1"', 'damping="0.4"'))
    (folder / "first.toml").write_text(STUDY.format(model="cart.xml", cost=PLACE, iterations=5))
    ran("train", folder / "first.toml", "--out", folder / "first", "--no-report")
    return folder


def test_train_record_identify_train(folder):
    played = ["--policy", folder / "first", "--rollouts", 3, "--seconds", 3]
    ran("simulate", folder / "true.xml", *played, "--out", folder / "real.h5", "--sensor-noise", 1e-5, "--keep-state")
    log = read_log(folder / "real.h5")
    assert log.names == ("00", "01", "02")
    starts = np.array([rollout.qpos[0, 0] for rollout in log.rollouts])
    assert len(set(starts)) == 3
    assert np.abs(starts - 1.0).max() < 0.8
    free = ["--free", "body/cart/mass=1@0.2:5", "--free", "joint/x/damping=0.1@0:3"]
    ran("identify", folder / "cart.xml", folder / "real.h5", *free, "--out", folder / "found", "--no-report")
    model = mujoco.MjModel.from_xml_path(str(folder / "found" / "model.xml"))
    assert model.body_mass[1] == pytest.approx(1.7, rel=1e-3)
    assert model.dof_damping[0] == pytest.approx(0.4, rel=1e-3)
    # On the model found, a policy learns from the log what the first one does.
    cloning = f'[cost.shown]\nkind = "cloning"\nlog = "{folder / "real.h5"}"'
    (folder / "second.toml").write_text(STUDY.format(model="found/model.xml", cost=cloning, iterations=60))
    ran("train", folder / "second.toml", "--out", folder / "second", "--no-report")
    more = ["--start", "x=0.8", "--seconds", 1, "--keep-state"]
    for name in ("first", "second"):
        ran(
            "simulate", "--model", folder / "true.xml", "--policy", folder / name, "--out", folder / f"{name}.h5", *more
        )
    one, two = (read_log(folder / f"{name}.h5").rollouts[0] for name in ("first", "second"))
    np.testing.assert_allclose(two.ctrl, one.ctrl, atol=2e-2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--policy", "first", "--every", "2"], "--every is for excitations"),
        (["--policy", "first", "--spread-qpos", "1"], "about a start"),
        (["--policy", "first", "--task", "goal=1"], "trained for one task"),
        (["--policy", "first", "--seed", "98", "--rollouts", "4"], "no start number 100"),
        (["--policy", "."], "no trained policy"),
        (["cart.xml", "--start", "x=1"], "give --policy DIR too"),
        ([], "no robot to simulate"),
        (["cart.xml", "--model", "true.xml"], "given twice"),
    ],
)
def test_what_does_not_fit_together_is_refused(folder, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(folder)
    assert cli.main(["simulate", *arguments, "--out", "no.h5"]) == 2
    assert told in capsys.readouterr().err
    assert not (folder / "no.h5").exists()


def test_python_records_the_same(folder):
    ran("simulate", "--policy", folder / "first", "--out", folder / "one.h5", "--start", "x=0.5", "--seconds", 1)
    log = dso.simulate(policy=folder / "first", start={"x": 0.5}, seconds=1.0)
    np.testing.assert_array_equal(log.rollouts[0].ctrl, read_log(folder / "one.h5").rollouts[0].ctrl)
    with pytest.raises(dso.DsoError, match="needs a model, or a policy"):
        dso.simulate()
