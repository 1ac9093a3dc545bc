"""Start a training from an earlier result: blocks of theta, scaling of the observation and critic, as far as they fit."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from dso_robotics.data.rollout import listed
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import actuator_labels
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.system import RobotSystem
from dso_robotics.studies import folder as folders
from dso_robotics.studies.checkpoint import restore
from dso_robotics.studies.train_study import TrainStudy

# Blocks whose numbers have names of their own: they are matched by name, and their bounds may differ.
_NAMED = ("physics", "sensor", "design", "model", "plan")
# Observations that the scaling of an earlier training is worth.
_KNOWN = 1e6


@dataclasses.dataclass(frozen=True, eq=False)
class WarmStart:
    """Where a training starts.

    theta: (n,).
    scaling: of the observation; None if the result has no policy.
    tree: the result's run file, for its critic; None if the critic starts anew.
    notes: what was not taken over, in sentences.
    """

    theta: np.ndarray
    scaling: Scaling | None
    tree: Mapping[str, Any] | None
    notes: tuple[str, ...]

    def scaled(self, chain: RobotSystem) -> RobotSystem:
        """The chain with the scaling of the result."""
        return chain if self.scaling is None else eqx.tree_at(lambda c: c.scaling, chain, self.scaling)

    def critic(self, first: Any, path: Path) -> tuple[Any, str]:
        """The learner `first` with the result's critic, and a note if it does not fit."""
        state = None if self.tree is None else self.tree.get("state")
        names = ("critic", "slow", "critic_scale")
        if not isinstance(state, Mapping) or not all(hasattr(first, name) for name in names):
            return first, "The critic starts anew."
        try:
            found = {name: restore({name: getattr(first, name)}, state, path)[name] for name in names}
        except DsoError:
            return first, "The critic starts anew: that of the earlier training has other inputs or layers."
        return dataclasses.replace(first, **found), ""


def init_file(given: str) -> Path:
    """The run file or policy file that `init` names.

    Raises:
      DsoError: there is none.
    """
    path = Path(given)
    found = path / folders.RUN if path.is_dir() else path
    if found.is_file():
        return found
    saved = path / "policy.h5"
    if saved.is_file():
        return saved
    raise DsoError(
        f"init: {given} holds no {folders.RUN} and is no file; name the folder of a result, or one of its checkpoints."
    )


def warm_start(study: TrainStudy, chain: RobotSystem) -> WarmStart:
    """The start of a study with `init`, for its chain.

    Raises:
      DsoError: there is no such result, or its policy does not fit: the first difference is named.
    """
    path = init_file(str(study.init))
    tree, stored, _ = read_run(path)
    where = f"{study.source}: init {path}"
    theta, notes = np.array(chain.layout.initial), []
    if "theta" not in tree and "policy" in tree:
        tree, stored = _of_saved(tree["policy"])
    blocks = tree.get("theta", {})
    known = _numbers(tree)
    if "policy" in blocks:
        _check_policy(where, blocks, tree, stored, study, chain)
        theta[chain.layout.where("policy")] = np.asarray(blocks["policy"], float)
    elif not known:
        raise DsoError(f"{where} holds neither a policy nor numbers of a robot; name another result.")
    values, taken = chain.layout.values(theta), set()
    for block, here in chain.layout.places():
        if not block.free or block.name == "policy":
            continue
        if block.name in _NAMED:
            numbers = np.array(values[block.name], float)
            for i, name in enumerate(block.names):
                if name in known:
                    numbers[i] = np.clip(known[name], block.flat("low")[i], block.flat("high")[i])
                    taken.add(name)
                else:
                    notes.append(f"{name} starts at {numbers[i]:.4g}: the result of init does not have it.")
            theta[here] = dataclasses.replace(block, initial=numbers).start(chain.layout.chart)
        elif np.shape(blocks.get(block.name, ())) == (block.size,):
            theta[here] = np.asarray(blocks[block.name], float)
        else:
            notes.append(f"The block '{block.name}' starts anew: that of init has another size, or there is none.")
    left = [name for name in known if name not in taken]
    if left:
        notes.append(
            f"init found {listed(tuple(left))}, which this study does not; to keep it, take the model.xml of that result as "
            "the model."
        )
    if not np.isfinite(theta).all():
        raise DsoError(f"{where}: a number in it is not finite; name another result.")
    same = _costs(stored) == _costs(study.as_dict())
    if not same:
        notes.append("The critic starts anew: it values other costs.")
    return WarmStart(theta, _scaling(tree, chain), tree if same else None, tuple(notes))


