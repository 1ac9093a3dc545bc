"""Motors of a table and choices in a training: a wheel whose best motor and gear are known, derivatives, limits, bad input."""

import dataclasses
import itertools
import shutil

import mujoco
import numpy as np
import pytest
import scipy.linalg

from dso_robotics.cli import main
from dso_robotics.data.motor_table import read_motors
from dso_robotics.errors import DsoError
from dso_robotics.studies import rounding
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.robot.test_replay import Windows, compared

LOAD = 0.02  # kg m^2
WHEEL = f"""<mujoco model="wheel"><option timestep="0.02"><flag contact="disable" gravity="disable"/></option>
  <worldbody><body name="wheel"><joint name="j" axis="0 0 1"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 {LOAD}"/>
  </body></worldbody><actuator><motor name="m" joint="j" ctrlrange="-1 1"/></actuator></mujoco>"""
MOTORS = """name,mass,rotor_inertia [g cm^2],continuous_torque [mN m],peak_torque,no_load_speed [rpm],gears,price
quick,0.1,200,60,0.13,60000,4 8 16 32 64,10
slow,0.5,4000,200,0.25,60000,4 8 16,30
middle,0.2,500,150,0.16,60000,4 8 16 32,20
strong,0.9,16000,400,0.40,60000,4 8 16,40
"""
STUDY = """
model = "wheel.xml"
seconds = 1.2
[policy]
kind = "linear"
noise = 0.1
[start]
position = {{ j = 0.3 }}
[cost.place]
kind = "square"
quantity = "joint/j/position"
[cost.effort]
kind = "control"
weight = 0.05
[motor.m]
of = "m"
catalogue = "motors.csv"
{more}
[training]
environments = 8
horizon = 10
iterations = {iterations}
critic_hidden = 16
learning_rate = 0.05
design_rate = 0.1
"""


def study(folder, more="", iterations=3, model=WHEEL, motors=MOTORS, **replaced):
    (folder / "wheel.xml").write_text(model)
    (folder / "motors.csv").write_text(motors)
    text = STUDY.format(more=more, iterations=iterations)
    for old, new in replaced.items():
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text)
    return TrainStudy.read(folder / "study.toml")


def acceleration(motor, gear):
    """Of the wheel under a control of 1: peak torque n / (load + rotor n²), largest at n = sqrt(load / rotor)."""
    return motor.peak_torque * gear / (LOAD + motor.rotor_inertia * gear**2)


