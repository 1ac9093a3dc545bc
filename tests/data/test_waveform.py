"""Families of signals: at rest at both ends, smooth, below their highest frequency, and told when they cannot be."""

import numpy as np
import pytest

from dso_robotics.data.waveform import KINDS, waveform
from dso_robotics.errors import DsoError

TIME = np.arange(1001) * 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_signals_begin_and_end_at_zero(kind):
    form = waveform(kind, TIME, 2, top=2.0, count=5, fade=0.5, still=1.0)
    signals = form.signals(np.array([form.draw(np.random.default_rng(i)) for i in range(3)]))
    assert signals.shape == (3, len(TIME), 2)
    assert np.abs(signals[:, 0]).max() == 0
    assert np.abs(signals[:, TIME >= 9.0]).max() < 1e-12
    assert np.abs(np.diff(signals, axis=1)).max() < 0.5
    assert 0.1 < signals.std() < 3


def test_a_fourier_series_has_the_harmonics_it_should_and_a_multisine_equal_sizes():
    form = waveform("multisine", TIME, 1, top=2.0, count=4, fade=1e-9, still=0.0)
    signal = form.signals(np.array([0.3, 1.0, -2.0, 0.7]))[:-1, 0]
    size = np.abs(np.fft.rfft(signal)) / len(signal)
    lines = np.flatnonzero(size > 0.05)
    assert lines.tolist() == [1, 3, 7, 20]  # of 10 s, up to 2 Hz
    np.testing.assert_allclose(size[lines], size[1], rtol=0.05)


def test_splines_add_up_to_one_inside():
    form = waveform("spline", TIME, 1, top=1.0, count=3, fade=1e-9, still=0.0)
    inside = form.signals(np.ones(form.size))[100:-100, 0]
    np.testing.assert_allclose(inside, 1.7, rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"top": 0.01}, "--top"),
        ({"top": 60.0}, "--top"),
        ({"fade": 6.0}, "--seconds"),
        ({"kind": "square"}, "choose one of"),
    ],
)
def test_what_cannot_be_is_told(changes, text):
    given = {"kind": "fourier", "top": 2.0, "count": 4, "fade": 0.5, "still": 0.5} | changes
    with pytest.raises(DsoError, match=text):
        waveform(given.pop("kind"), TIME, 1, **given)