def seen_names(chain: RobotSystem) -> list[str]:
    """What the policy sees, in order."""
    sensing = chain.sensing
    names = sensing.names if chain.sees == "readings" and sensing is not None else chain.observation.names
    if not chain.see_design:
        return [*names, *(draw.name for draw in chain.context.tasks)]
    own = () if chain.mechanism is None else chain.mechanism.names
    return [*names, *(draw.name for draw in chain.context.draws), *own]


def _check_policy(
    where: str,
    blocks: Mapping[str, Any],
    tree: Mapping[str, Any],
    stored: Mapping[str, Any],
    study: TrainStudy,
    chain: RobotSystem,
) -> None:
    """Raise DsoError for the first thing in which the policies differ."""
    mine = study.policy
    theirs: Mapping[str, Any] = stored.get("policy", {})
    pairs = [
        ("kind", mine.kind, theirs.get("kind", "network")),
        ("time_features", mine.time_features, theirs.get("time_features", 0)),
    ]
    if mine.kind == "network":
        pairs.append(("hidden", list(mine.hidden), list(theirs.get("hidden", (32, 32)))))
    if mine.kind in ("brain", "gated"):
        pairs.append(("units", mine.units, theirs.get("units", 16)))
    for name, here, there in pairs:
        if here != there:
            raise DsoError(
                f"{where}: its policy has {name} = {json.dumps(there)}, and this study's {name} = {json.dumps(here)}; write "
                "the same in [policy]."
            )
    named = tree.get("named", {})
    for what, here in (("sees", seen_names(chain)), ("drives", actuator_labels(chain.mj))):
        there = [str(name) for name in named.get(what, ())]
        for i in range(max(len(here), len(there))):
            one, other = (names[i] if i < len(names) else "nothing" for names in (there, here))
            if one != other:
                raise DsoError(
                    f"{where}: its policy {what} {one} as number {i}, and this study's {other}; the policies must see and "
                    f"drive the same, in the same order (there: {', '.join(there)}; here: {', '.join(here)})."
                )
    size = np.shape(blocks["policy"])
    if size != (chain.policy.size,):
        raise DsoError(f"{where}: its policy has {size} weights, and this study's {chain.policy.size}.")


def named(chain: RobotSystem) -> dict[str, list[str]]:
    """What a policy sees and drives, as stored beside it."""
    return {"sees": seen_names(chain), "drives": list(actuator_labels(chain.mj))}


def _of_saved(policy: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file of `Policy.save` as a run file and its study, as far as they matter here."""
    given = {name: policy[name] for name in ("kind",)} | {"time_features": int(policy["features"])}
    given |= {"hidden": [int(n) for n in policy["hidden"]], "units": int(policy["units"])}
    sees = [*policy.get("labels", ()), *(f"task/{name}" for name in policy.get("tasks", ()))]
    tree = {
        "theta": {"policy": policy["weights"]},
        "scaling": {"mean": policy["mean"], "spread": policy["spread"]},
        "named": {"sees": sees, "drives": policy.get("ctrl_names", ())},
    }
    return tree, {"policy": given}


def _numbers(tree: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of the robot by name: of a training, an identification, or an estimate."""
    found = {str(name): float(value) for name, value in tree.get("numbers", {}).items()}
    if found or "summary" not in tree:
        return found
    try:
        table = json.loads(tree["summary"]).get("parameters", {})
        return {name: float(entry["value"]) for name, entry in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def _scaling(tree: Mapping[str, Any], chain: RobotSystem) -> Scaling | None:
    stored = tree.get("scaling", {})
    if np.shape(stored.get("mean", ())) != np.shape(chain.scaling.mean):
        return None
    mean, spread = (jnp.asarray(np.asarray(stored[name], float)) for name in ("mean", "spread"))
    return Scaling(mean, spread**2, jnp.asarray(_KNOWN))


def _costs(study: Mapping[str, Any]) -> Any:
    """What the value of a state depends on in a study."""
    training = study.get("training", {})
    return json.loads(
        json.dumps(
            [study.get("cost", {}), study.get("terminate", {}), training.get("gamma"), study.get("control_step")]
        )
    )
