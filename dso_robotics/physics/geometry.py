"""Mass, centre of mass and inertia of bodies from the sizes, poses and densities of their geoms.

The formulas are those of MuJoCo's compiler (`mjCGeom::GetVolume`, `mjCGeom::SetInertia` and `mjCBody::InertiaFromGeom` in
src/user/user_objects.cc) for solid geoms. A compiled model contains neither the density nor the given mass of a geom, so
these are read from the `MjSpec`.

Functions accept NumPy and JAX arrays and broadcast over leading axes. There is no eigendecomposition: the inertia is a full
tensor, so it is differentiable also where principal moments coincide.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.inertia import rotation
from dso_robotics.physics.model import Robot

Array = Any  # a NumPy or a JAX array

# NumPy integers do not compare equal to MuJoCo's enums, so the enums are turned into integers.
SPHERE, CAPSULE, CYLINDER, BOX, ELLIPSOID = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("SPHERE", "CAPSULE", "CYLINDER", "BOX", "ELLIPSOID")
)
SOLIDS = (SPHERE, CAPSULE, CYLINDER, BOX, ELLIPSOID)
# The compiler's numbers differ from these by rounding only, unless something besides geometry changed them.
_SAME = 1e-7


def volume(kind: int, size: Array) -> Array:
    """Volume [m^3] (...) of a geom of `kind` (one of `SOLIDS`) with MuJoCo's `size` [m] (..., 3)."""
    one, two, three = (size[..., i] for i in range(3))
    if kind == SPHERE:
        return 4 * np.pi / 3 * one**3
    if kind == CAPSULE:
        return np.pi * one**2 * (2 * two + 4 / 3 * one)
    if kind == CYLINDER:
        return 2 * np.pi * one**2 * two
    return (8 if kind == BOX else 4 * np.pi / 3) * one * two * three


def moments(kind: int, size: Array) -> Array:
    """Moments of inertia per unit mass [m^2] (..., 3) of a geom about its centre, along its own axes.

    `kind` is one of `SOLIDS`, `size` [m] (..., 3) as in MuJoCo.
    """
    xp = size.__array_namespace__()
    if kind in (BOX, ELLIPSOID):
        square = size**2 / (3 if kind == BOX else 5)
        return square.sum(-1)[..., None] - square
    radius, height = size[..., 0], 2 * size[..., 1]
    ball = 2 / 5 * radius**2
    if kind == SPHERE:
        return xp.stack([ball, ball, ball], -1)
    across, along = (3 * radius**2 + height**2) / 12, radius**2 / 2
    if kind == CAPSULE:
        caps = 4 * radius / (4 * radius + 3 * height)  # the mass share of the two hemispheres
        across = (1 - caps) * across + caps * (ball + height * (3 * radius + 2 * height) / 8)
        along = (1 - caps) * along + caps * ball
    return xp.stack([across, across, along], -1)


