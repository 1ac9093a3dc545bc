"""`dso parameters`: lists every path that can be freed."""

import argparse


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dso parameters MODEL`."""
    parser = subparsers.add_parser(
        "parameters",
        help="list every PATH of a model that can be freed, with value and unit",
        description="List every PATH of a model that `dso identify --free` accepts, with its present value and its unit.",
        epilog="example: dso parameters models/two_joint_arm.xml",
    )
    parser.add_argument("model", metavar="MODEL", help="MJCF or URDF file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from dso_robotics.parameters.path import escape, every
    from dso_robotics.physics.model import load

    robot = load(args.model)
    rows = []
    for target in every(robot):
        unit = target.family.unit(robot.mj, target.object_id, target.component)
        rows.append((target.path, f"{target.nominal(robot):.6g}", unit, target.family.text))
    for i, name in enumerate(robot.names("body")):
        if name and robot.mj.body_mass[i] > 0:
            rows.append(
                (f"body/{escape(name)}/inertia", "10 numbers", "", "mass, centre of mass and full inertia together")
            )
    if not rows:
        print(
            f"{args.model}: nothing can be freed; only named joints, bodies, geoms, actuators and sensors have paths."
        )
        return 0
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for path, value, unit, text in rows:
        print(f"{path:<{widths[0]}}  {value:>{widths[1]}}  {unit:<{widths[2]}}  {text}")
    return 0
