"""A policy as one C99 header, without dependencies."""

from dso_robotics.robot import c_source as c
from dso_robotics.robot.policy_numbers import PolicyNumbers


def policy_header(numbers: PolicyNumbers, *, source: str, guard: str = "DSO_POLICY_H") -> str:
    """The text of the header: the policy's numbers, and the code of `c/policy.h` that decides with them.

    source: what made it, for its first comment.
    """
    n = numbers
    recurrent = n.kind in ("brain", "gated")
    widths = [n.inputs, *(n.hidden if n.kind == "network" else ()), len(n.ctrl_names)]
    sizes = {
        "NQ": n.nq,
        "NV": n.nv,
        "NA": n.na,
        "NU": len(n.ctrl_names),
        "SEEN": len(n.labels),
        "SEES_STATE": not n.columns,
        "PLAIN": len(n.plain),
        "TURNING": len(n.turning),
        "TASKS": len(n.tasks),
        "FEATURES": n.features,
        "CYCLIC": n.cyclic,
        "CLOCK": n.clock,
        "INPUTS": n.inputs,
        "MEMORY": n.memory,
        "GATED": n.kind == "gated",
        "LAYERS": 0 if recurrent else len(widths) - 1,
        "WIDEST": max(widths),
        "DELAY": n.delay,
        "PERIOD": n.period,
        "SLOW": n.slow,
    }
    arrays = [
        c.strings("dso_policy_sees", n.labels),
        c.strings("dso_policy_controls", n.ctrl_names),
        c.strings("dso_policy_task_names", n.tasks),
        c.integers("dso_policy_plain", n.plain),
        c.integers("dso_policy_turning", n.turning),
        c.integers("dso_policy_sensordata", n.columns),
        c.integers("dso_policy_widths", widths),
        c.integers("dso_policy_limited", n.limited),
        *(
            c.doubles(f"dso_policy_{name}", getattr(n, name))
            for name in (
                "mean",
                "spread",
                "task_low",
                "task_high",
                "task_first",
                "middle",
                "half",
                "shift",
                "gain",
                "step",
                "weights",
            )
        ),
    ]
    told = (
        f"A policy trained by dso, {c.comment(source)}: {n.kind}, one control every {n.period:g} s.\n\n"
        f"   Sees: {c.comment(', '.join(n.labels))}.\n   Controls: {c.comment(', '.join(n.ctrl_names))}.\n"
        "   dso_policy_sensordata: where what it sees is in MuJoCo's sensordata, if it sees sensors.\n\n"
        "   How it is called is told below, before the code: look for dso_policy_reset."
    )
    head = f"/* {told} */\n\n#ifndef {guard}\n#define {guard}\n\n#include <math.h>\n#include <stddef.h>\n"
    return "\n".join([head, c.defined("DSO_POLICY", sizes), "", *arrays, "", c.fixed("policy.h")])