def extent(kind: int, size: Array, direction: Array) -> Array:
    """How far [m] (...) a geom of `kind` (one of `SOLIDS`) with MuJoCo's `size` [m] (..., 3) reaches from its centre.

    direction: unit vector (..., 3) in the geom's own axes.
    """
    xp = size.__array_namespace__()
    radius, along = size[..., 0], xp.abs(direction[..., 2])
    if kind == SPHERE:
        return radius
    if kind == CAPSULE:
        return radius + size[..., 1] * along
    if kind == CYLINDER:
        across = 1 - along**2  # no square root of zero, which has no derivative
        return size[..., 1] * along + radius * xp.where(across > 0, xp.sqrt(xp.where(across > 0, across, 1.0)), 0.0)
    if kind == BOX:
        return (size * xp.abs(direction)).sum(-1)
    return xp.sqrt(((size * direction) ** 2).sum(-1))


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """The geoms that make up the mass of some bodies.

    bodies: (b,) body ids.
    geoms: (k,) geom ids.
    kind: (k,) type of each geom.
    owner: (k,) index in `bodies` of each geom's body.
    density: (k,) [kg/m^3], 0 for geoms with a given mass.
    mass: (k,) [kg], 0 for geoms with a density. As in MJCF, a given mass does not change with the size.
    """

    bodies: np.ndarray
    geoms: np.ndarray
    kind: np.ndarray
    owner: np.ndarray
    density: np.ndarray
    mass: np.ndarray

    def inertials(self, geom_size: Array, geom_pos: Array, geom_quat: Array) -> tuple[Array, Array, Array]:
        """Mass [kg] (..., b), centre of mass [m] (..., b, 3) and inertia about it [kg m^2] (..., b, 3, 3) in body axes.

        geom_size, geom_pos [m] (..., ngeom, 3) and geom_quat (..., ngeom, 4) are the model's whole fields.
        """
        size, place, quat = (x[..., self.geoms, :] for x in (geom_size, geom_pos, geom_quat))
        xp = size.__array_namespace__()
        belongs = xp.asarray(np.eye(len(self.bodies))[self.owner].T)
        mass = self.mass + self.density * self._by_kind(volume, size, ())
        total = (belongs * mass[..., None, :]).sum(-1)
        com = (belongs[..., None] * (mass[..., None] * place)[..., None, :, :]).sum(-2) / total[..., None]
        turn = rotation(quat)
        local = mass[..., None] * self._by_kind(moments, size, (3,))
        turned = ((turn * local[..., None, :])[..., None, :] * turn[..., None, :, :]).sum(-1)
        arm = place - com[..., self.owner, :]
        outer = arm[..., :, None] * arm[..., None, :]
        square = (arm**2).sum(-1)[..., None, None]
        tensor = turned + mass[..., None, None] * (square * xp.asarray(np.eye(3)) - outer)
        return total, com, (belongs[..., None, None] * tensor[..., None, :, :, :]).sum(-3)

    def _by_kind(self, function: Callable[[int, Array], Array], size: Array, shape: tuple[int, ...]) -> Array:
        """`function` of each geom's kind and size, (..., k, *shape). Each formula is evaluated for its own geoms only."""
        xp = size.__array_namespace__()
        groups = [np.flatnonzero(self.kind == kind) for kind in SOLIDS]
        values = [function(kind, size[..., rows, :]) for kind, rows in zip(SOLIDS, groups, strict=True)]
        back = np.argsort(np.concatenate(groups))
        return xp.concatenate(values, -1 - len(shape))[(..., back, *(slice(None) for _ in shape))]


def geometry(robot: Robot, bodies: Iterable[int]) -> Geometry:
    """The geometry that determines mass, centre of mass and inertia of `bodies`. Bodies without mass are left out.

    MuJoCo gives a body without mass an arbitrary centre of mass, on which nothing depends.

    Raises:
      DsoError: the robot has no description (it was given as an `MjModel`), or a body's inertia is not that of its geoms:
        the body has no geoms, an `<inertial>`, meshes or shells, or a setting of the compiler changes its inertia.
    """
    spec = robot.spec
    if spec is None:
        raise DsoError(
            f"{robot.source}: a compiled MjModel does not contain the density or mass of its geoms, so inertia cannot be "
            "computed from geometry; load the XML file or an MjSpec."
        )
    described = {b.id: b for b in spec.bodies}, {g.id: g for g in spec.geoms}
    rows = [(body, *row) for body in sorted(set(bodies)) for row in _rows(robot, int(body), *described)]
    columns = np.array(rows, float).reshape(-1, 5).T
    chosen, owner = np.unique(columns[0].astype(int), return_inverse=True)
    made = Geometry(chosen, columns[1].astype(int), columns[2].astype(int), owner, *columns[3:])
    _compare(robot, made)
    return made


