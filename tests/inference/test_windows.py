"""Cuts of long recordings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet2_avsr_llm.data.media import SAMPLES_PER_FRAME
from espnet2_avsr_llm.inference.windows import window_cuts


@given(st.integers(0, 3000), st.integers(10, 800), st.integers(0, 2**32 - 1))
def test_windows_cover_the_recording_and_fit_the_encoder(frames, longest, seed):
    speech = np.random.default_rng(seed).standard_normal(frames * 8).repeat(SAMPLES_PER_FRAME // 8).astype(np.float32)
    for sound in (speech, None):
        cuts = window_cuts(frames, longest, sound)
        lengths = np.diff(cuts)
        assert (cuts[0], cuts[-1]) == (0, frames)
        assert lengths.max() <= longest and (lengths.min() > 0 or frames == 0)
        assert (len(cuts) == 2) == (frames <= longest)


@pytest.mark.parametrize("pause", [95, 100, 104])
def test_the_cut_is_in_the_pause(pause):
    speech = np.ones(200 * SAMPLES_PER_FRAME, np.float32)
    speech[(pause - 2) * SAMPLES_PER_FRAME : (pause + 3) * SAMPLES_PER_FRAME] = 0.01
    assert window_cuts(200, 111.2, speech) == [0, pause, 200]


def test_without_sound_or_room_the_windows_are_equal():
    assert window_cuts(200, 120) == window_cuts(200, 120, np.zeros(0, np.float32)) == [0, 100, 200]
    speech = np.random.default_rng(0).standard_normal(20 * SAMPLES_PER_FRAME).astype(np.float32)
    assert window_cuts(20, 4, speech) == window_cuts(20, 4)  # of 4 frames each window fills 3.3


def test_sound_that_ends_early_leaves_silence_to_cut_in():
    speech = np.ones(97 * SAMPLES_PER_FRAME - 3, np.float32)
    assert 97 <= window_cuts(200, 120, speech)[1] <= 110
