"""Closed linkages and a tendon finger, described by their lengths, so that an edit of a length is another description."""

import mujoco

TURNED = 'quat=".8 .3 -.4 .2"'
_HEAD = """<mujoco><option timestep="0.002" integrator="implicitfast"/><default>
<geom type="capsule" size=".01" density="1000" contype="0" conaffinity="0"/><joint axis="0 1 0" damping=".02"/></default>"""


def bar(name: str, length: float, axis: str, inside: str = "", pos: str = "0 0 0", joint: str | None = None) -> str:
    """A capsule along `axis` with a hinge at its near end."""
    end = {"x": f"{length!r} 0 0", "z": f"0 0 {length!r}"}[axis]
    joint = f'<joint name="{name}"/>' if joint is None else joint
    return (
        f'<body name="{name}" pos="{pos}">{joint}<geom name="{name}" fromto="0 0 0 {end}"/>'
        f'<site name="end_{name}" pos="{end}"/>{inside}</body>'
    )


def four_bar(crank: float, coupler: float, rocker: float, *, by: str = "anchor", frame: str = "") -> mujoco.MjSpec:
    """A crank at the origin, a rocker at (0.3, 0, -0.1), closed by a pin at their coupler's end; `frame` turns it all."""
    stub = f'<body name="stub" pos="{coupler!r} 0 0" euler="0 40 0"><joint name="stub"/><geom type="sphere" size=".02"/></body>'
    inside = bar("coupler", coupler, "x", stub if by == "weld" else "", f"0 0 {crank!r}")
    ties = {
        "anchor": f'<connect name="pin" body1="coupler" body2="rocker" anchor="{coupler!r} 0 0"/>',
        "sites": '<connect name="pin" site1="end_coupler" site2="end_rocker"/>',
        "weld": f'<weld name="pin" body1="stub" body2="rocker" anchor="0 0 {rocker!r}"/>',
    }
    return mujoco.MjSpec.from_string(
        f"""{_HEAD}<worldbody><body name="base" pos=".1 .2 .3" {frame}>
        {bar("crank", crank, "z", inside)}{bar("rocker", rocker, "z", pos=".3 0 -.1")}</body></worldbody>
        <equality>{ties[by]}</equality><actuator><motor name="m" joint="crank"/></actuator></mujoco>"""
    )


def slider_crank(crank: float, rod: float, *, frame: str = "") -> mujoco.MjSpec:
    """A crank along x, a rod back to a slider on the x axis at 0.25, which carries its pin with it."""
    slider = (
        '<body name="slider" pos=".25 0 0"><joint name="slider" type="slide" axis="1 0 0" damping="1"/>'
        '<geom type="box" size=".02 .02 .02"/></body>'
    )
    inside = bar("rod", rod, "x", pos=f"{crank!r} 0 0")
    return mujoco.MjSpec.from_string(
        f"""{_HEAD}<worldbody><body name="base" {frame}>{bar("crank", crank, "x", inside)}{slider}</body></worldbody>
        <equality><connect name="pin" body1="slider" body2="rod" anchor="0 0 0"/></equality>
        <actuator><motor name="m" joint="crank"/></actuator></mujoco>"""
    )


def finger(scale: float, muscle: str = "") -> mujoco.MjSpec:
    """Two phalanges of 0.05 and 0.03 m, times `scale`, pulled by a tendon over a wrapping cylinder, and by a `muscle`."""
    s = float(scale)
    one, two, size = 0.05 * s, 0.03 * s, f"{0.005 * s!r} {0.005 * s!r} {0.005 * s!r}"
    return mujoco.MjSpec.from_string(
        f"""{_HEAD}<worldbody><site name="palm" pos="-.02 0 .01"/>
        <body name="first" euler="0 10 0"><joint name="first" stiffness=".1" springref="20"/>
          <geom name="first" fromto="0 0 0 {one!r} 0 0" size="{0.008 * s!r}"/>
          <site name="first" pos="{one / 2!r} 0 {0.01 * s!r}" size="{size}"/>
          <geom name="roll" type="cylinder" pos="{one!r} 0 {0.001 * s!r}" size="{0.006 * s!r} {0.01 * s!r}" euler="90 0 0"
            mass="0"/>
          <body name="second" pos="{one!r} 0 0"><joint name="second"/>
            <geom name="second" fromto="0 0 0 {two!r} 0 0" size="{0.007 * s!r}"/>
            <site name="second" pos="{two / 2!r} 0 {0.012 * s!r}" size="{size}"/></body></body></worldbody>
        <tendon><spatial name="flexor" stiffness="50"><site site="palm"/><site site="first"/><geom geom="roll"/>
          <site site="second"/></spatial>
        <fixed name="sum" stiffness="1"><joint joint="first" coef="1"/><joint joint="second" coef="2"/></fixed>
        <spatial name="given" stiffness="5" springlength=".03"><site site="palm"/><site site="second"/></spatial></tendon>
        <actuator><motor name="m" tendon="flexor"/>{muscle}</actuator></mujoco>"""
    )


def walking_platform(leg: float) -> mujoco.MjSpec:
    """A free platform on two legs of two bars each; balls at the hips, sockets by connect."""
    legs, ties = "", ""
    for k, x in enumerate((-0.2, 0.2)):
        upper = (
            f'<body name="upper{k}" pos="0 0 .1"><joint name="upper{k}" type="ball"/>'
            f'<geom name="upper{k}" fromto="0 0 0 0 0 {leg!r}"/></body>'
        )
        legs += bar(f"leg{k}", 0.1, "z", upper, f"{x} 0 0")
        ties += f'<connect name="socket{k}" body1="platform" body2="upper{k}" anchor="{x} 0 -.02"/>'
    return mujoco.MjSpec.from_string(
        f"""{_HEAD}<worldbody>{legs}<body name="platform" pos="0 0 .32"><freejoint name="root"/>
        <geom type="box" size=".25 .1 .02"/></body></worldbody><equality>{ties}</equality>
        <actuator><motor name="m0" joint="leg0"/><motor name="m1" joint="leg1"/></actuator></mujoco>"""
    )


def geared(crank: float, second: float = 0.2) -> mujoco.MjSpec:
    """A four-bar whose rocker also turns on a second joint of its body, coupled to the crank by a curve."""
    rocker = bar("rocker", 0.2, "z", pos=".3 0 -.1", joint='<joint name="swivel"/><joint name="rocker" pos="0 0 .05"/>')
    inside = bar("coupler", 0.3, "x", pos=f"0 0 {crank!r}")
    return mujoco.MjSpec.from_string(
        f"""{_HEAD}<worldbody>{bar("crank", crank, "z", inside)}{rocker}</worldbody><equality>
        <connect name="pin" body1="coupler" body2="rocker" anchor=".3 0 0"/>
        <joint name="gear" joint1="swivel" joint2="rocker" polycoef="0 {second!r} .5 .1 0"/></equality>
        <actuator><motor name="m" joint="crank"/></actuator></mujoco>"""
    )