def _rows(robot: Robot, body: int, bodies: dict[int, Any], geoms: dict[int, Any]) -> list[tuple]:
    """(geom, kind, density, mass) of each geom that gives the body its mass."""
    model, named = robot.mj, f"{robot.source}: body '{robot.mj.body(body).name}'"
    own = [int(i) for i in np.flatnonzero(model.geom_bodyid == body)]
    if body not in bodies or any(i not in geoms for i in own):
        raise DsoError(f"{named} is no longer in the description; load the robot again after editing its MjSpec.")
    element = bodies[body]
    from_geom = element.compiler.inertiafromgeom
    always = from_geom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
    never = from_geom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
    if never or (element.explicitinertial and not always):
        raise DsoError(
            f"{named} has an <inertial> element, so its geometry does not determine its mass and inertia. Remove the "
            '<inertial> and give its geoms a density or mass, or write <compiler inertiafromgeom="true"/>.'
        )
    if not own:
        raise DsoError(f"{named} has no geoms, so it has no shape to change; give it one, or choose another body.")
    _refuse_aligned(named, element)
    low, high = element.compiler.inertiagrouprange
    own = [i for i in own if low <= geoms[i].group <= high]
    found = []
    for i in own:
        geom, kind = geoms[i], int(model.geom_type[i])
        given = not np.isnan(geom.mass)
        density, mass = (0.0, geom.mass) if given else (geom.density, 0.0)
        if density == 0 and mass == 0:
            continue
        label = f"geom '{geom.name}'" if geom.name else f"geom {i}"
        if kind not in SOLIDS:
            shape = mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower()
            raise DsoError(
                f"{named}: {label} is a {shape}, whose inertia is not a function of its size. Use a sphere, capsule, cylinder, "
                'box or ellipsoid, or give it mass="0" and add such a geom.'
            )
        if geom.typeinertia == mujoco.mjtGeomInertia.mjINERTIA_SHELL:
            raise DsoError(
                f'{named}: {label} is a shell; only solid geoms are supported, so remove shellinertia="true".'
            )
        found.append((i, kind, density, mass))
    return found


def _refuse_aligned(named: str, element: Any) -> None:
    """Refuse a free body aligned with its inertia: its frame would change with its shape."""
    joints = element.joints
    if len(joints) == 1 and joints[0].type == mujoco.mjtJoint.mjJNT_FREE and not element.bodies:
        align = joints[0].align
        auto = align == mujoco.mjtAlignFree.mjALIGNFREE_AUTO and element.compiler.alignfree
        if auto or align == mujoco.mjtAlignFree.mjALIGNFREE_TRUE:
            raise DsoError(
                f"{named} has its frame aligned with its inertia, so its frame would change with its shape; write "
                'align="false" in its <freejoint>.'
            )


def _compare(robot: Robot, made: Geometry) -> None:
    """Refuse bodies whose compiled inertia is not that of their geoms, whatever the reason."""
    model = robot.mj
    mass, com, tensor = made.inertials(model.geom_size, model.geom_pos, model.geom_quat)
    axes = rotation(model.body_iquat[made.bodies])
    compiled = (axes * model.body_inertia[made.bodies][:, None, :]) @ np.swapaxes(axes, -1, -2)
    away = np.abs(mass - model.body_mass[made.bodies]) > _SAME * np.abs(mass)
    away |= np.any(np.abs(com - model.body_ipos[made.bodies]) > _SAME * (1 + np.abs(com)), -1)
    away |= np.abs(tensor - compiled).max((-2, -1), initial=0.0) > _SAME * np.abs(tensor).max((-2, -1), initial=0.0)
    for i in np.flatnonzero(away):
        body = int(made.bodies[i])
        raise DsoError(
            f"{robot.source}: body '{model.body(body).name}' weighs {model.body_mass[body]:.9g} kg in the model and its geoms "
            f"weigh {mass[i]:.9g} kg, or its centre of mass or inertia differs from that of its geoms. So its geometry alone "
            "does not determine them. Remove what changes them: boundmass, boundinertia, balanceinertia or settotalmass of the "
            "compiler, massscale of a frame, an <inertial> fused into it, or edits of the compiled model."
        )
