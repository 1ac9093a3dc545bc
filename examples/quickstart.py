"""Identify an arm, predict with it, learn its state estimator, keep both. Run: python examples/quickstart.py"""

import dso_robotics as dso
from dso_robotics.data.assets import asset

# Model and data: paths, MjSpec, MjModel and logs in memory are all taken.
robot = dso.load(asset("models/two_joint_arm.xml"))
log = dso.read_log(asset("datasets/synthetic/two_joint_arm.h5"))

# Physical parameters with their uncertainty. In a notebook, `found` alone shows the tables.
free = ["joint/*/frictionloss", "joint/elbow/armature", "body/*/mass"]
found = dso.identify(robot, log, free=free, hold_out=["04", "05"])
print(found)
print(found.parameters["joint/elbow/frictionloss"])  # value, low95, high95, unit

model = found.model()  # an MjModel with the new values
print(found.predict(log, window=1.0))  # of these or other recordings, open loop
found.plot("04").savefig("prediction.png")  # a matplotlib figure
found.save("arm-identified")  # what `dso identify --out` writes, report included

# The corrector of a state estimator for that model. At run time it is NumPy and C MuJoCo.
learned = dso.estimate(model, log, corrector="gain", hold_out=["04", "05"])
estimator = learned.estimator
estimator.reset(measurement=log["04"].sensordata[0])
state = estimator.update(log["04"].ctrl[0], log["04"].sensordata[1])
print(state.qpos, state.std)
learned.save("arm-estimator")
