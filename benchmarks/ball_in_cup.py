"""Trained catchers of examples/studies/ball_in_cup.toml by the rule of dm_control, in plain MuJoCo.

Run: python benchmarks/ball_in_cup.py DIR [DIR ...], each a result of `dso train`. The reward of a control step is 1 while the
whole ball is within the box in the cup. An episode has 1000 control steps, 20 s. The first starts with the ball hanging, the
others with the ball where that task draws it: in a field 0.4 m wide, 0.4 to 0.7 m above the floor, touching nothing. All are
played at the model's time step and at a quarter of it. Solved: from hanging and from 19 of the 20 drawn starts, at both time
steps, the return is at least 900 and the ball is in the cup during all of the last 2 s.
"""

import argparse
import dataclasses
import pathlib

import mujoco
import numpy as np

import dso_robotics as dso

STEPS, LAST, DRAWN, ENOUGH = 1000, 100, 20, 900


@dataclasses.dataclass(frozen=True)
class Episode:
    """Return of an episode, whether the ball was in the cup during all of its end, and when it was first there [s]."""

    reward: float
    held: bool
    first: float

    @property
    def solved(self) -> bool:
        """By the rule above."""
        return self.held and self.reward >= ENOUGH


def starts(model: mujoco.MjModel, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Places (x, z) of the ball, from where it hangs [m]: hanging, and drawn ones at which nothing touches."""
    found, data = [(0.0, 0.0)], mujoco.MjData(model)
    while len(found) <= DRAWN:
        mujoco.mj_resetData(model, data)
        place = float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0.2, 0.5))
        data.joint("ball_x").qpos[:], data.joint("ball_z").qpos[:] = place
        mujoco.mj_forward(model, data)
        if data.ncon == 0:
            found.append(place)
    return found


def played(policy: dso.Policy, model: mujoco.MjModel, start: tuple[float, float]) -> Episode:
    """An episode from a place of the ball."""
    data, inside, ball = mujoco.MjData(model), model.site("inside"), model.geom("ball")
    data.joint("ball_x").qpos[:], data.joint("ball_z").qpos[:] = start
    mujoco.mj_forward(model, data)
    policy.reset()
    room, caught = inside.size[[0, 2]] - ball.size[0], np.zeros(STEPS, bool)
    for k in range(STEPS):
        data.ctrl[:] = policy.act(data)
        mujoco.mj_step(model, data, nstep=round(policy.period / model.opt.timestep))
        mujoco.mj_kinematics(model, data)
        away = data.site("inside").xpos - data.geom("ball").xpos
        caught[k] = np.all(np.abs(away[[0, 2]]) < room)
    first = (float(np.argmax(caught)) + 1) * policy.period if caught.any() else np.nan
    return Episode(float(caught.sum()), bool(caught[-LAST:].all()), first)


def judge(folder: pathlib.Path) -> None:
    """Print the episodes of a result in two lines and the verdict."""
    policy, solved = dso.Policy.load(folder), True
    for part in (1, 4):
        model = mujoco.MjModel.from_xml_path(str(folder / "model.xml"))
        model.opt.timestep /= part
        hanging, *drawn = (played(policy, model, start) for start in starts(model, np.random.default_rng(1)))
        returns, good = [one.reward for one in drawn], sum(one.solved for one in drawn)
        solved &= hanging.solved and good >= DRAWN - 1
        print(
            f"{folder}, {model.opt.timestep * 1e3:g} ms: hanging {hanging.reward:.0f}, first caught at {hanging.first:.2f} s; "
            f"drawn {np.mean(returns):.0f} on average, {min(returns):.0f} at least, {good} of {DRAWN} solved"
        )
    print(f"{folder}: {'solved' if solved else 'NOT solved'}")


def main() -> None:
    """Judge every folder named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=pathlib.Path, metavar="DIR", help="a result of dso train")
    for folder in parser.parse_args().results:
        judge(folder)


if __name__ == "__main__":
    main()
