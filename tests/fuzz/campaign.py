"""Search for inputs that a reader cannot take: seeds and what was found before are damaged again and again.

An input that makes the reader run a line for the first time is damaged further.

    python -m tests.fuzz.campaign [READER [SECONDS [SEED]]]

reads the corpus and some new inputs of every reader, or searches for one of them. It writes inputs that show a fault to
tests/fuzz/corpus/READER/, where the test run reads them ever after.
"""

import dataclasses
import hashlib
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.judge import Files, Target, Verdict, judge, packed, unpacked

CORPUS = Path(__file__).parent / "corpus"


def kept(name: str) -> dict[str, Files]:
    """The inputs in the corpus of a reader, by file name."""
    return {path.name: unpacked(path.read_bytes()) for path in sorted((CORPUS / name.replace(" ", "_")).glob("*.zip"))}


def keep(name: str, files: Files) -> Path:
    """Write an input to the corpus."""
    folder = CORPUS / name.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    content = packed(files)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:10]}.zip"
    path.write_bytes(content)
    return path


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found: of faults that end in the same lines one each. inputs, lines: how many were read, and ran."""

    inputs: int
    lines: int
    faults: list[Verdict]


def search(target: Target, seconds: float, seed: int, known: Iterable[Files]) -> Found:
    """Damage inputs for so long. `known`: inputs to begin with, besides the valid ones."""
    pool = [*target.pool().values(), *known]
    seen: set[str] = set()
    first = judge(target, pool, seen)
    faults = {_place(verdict): verdict for verdict in first if verdict.fault}
    began, rng, count = time.monotonic(), random.Random(seed), len(first)
    while time.monotonic() - began < seconds:
        makers = [_maker(target, random.Random(rng.getrandbits(64)), rng.choice(pool)) for _ in range(target.batch)]
        for verdict in judge(target, makers, seen):
            count += 1
            if verdict.fault and _place(verdict) not in faults:
                faults[_place(verdict)] = verdict
                print(f"{time.monotonic() - began:.0f} s: {verdict.fault}\n", flush=True)
            elif verdict.lines and not verdict.fault and len(packed(verdict.files)) < 1 << 18:
                pool.append(verdict.files)
    return Found(count, len(seen), list(faults.values()))


def _maker(target: Target, rng: random.Random, files: Files):
    return lambda: target.damaged(rng, files)


def _place(verdict: Verdict) -> str:
    """What tells a fault from others: the last lines of its traceback."""
    lines = [line for line in (verdict.fault or "").splitlines() if line.startswith("  File")]
    return "\n".join(lines[-2:]) or (verdict.fault or "")[:40]


def replay(name: str, target: Target) -> list[str]:
    """What is wrong with valid inputs, those in the corpus and some new ones."""
    rng, pool, known = random.Random(7), target.pool(), kept(name)
    makers = [
        _maker(target, random.Random(rng.getrandbits(64)), rng.choice(list(pool.values()))) for _ in range(target.new)
    ]
    told = [
        f"{name}, {file}: {v.fault}"
        for file, v in zip(known, judge(target, list(known.values())), strict=True)
        if v.fault
    ]
    told += [f"{keep(name, v.files)}: {v.fault}" for v in judge(target, makers) if v.fault]
    for file, verdict in zip(pool, judge(target, list(pool.values())), strict=True):
        told += [f"{name}, valid input {file!r}: {verdict.fault}"] if verdict.fault else []
    return told


def main(name: str = "", seconds: str = "600", seed: str = "0") -> int:
    """Search and say what was found, or read the corpus of every reader; returns the number of faults."""
    from tests.fuzz.targets import TARGETS

    if not name:
        found = {name: replay(name, target) for name, target in TARGETS.items()}
        for name, told in found.items():
            print(f"{name}: {' '.join(told) or 'no fault'}")
        return sum(map(len, found.values()))
    result = search(TARGETS[name], float(seconds), int(seed), kept(name).values())
    for verdict in result.faults:
        print(f"{keep(name, verdict.files)}: {verdict.fault}")
    print(f"{name}: {result.inputs:,} inputs, {result.lines:,} lines of dso, {len(result.faults)} fault(s)")
    return len(result.faults)


if __name__ == "__main__":
    sys.exit(min(main(*sys.argv[1:]), 1))
