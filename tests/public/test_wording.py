"""Messages speak of options on the command line and of arguments to a Python caller."""

import pytest

from dso_robotics.errors import DsoError
from dso_robotics.public.wording import arguments, speaking_python


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("arm.h5: --hold-out '9,8' names nothing", "arm.h5: hold_out='9,8' names nothing"),
        ("--hold-out 1.5 names everything", "hold_out=1.5 names everything"),
        ("--hold-out 0.25 of the only rollout", "hold_out=0.25 of the only rollout"),
        ("--engine gpu: there is no such engine", "engine='gpu': there is no such engine"),
        ("--free joint/x=3@0:2: cannot read this.", "free='joint/x=3@0:2': cannot read this."),
        (
            "name it with --free PATH (`dso parameters MODEL` lists them)",
            "name it with free=PATH (`dso.list_parameters(model)` lists them)",
        ),
        ("give windows of some length, such as --window 0.5.", "give windows of some length, such as window=0.5."),
        ("a rollout is one window: --window full.", "a rollout is one window: window='full'."),
        ("give a shorter --window, or a smaller timestep", "give a shorter window=, or a smaller timestep"),
        ("Give a shorter --window or more data.", "Give a shorter window= or more data."),
        ("with --window 0 nothing is simulated", "with window=0 nothing is simulated"),
        ("--continuity: with --window 0 no window follows", "continuity=: with window=0 no window follows"),
        ("--out /tmp/r: the folder is not empty", "out='/tmp/r': the folder is not empty"),
        (
            "--resume to go on, or --force to replace its result",
            "resume=True to go on, or force=True to replace its result",
        ),
        ("--out r: --force replaces an earlier result only", "out='r': force=True replaces an earlier result only"),
        ("leave --resume out to start", "leave resume=True out to start"),
        ("--warm-start: rollout 'a' does not", "warm_start=True: rollout 'a' does not"),
        (
            "map at least one channel with --ctrl or --sensor. The",
            "map at least one channel with ctrl= or sensors=. The",
        ),
        ("the simulation is well--known", "the simulation is well--known"),
        ("make one with `dso estimate S.toml --out r`.", "make one with `dso estimate S.toml --out r`."),
    ],
)
def test_options_become_arguments(said, heard):
    assert arguments(said) == heard


def test_an_error_keeps_its_kind_and_its_traceback_and_names_what_the_caller_knows():
    class Special(DsoError):
        pass

    with pytest.raises(Special) as caught, speaking_python({"/tmp/x/log.h5": "log"}):
        raise Special("/tmp/x/log.h5: --window 3 is long")
    assert str(caught.value) == "log: window=3 is long"
    assert caught.traceback[-1].name.startswith("test_an_error")
