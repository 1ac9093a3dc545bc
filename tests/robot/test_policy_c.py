"""A policy as C code decides as in Python: all kinds, 1,000 control steps with memory, delay, tasks, features of the time."""

import numpy as np
import pytest

from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.policy_c import policy_header
from tests.robot.c_program import run
from tests.robot.policies import KINDS, numbers

MAIN = """
#include <stdio.h>
#include "policy.h"
int main(void) {
  double in[TAKEN + DSO_POLICY_SIZE(DSO_POLICY_TASKS)], seen[DSO_POLICY_SEEN], ctrl[DSO_POLICY_NU];
  dso_policy policy;
  int i, first = 1;
  while (fread(in, sizeof in, 1, stdin) == 1) {
    if (first) dso_policy_reset(&policy, DSO_POLICY_TASKS ? in + TAKEN : NULL);
    first = 0;
    OBSERVE
    if (dso_policy_act(&policy, seen, ctrl) != DSO_POLICY_OK) return 1;
    fwrite(ctrl, sizeof ctrl, 1, stdout);
    seen[0] = NAN;
    if (dso_policy_act(&policy, seen, ctrl) != DSO_POLICY_NOT_FINITE) return 1;
    (void)i;
  }
  return 0;
}
"""


@pytest.mark.parametrize("name", list(KINDS))
def test_a_thousand_steps_are_those_of_python(tmp_path, name):
    n = numbers(**KINDS[name])
    (tmp_path / "policy.h").write_text(policy_header(n, source="a test */ of"))
    policy, rng, taken = Policy(n), np.random.default_rng(5), 3 if n.columns else 7
    task = rng.uniform(-1, 1, len(n.tasks))
    policy.reset(dict(zip(n.tasks, task, strict=True)))
    given = rng.normal(size=(1000, taken)) * 2
    observe = (
        "for (i = 0; i < TAKEN; i++) seen[i] = in[i];" if n.columns else "dso_policy_observe(in, in + 3, in + 6, seen);"
    )
    code = MAIN.replace("OBSERVE", observe).replace("TAKEN", str(taken))
    rows = np.concatenate([given, np.tile(np.r_[task, [0.0] * (not n.tasks)], (1000, 1))], 1)
    found = run(tmp_path, code, rows, 2)
    if n.columns:
        expected = [policy.act(sensors=row) for row in given]
    else:
        expected = [policy.act(qpos=row[:3], qvel=row[3:6], act=row[6:]) for row in given]
    assert found.shape == (1000, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert np.std(found, axis=0).min() > 1e-3
