"""Damage to the objects and values of an HDF5 file."""

import io
import random
import warnings
from typing import Any

import h5py
import numpy as np

from dso_robotics.data.archive import _SEALED, seal
from tests.fuzz.damage import raw


def resealed(rng: random.Random, content: bytes) -> bytes:
    """Objects, values and bytes of an HDF5 file of dso, with a checksum that is right."""
    inner = content[: found.start()] if (found := _SEALED.search(content)) else content
    changed = as_hdf5(rng, inner) if rng.random() < 0.75 else raw(rng, inner)
    return seal(changed)


def as_hdf5(rng: random.Random, content: bytes) -> bytes:
    """Objects and values of an HDF5 file."""
    stream = io.BytesIO(content)
    try:
        with warnings.catch_warnings(), h5py.File(stream, "r+") as file:
            warnings.simplefilter("ignore")
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                _restored(rng, file)
    except Exception:
        return raw(rng, content)
    return stream.getvalue()


def _restored(rng: random.Random, file: h5py.File) -> None:
    places: list[str] = []
    file.visit(places.append)
    items = [file, *(file[place] for place in places)]
    item = rng.choice(items)
    keys = list(item.attrs)
    if keys and rng.random() < 0.35:
        key = rng.choice(keys)
        value = item.attrs[key]
        way = rng.randrange(4)
        if way == 0:
            del item.attrs[key]
        elif way == 1 and np.ndim(value):
            item.attrs[key] = _reshaped(rng, np.asarray(value))
        else:
            item.attrs[key] = _odd(rng)
        return
    if item.name == "/":
        file[f"more{rng.randrange(9)}"] = _odd(rng)
        return
    parent, name, way = item.parent, item.name.rpartition("/")[2], rng.randrange(8)
    if way == 0:
        del parent[name]
    elif way == 1:
        parent.move(name, rng.choice((name + " ", "a\nb", "ä", "x" * 300, name[:-1] or "y")))
    elif way == 2:
        parent[name + "2"] = rng.choice(
            (item, h5py.SoftLink("/"), h5py.ExternalLink("a.h5", "/"), h5py.SoftLink("nowhere"))
        )
    elif isinstance(item, h5py.Group):
        if way == 3:
            del parent[name]
            parent[name] = _odd(rng)
        else:
            item[f"more{rng.randrange(9)}"] = _odd(rng)
    else:
        value, attributes = item[()], dict(item.attrs)
        if way == 3:
            value = _odd(rng)
        elif way == 4 and np.ndim(value):
            value = _reshaped(rng, value)
        elif np.ndim(value) and np.size(value) and value.dtype.kind in "fiub":
            value = value.copy()
            for _ in range(rng.choice((1, 1, 5))):
                value.flat[rng.randrange(value.size)] = rng.choice(
                    (0, 1, -1, np.nan, np.inf, 1e300, 2**31, -1e-300, 1e9)
                )
        elif np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiub":
            value = rng.choice((0, -1, 0.5, np.nan, np.inf, 1e300, 2**31 - 1, 10**9, True, 3))
        else:
            value = _odd(rng)
        del parent[name]
        parent[name] = value
        for key, kept in attributes.items():
            parent[name].attrs[key] = kept


def _odd(rng: random.Random) -> Any:
    return rng.choice(
        (
            0,
            -1,
            1.5,
            np.nan,
            1e300,
            2**62,
            True,
            1 + 2j,
            "text",
            b"\xff\xfe",
            "",
            h5py.Empty("f8"),
            h5py.Empty("S4"),
            np.zeros(0),
            np.zeros((0, 3)),
            np.zeros((3, 0)),
            np.zeros((2, 2, 2)),
            np.array(["a", "b"], dtype="S8"),
            np.array(["", "\n"], dtype="S1"),
            np.zeros(2, [("a", "f8"), ("b", "i4")]),
            np.array([1, 2**63], np.uint64),
            np.array([1.5, 2.5], np.float16),
            np.zeros(3, np.int8),
            np.zeros(2, "(3,)f8"),
        )
    )


def _reshaped(rng: random.Random, value: np.ndarray) -> np.ndarray:
    ways = (value[:-1], value[:0], np.concatenate([value, value]), value.T, value[None], value.reshape(-1), value[::-1])
    return np.ascontiguousarray(rng.choice(ways))
