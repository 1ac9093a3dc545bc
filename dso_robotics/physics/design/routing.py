"""Design maps of how a tendon runs: radii of the geoms that it wraps, places of its sites, and its rest length."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.design.map import DESIGN_MAPS, Array, DesignMap, Fields, find, read, write
from dso_robotics.physics.geometry import geometry
from dso_robotics.physics.wraps import WRAPPED


@DESIGN_MAPS.register("pulley")
@dataclasses.dataclass(frozen=True, eq=False)
class PulleyRadius(DesignMap):
    """Radius [m] of a sphere or cylinder that a tendon wraps.

    The geom stays where it is, and so do the sites of the tendon. A geom with a density changes the mass of its body. By
    default the bounds are half and twice the model's radius.

    Raises:
      DsoError: no such geom, or one that no tendon wraps.
    """

    geom: int = dataclasses.field(init=False)
    body: int = dataclasses.field(init=False)
    heavy: bool = dataclasses.field(init=False)

    def __post_init__(self):
        model, geom = self.robot.mj, find(self.robot, "geom", self.name)
        wrapped = model.wrap_objid[np.isin(model.wrap_type, WRAPPED)]
        if geom not in wrapped:
            names = ", ".join(sorted({f"'{model.geom(i).name}'" for i in wrapped if model.geom(i).name}))
            known = f"tendons wrap {names}" if names else "no tendon of it wraps a geom with a name"
            raise DsoError(
                f"{self.robot.source}: no tendon wraps geom '{self.name}', so it is no pulley; {known}. The radius of a limb "
                'is kind = "radius" of its body.'
            )
        body, heavy = int(model.geom_bodyid[geom]), not self._massless(geom)
        if heavy and body:
            geometry(self.robot, [body])
        self._set(geom=geom, body=body, heavy=heavy)
        radius = float(model.geom_size[geom, 0])
        self._declare([f"geom/{self.name}/radius"], ["m"], radius, (radius / 2, 2 * radius), size=True)

    def _massless(self, geom: int) -> bool:
        given = [] if self.robot.spec is None else [g for g in self.robot.spec.geoms if g.id == geom]
        return bool(given) and (given[0].density if np.isnan(given[0].mass) else given[0].mass) == 0

    @property
    def reshaped(self) -> frozenset[int]:
        """The pulley's body, if the pulley has a mass and can move."""
        return frozenset([self.body] if self.heavy and self.body else [])

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: geom_size."""
        xp = numbers.__array_namespace__()
        size = read(self.robot, fields, "geom_size", numbers)[..., [self.geom], :]
        first = xp.asarray(np.array([1.0, 0.0, 0.0]))
        return write(self.robot, fields, "geom_size", [self.geom], size * (1 - first) + numbers[..., None] * first)


@dataclasses.dataclass(frozen=True, eq=False)
class _SitePlace(DesignMap):
    """One coordinate of a site."""

    component: ClassVar[int]
    site: int = dataclasses.field(init=False)

    def __post_init__(self):
        site = find(self.robot, "site", self.name)
        self._set(site=site)
        initial = self.robot.mj.site_pos[site, self.component]
        self._declare([f"site/{self.name}/pos[{self.component}]"], ["m"], initial, (-np.inf, np.inf))

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: site_pos."""
        one = numbers.__array_namespace__().asarray(np.eye(3)[self.component])
        place = read(self.robot, fields, "site_pos", numbers)[..., [self.site], :]
        return write(self.robot, fields, "site_pos", [self.site], place * (1 - one) + numbers[..., None] * one)


@DESIGN_MAPS.register("site_x")
@dataclasses.dataclass(frozen=True, eq=False)
class SiteX(_SitePlace):
    """x [m] of a site in the frame of its body, such as the anchor of a tendon. Unbounded.

    It replaces what earlier tables of the study, such as a length, made of it.
    """

    component = 0


@DESIGN_MAPS.register("site_y")
@dataclasses.dataclass(frozen=True, eq=False)
class SiteY(_SitePlace):
    """y [m] of a site in the frame of its body. Unbounded. See `SiteX`."""

    component = 1


@DESIGN_MAPS.register("site_z")
@dataclasses.dataclass(frozen=True, eq=False)
class SiteZ(_SitePlace):
    """z [m] of a site in the frame of its body. Unbounded. See `SiteX`."""

    component = 2


@DESIGN_MAPS.register("rest_length")
@dataclasses.dataclass(frozen=True, eq=False)
class RestLength(DesignMap):
    """Length [m] at which the spring of a spatial tendon is at rest, also where the model leaves it to the compiler.

    By default the bounds are half and twice the model's.

    Raises:
      DsoError: no such tendon, a fixed one, one without stiffness, or one that is slack between two lengths.
    """

    tendon: int = dataclasses.field(init=False)

    def __post_init__(self):
        model, tendon = self.robot.mj, find(self.robot, "tendon", self.name)
        named = f"{self.robot.source}: tendon '{self.name}'"
        if int(model.wrap_type[model.tendon_adr[tendon]]) == int(mujoco.mjtWrap.mjWRAP_JOINT):
            raise DsoError(f"{named} is a fixed one, a sum of joint angles; design the springref of its joints.")
        if not (model.tendon_stiffness[tendon] or model.tendon_stiffnesspoly[tendon].any()):
            raise DsoError(
                f"{named} has no stiffness, so that its rest length has no effect; give it a stiffness in the model."
            )
        low, high = model.tendon_lengthspring[tendon]
        if low != high:
            raise DsoError(
                f"{named} is slack from {low:g} to {high:g} m, so that it has no one rest length; give its springlength as "
                "one number."
            )
        self._set(tendon=tendon)
        self._declare([f"tendon/{self.name}/springlength"], ["m"], low, (low / 2, 2 * low), size=True)

    @property
    def rests(self) -> frozenset[int]:
        """The tendon."""
        return frozenset([self.tendon])

    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """See `DesignMap.apply`: tendon_lengthspring."""
        both = numbers[..., None] * numbers.__array_namespace__().asarray(np.ones(2))
        return write(self.robot, fields, "tendon_lengthspring", [self.tendon], both)