def best_cost(gain, steps=60, dt=0.02):
    """Cost of `steps` steps under the best policy where the control makes the acceleration `gain`, MuJoCo's Euler."""
    a, b = np.array([[1.0, dt], [0.0, 1.0]]), gain * np.array([[dt * dt], [dt]])
    q, r = np.diag([1.0, 0.0]), np.array([[0.05]])
    value = np.zeros((2, 2))
    for _ in range(steps):
        h = r + b.T @ (q + value) @ b
        k = scipy.linalg.solve(h, b.T @ (q + value) @ a)
        value = a.T @ (q + value) @ (a - b @ k)
    return 0.3**2 * value[0, 0]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A search and its rounding; `killed` is what a run leaves that is killed when it trains on with the second combination."""
    folder, calls, real = tmp_path_factory.mktemp("wheel"), [], rounding.descend

    def descend(*given, **more):
        calls.append(1)
        if len(calls) == 2:
            shutil.copytree(folder / "out", folder / "killed")
        return real(*given, **more)

    made = study(folder, "[rounding]\ntuned = 2\nshare = 0.1\ntried = 20", 80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "descend", descend)
        return made, train(made, folder / "out", command="design"), folder


def test_the_best_motor_and_gear_of_a_table_are_found(wheel):
    """Enumerated: the control effort of every pair in closed form. The search begins elsewhere, between the rows."""
    _, found, folder = wheel
    pairs = [(motor, gear) for motor in read_motors(folder / "motors.csv") for gear in motor.gears]
    best = max(pairs, key=lambda pair: acceleration(*pair))
    assert (best[0].name, best[1]) == ("quick", 32.0)
    assert best[1] == min(best[0].gears, key=lambda gear: abs(np.log(gear / np.sqrt(LOAD / best[0].rotor_inertia))))
    told = found.summary["rounding"]
    assert told["chosen"]["label"] == "actuator/m quick, gear 32"
    assert found.summary["motors"]["m"]["label"] == "quick, gear 32"
    tried = {row["label"]: row["cost"] for row in told["tried"]}
    assert len(tried) == len(pairs)
    # No policy does better than the regulator, and the one that was found is near it.
    for motor, gear in pairs:
        assert tried[f"actuator/m {motor.name}, gear {gear:g}"] >= best_cost(acceleration(motor, gear)) - 1e-9
    assert told["chosen"]["cost"] <= 1.3 * best_cost(acceleration(*best))
    assert found.summary["parameters"]["actuator/m/gear[0]"]["value"] == 32.0


def test_the_loss_of_rounding_is_told(wheel):
    told = wheel[1].summary["rounding"]
    nearest = next(row for row in told["tried"] if row["label"] == told["nearest"]["label"])
    assert told["loss"] == pytest.approx(nearest["cost"] - told["searched"]["cost"])
    assert told["loss_after_training"] == pytest.approx(told["chosen"]["cost"] - told["searched"]["cost"])
    assert told["iterations"] == 16
    assert sum(row["tuned"] is not None for row in told["tried"]) == 2
    assert wheel[1].summary["cost"]["total"] == pytest.approx(told["chosen"]["cost"])


def test_the_model_that_is_written_has_the_motor(wheel):
    model = mujoco.MjModel.from_xml_path(str(wheel[2] / "out" / "model.xml"))
    assert model.actuator_gear[0, 0] == 32.0
    assert model.actuator_gainprm[0, 0] == 0.13
    assert model.dof_armature[0] == pytest.approx(2e-5 * 32**2, rel=1e-12)


@pytest.mark.parametrize("drive", ["torque", "voltage"])
def test_costs_of_motors_have_the_derivatives_of_c(tmp_path, drive):
    """A pendulum on a sprung base, so that the motor's mass matters; region, heat, power and price, near their limits."""
    model = """<mujoco><option timestep="0.01" integrator="implicitfast"/><worldbody><body name="base">
      <joint name="z" type="slide" axis="0 0 1" stiffness="300" damping="4"/><geom size=".1" mass="2"/><body name="arm">
      <joint name="j" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .1 0 -.4" size=".02" mass="1"/></body></body></worldbody>
      <actuator><motor name="m" joint="j" ctrlrange="-1 1"/></actuator></mujoco>"""
    motors = """\
name,mass,rotor_inertia [g cm²],continuous_torque,peak_torque,no_load_speed,torque_constant,resistance,gears,price
A,0.2,200,0.05,0.3,20,0.1,0.5,4 8,10
B,0.4,900,0.08,0.5,15,0.2,0.8,4 8,30"""
    costs = "".join(
        f'[cost.{what}]\nkind = "motor"\nmotor = "m"\nwhat = "{what}"\nmargin = 0.1\n'
        for what in ("region", "continuous", "power")
    )
    costs += '[cost.price]\nkind = "square"\nquantity = "motor/m/price"\nscale = 20.0\n'
    costs += '[cost.loss]\nkind = "square"\nquantity = "motor/m/loss"\n'
    made = study(tmp_path, f'drive = "{drive}"\n{costs}', model=model, motors=motors)
    made = dataclasses.replace(made, start=dataclasses.replace(made.start, velocity={"j": 2.5}, spread=0.3))
    windows = Windows(made)
    theta = windows.chain.layout.initial + 0.3 * np.random.default_rng(1).standard_normal(windows.chain.layout.size)
    terms = windows(theta)[2]
    assert np.all(np.isfinite(terms.costs))
    for block in ("policy", "design"):
        by_replay, by_c = compared(windows, theta, block)
        assert by_replay == pytest.approx(by_c, rel=2e-6), block


def test_a_motor_that_is_too_small_is_not_called_able(tmp_path):
    """One motor with one gear is no design, but it is a limit: what it does is told, and the training has not converged."""
    more = 'motors = ["weak"]\n'
    motors = MOTORS + "weak,0.1,20,5,0.10,1000,8,5\n"
    found = train(study(tmp_path, more, 40, motors=motors), tmp_path / "out")
    row = found.summary["motors"]["m"]
    assert (row["label"], row["gear"]) == ("weak, gear 8", 8.0)
    torque = np.concatenate([0.1 * episode.ctrl[:, 0] for episode in found.episodes])
    speed = np.concatenate([8 * episode.qvel[:, 0] for episode in found.episodes])
    assert row["torque"]["peak"] == pytest.approx(np.abs(torque).max())
    assert row["speed"]["peak"] == pytest.approx(np.abs(speed).max())
    assert row["torque"]["rms"] == pytest.approx(
        max(np.sqrt(np.mean(0.01 * episode.ctrl**2)) for episode in found.episodes)
    )
    assert row["overheat"] == pytest.approx(row["torque"]["rms"] / 0.005 - 1)
    assert not found.summary["converged"]
    assert any("weak, gear 8 is too small for this motion" in text for text in found.summary["warnings"])


