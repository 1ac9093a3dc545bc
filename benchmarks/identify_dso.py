"""`dso identify` on many noise draws of one problem of `identify.py`, in one process through the Python API.

Run: python identify_dso.py FOLDER OUT FIRST LAST SETTINGS.json
`identify.py` times whole processes through the command line. This file avoids repeated imports for the other draws.
"""

import json
import pathlib
import sys
import time

import mujoco

from dso_robotics.parameters.path import parse
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy


def main(folder: pathlib.Path, out: pathlib.Path, first: int, last: int, settings: dict) -> None:
    """Fit every draw in turn."""
    results = []
    for draw in range(first, last):
        began = time.perf_counter()
        study = IdentifyStudy(
            str(folder / "model.xml"), (str(folder / f"draw{draw}.h5"),), tuple(parse(text) for text in settings["free"]),
            engine="mujoco", **settings["study"],
        )  # fmt: skip
        found = identify(study, out / f"draw{draw}", force=True)
        fitted = mujoco.MjModel.from_xml_path(str(out / f"draw{draw}" / "model.xml"))
        mujoco.mj_saveModel(fitted, str(out / f"draw{draw}.mjb"))
        values = {k: [v["value"], v["low95"], v["high95"]] for k, v in found.summary["parameters"].items()}
        seconds = time.perf_counter() - began
        results.append({"draw": draw, "values": values, "seconds": seconds, "method": found.uncertainty.method})
    (out / "result.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:3]), int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5]))
