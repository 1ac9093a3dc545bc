"""A random legged robot described by an MjSpec, and the edits of that description that the design maps stand for."""

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from dso_robotics.physics.inertia import rotation

G, J = mujoco.mjtGeom, mujoco.mjtJoint


def legged(seed: int) -> mujoco.MjSpec:
    """Torso, thigh, shin, foot and a fin, all turned at random, with what MuJoCo can fix to a body."""
    rng = np.random.default_rng(seed)
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    torso = spec.worldbody.add_body(name="torso", pos=(0, 0, 1))
    torso.add_freejoint()
    torso.add_geom(type=G.mjGEOM_BOX, size=(0.2, 0.1, 0.05), quat=rng.normal(size=4))
    torso.add_site(name="hip", pos=rng.normal(size=3))

    near, far = rng.normal(size=3) / 10, rng.normal(size=3)
    thigh = torso.add_body(name="thigh", pos=rng.normal(size=3), quat=unit(rng.normal(size=4)))
    thigh.add_joint(name="hip", axis=unit(rng.normal(size=3)), pos=near)
    thigh.add_joint(name="twist", axis=unit(rng.normal(size=3)), pos=rng.normal(size=3))
    along = unit(far - near)
    across = unit(np.cross(along, rng.normal(size=3)))
    place = rng.normal(size=3)
    for kind, one, two in (
        (G.mjGEOM_CAPSULE, near, far),
        (G.mjGEOM_CAPSULE, place, rng.normal(size=3)),
        (G.mjGEOM_CYLINDER, place, place + 0.3 * across),
        (G.mjGEOM_BOX, place, place + 0.4 * along),
        (G.mjGEOM_ELLIPSOID, place, place - 0.2 * along),
    ):
        thigh.add_geom(type=kind, fromto=[*one, *two], size=(rng.uniform(0.02, 0.1), 0, 0))
    thigh.geoms[3].mass = 0.7
    thigh.add_geom(size=(0.05, 0, 0), pos=rng.normal(size=3), density=300)
    thigh.add_geom(size=(0.05, 0, 0), pos=rng.normal(size=3), mass=0)
    thigh.add_site(name="thigh", pos=rng.normal(size=3))
    thigh.add_camera(pos=rng.normal(size=3))
    thigh.add_light(pos=rng.normal(size=3))
    fin = thigh.add_body(name="fin", pos=near + 0.3 * (far - near), quat=unit(rng.normal(size=4)))
    fin.add_geom(type=G.mjGEOM_ELLIPSOID, size=(0.1, 0.2, 0.05))

    turn, offset = unit(rng.normal(size=4)), rng.normal(size=3) / 10
    shin = thigh.add_body(name="shin", pos=far - rotation(turn) @ offset, quat=turn)
    shin.add_joint(name="knee", axis=unit(rng.normal(size=3)), pos=offset, stiffness=[3, 0, 0], springref=0.2)
    shin.add_geom(type=G.mjGEOM_CAPSULE, fromto=[*offset, *rng.normal(size=3)], size=(0.04, 0, 0))
    foot = shin.add_body(name="foot", pos=rng.normal(size=3), quat=unit(rng.normal(size=4)))
    foot.add_joint(name="ankle", type=J.mjJNT_SLIDE, axis=unit(rng.normal(size=3)), pos=rng.normal(size=3))
    foot.add_geom(type=G.mjGEOM_BOX, size=(0.1, 0.05, 0.02), pos=rng.normal(size=3) / 10, quat=rng.normal(size=4))
    foot.add_site(name="sole", pos=rng.normal(size=3), size=(0.02, 0.03, 0.04))
    rope = spec.add_tendon(name="rope", springlength=(0.1, 0.2))
    for site in ("hip", "thigh", "sole"):
        rope.wrap_site(site)
    for joint in ("hip", "knee"):
        motor = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.gear[:2] = 30, 2
    return spec


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def stretch(spec: mujoco.MjSpec, name: str, factor: float, end: np.ndarray | None = None) -> None:
    """The limb from its joint to `end` (by default where its child 'shin' hangs) `factor` times as long."""
    body = spec.body(name)
    near = np.array(body.joints[0].pos)
    far = hang(spec.body("shin")) if end is None else np.asarray(end)
    along = unit(far - near)
    move(body, lambda p: p + (factor - 1) * np.dot(p - near, along) * along, body.joints[1:])
    for child in body.bodies:
        point = hang(child)
        child.pos += (factor - 1) * np.dot(point - near, along) * along


def hang(body: mujoco.MjsBody) -> np.ndarray:
    """Where a body hangs on its parent, in the parent's frame."""
    return body.pos + (rotation(np.array(body.quat)) @ body.joints[0].pos if body.joints else 0)


def move(body: mujoco.MjsBody, change, joints) -> None:
    """All points of a body, end points of geoms included, through `change`."""
    for geom in body.geoms:
        if np.isnan(geom.fromto[0]):
            geom.pos = change(geom.pos)
        else:
            geom.fromto = [*change(geom.fromto[:3]), *change(geom.fromto[3:])]
    for thing in (*body.sites, *body.cameras, *body.lights, *joints):
        thing.pos = change(thing.pos)


def thicken(spec: mujoco.MjSpec, name: str, factor: float) -> None:
    """All radii (of geoms given by their end points, and spheres) `factor` times as large."""
    for geom in spec.body(name).geoms:
        geom.size *= [factor, 1, 1]


def grow(body: mujoco.MjsBody, factor: float, *, root: bool = True) -> None:
    """A body and all below it `factor` times as large, about the body's first joint."""
    centre = np.array(body.joints[0].pos) if root and body.joints else np.zeros(3)

    def change(point):
        return centre + factor * (point - centre)

    move(body, change, body.joints[1:] if root else body.joints)
    for thing in (*body.geoms, *body.sites):
        thing.size *= factor
    for child in body.bodies:
        child.pos = change(child.pos)
        grow(child, factor, root=False)


def tilt(axis: np.ndarray, frame: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """`axis` turned by the rotation vector that takes it towards numbers @ frame."""
    return Rotation.from_rotvec(np.cross(axis, numbers @ frame)).apply(axis)