def test_a_design_number_is_rounded_to_its_choices(tmp_path, capsys):
    more = '[design.gear]\nkind = "gear"\nof = "m"\nchoices = [20, 5, 10]\n[rounding]\ntuned = 0\n'
    made = study(tmp_path, more)
    text = (tmp_path / "study.toml").read_text().replace('[motor.m]\nof = "m"\ncatalogue = "motors.csv"\n', "")
    (tmp_path / "study.toml").write_text(text)
    (tmp_path / "wheel.xml").write_text(WHEEL.replace('joint="j" ctrl', 'joint="j" gear="8" ctrl'))
    assert main(["design", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "model.xml"))
    assert model.actuator_gear[0, 0] in (5.0, 10.0, 20.0)
    assert "rounding to actuator/m" in said
    assert said.count("chosen") == 1
    assert made.design["gear"].choices == (20.0, 5.0, 10.0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("choices = []", "choices is empty; give at least two values"),
        ("choices = [5]", "leaves nothing to choose; give at least two values"),
        ("choices = [5, 5]", "to stand there once"),
        ("choices = [5, 30]\nlow = 1\nhigh = 20", "the choice 30 is outside the bounds 1 to 20"),
        ("choices = [10, 30]", "model's value 8 1 is outside the bounds"),
        ('choices = "many"', "choices = 'many'"),
    ],
)
def test_choices_that_cannot_be_are_refused(tmp_path, more, told):
    (tmp_path / "wheel.xml").write_text(WHEEL.replace('joint="j" ctrl', 'joint="j" gear="8" ctrl'))
    text = STUDY.format(more=f'[design.gear]\nkind = "gear"\nof = "m"\n{more}', iterations=3)
    text = text.replace('[motor.m]\nof = "m"\ncatalogue = "motors.csv"\n', "")
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(DsoError, match=told):
        build(TrainStudy.read(tmp_path / "study.toml"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('motors = ["quik"]', "there is no motor 'quik'; there are 'quick'"),
        ('motors = ["quick", "quick"]', "stands there twice"),
        ('order = "torque"', "order = 'torque'"),
        ('order = "resistance"', "the table says none of motor 'quick'"),
        ('start = "M"', "there is no motor 'M'"),
        ("gears = [0.0]", "gears = "),
        ("gears = []", "gears is empty; leave it out"),
        ("motors = []", "motors is empty; leave it out"),
        ('site = "hand"', "there is no site called 'hand'"),
        ('[motor.n]\nof = "m"\ncatalogue = "motors.csv"', r"\[motor.m\] and \[motor.n\] are both of actuator 'm'"),
        ('[design.g]\nkind = "gear"\nof = "m"', r"\[design.g\] designs the gear of 'm', whose motor \[motor.m\]"),
        ('[cost.c]\nkind = "motor"\nmotor = "k"', r"there is no \[motor.k\]; the study has 'm'"),
        ('[cost.c]\nkind = "square"\nquantity = "motor/m/loss"', "says no torque_constant of motor 'quick'"),
        ('[cost.c]\nkind = "square"\nquantity = "motor/m/heat"', "no quantity 'heat' there; it has torque, speed"),
        ('[terminate.t]\nquantity = "motor/m/speed"\nhigh = 1.0\ncost = 1.0', "a quantity of a motor ends no episode"),
    ],
)
def test_motors_that_cannot_be_are_refused(tmp_path, more, told):
    with pytest.raises(DsoError, match=told):
        build(study(tmp_path, more))


def test_combinations_are_tried_from_the_nearest():
    from dso_robotics.physics.design.choice import Choice

    one = Choice(("a",), np.array([[5.0], [10.0], [20.0]]), ("5", "10", "20"))
    two = Choice(("b", "c"), np.array(list(itertools.product((0.0, 1.0), (2.0, 4.0)))), ("02", "04", "12", "14"))
    found = list(rounding._near([one, two], np.array([13.0, 0.1, 3.9]), 4))
    # 13 lies at 0.3 between 10 and 20; (0.1, 3.9) is nearest to (0, 4).
    assert found == [(1, 1), (2, 1), (1, 3), (1, 0)]
    many = [Choice((f"n{i}",), np.arange(10.0)[:, None], tuple("0123456789")) for i in range(12)]
    assert next(iter(rounding._near(many, np.full(12, 3.2), 5))) == (3,) * 12


def test_a_run_that_ends_while_it_trains_on_goes_on_from_there(wheel, monkeypatch):
    made, whole, folder = wheel
    calls, real = [], rounding.descend
    monkeypatch.setattr(rounding, "descend", lambda *given, **more: calls.append(1) or real(*given, **more))
    found = train(made, folder / "killed", command="design", resume=True)
    assert len(calls) == 1  # what was trained on with the first combination was kept
    assert found.summary["rounding"] == whole.summary["rounding"]
    assert np.array_equal(found.theta, whole.theta)
