"""Tables of motors: units of data sheets, decimal commas, both formats alike, and what is wrong with one."""

import math

import pytest

from dso_robotics.data.motor_table import read_motors
from dso_robotics.errors import DsoError

TOML = """
[M60]
mass = "290 g"
rotor_inertia = "61 g*cm^2"
continuous_torque = 0.35
peak_torque = "1100 mN*m"
no_load_speed = "3900 rpm"
torque_constant = "50 mN*m/A"
resistance = 0.3
gears = [20, 5, 10, 5]
price = 99.5
"""
COMMA = """# from the data sheets
name, mass [g], rotor_inertia [g cm^2], continuous_torque (N m), peak_torque, no_load_speed [rpm], torque_constant [mN m/A], \
resistance [ohm], gears, price [EUR], note
M60, 290, 61, 0.35, 1.1, 3900, 50, 0.3, 20 5 10, 99.5, ours
"""


def written(folder, text, name="motors.csv"):
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_both_formats_have_the_same_numbers(tmp_path):
    (csv,) = read_motors(written(tmp_path, COMMA))
    (toml,) = read_motors(written(tmp_path, TOML, "motors.toml"))
    semicolons = COMMA.replace(",", ";").replace(".", ",")
    (german,) = read_motors(written(tmp_path, semicolons))
    assert csv == toml == german
    assert (csv.mass, csv.gears) == (0.29, (5.0, 10.0, 20.0))
    assert csv.rotor_inertia == pytest.approx(61e-7)
    assert csv.no_load_speed == pytest.approx(3900 * 2 * math.pi / 60)
    # Back-EMF cancels the voltage at the speed without load: stall torque = kt V / R with V = kt w0.
    assert csv.stall_torque == pytest.approx(0.05 * (0.05 * csv.no_load_speed) / 0.3)
    assert csv.peak_power == pytest.approx(1.1 * csv.no_load_speed)


def test_what_need_not_be_given(tmp_path):
    text = "name,mass,rotor_inertia,continuous_torque,peak_torque,no_load_speed\nA,0.3,1e-5,0.2,0.5,300\n"
    (motor,) = read_motors(written(tmp_path, text))
    assert motor.gears == (1.0,)
    assert motor.stall_torque == 0.5
    assert math.isnan(motor.price)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("mass = ", "weight = ", r"'weight' is no column of a table of motors; columns are name, mass"),
        ("mass = ", "# ", "motor 'M60' has no mass; give it in kg"),
        ('"290 g"', '"290 lb"', "mass has the unit 'lb', which is not known; give kg"),
        ('"290 g"', "-1", "mass = -1: expected a number not below zero in kg"),
        ("0.35", "2", r"peak_torque 1.1 N\*m is below continuous_torque 2 N\*m"),
        ("0.35", "true", "continuous_torque = True: expected a number above zero"),
        ("0.35", "1e200", r"continuous_torque = 1e\+200: expected a number from 1e-15 to 1e\+15"),
        ('"290 g"', "1e-300", "mass = 1e-300: expected a number from 1e-15"),
        ("0.35", "nan", "continuous_torque = nan: expected a number above zero"),
        ("[20, 5, 10, 5]", "[]", "gears = "),
        ("[20, 5, 10, 5]", "[5, 0]", "expected ratios above zero"),
        ("[M60]", "", "stands outside a table"),
        ("[M60]", "[M60", "not a TOML file"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, old, new, told):
    with pytest.raises(DsoError, match=told):
        read_motors(written(tmp_path, TOML.replace(old, new), "motors.toml"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no motor in it; the first line names the columns"),
        ("mass,peak_torque\n1,2\n", "there is no column 'name'"),
        ("name,mass,mass\nA,1,2\n", "two columns are called 'mass'"),
        ("name,mass\nA,1,2\n", "more cells than the first line has columns"),
        ("name,mass\n,1\n", "a motor has no name"),
        (COMMA + COMMA.splitlines()[-1], "two motors are called 'M60'"),
    ],
)
def test_what_is_wrong_with_a_csv_is_told(tmp_path, text, told):
    with pytest.raises(DsoError, match=told):
        read_motors(written(tmp_path, text))
    with pytest.raises(DsoError, match="cannot be read"):
        read_motors(tmp_path / "none.csv")
