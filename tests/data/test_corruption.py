"""Damaged video: what each kind does, and to how much of a clip."""

import numpy as np
import pytest

from espnet2_avsr_llm.data.corruption import CORRUPTIONS

RNG = np.random.default_rng(0)
VIDEO = RNG.integers(1, 256, (200, 96, 96), dtype=np.uint8)


def damage(kind, video=VIDEO, seed=0):
    return CORRUPTIONS[kind](video, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_size_type_and_source_stay(kind):
    before = VIDEO.copy()
    for length in (0, 1, 2, 30):
        found = damage(kind, VIDEO[:length])
        assert found.shape == (length, 96, 96) and found.dtype == np.uint8
    assert (VIDEO == before).all()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_draws_repeat(kind):
    assert (damage(kind) == damage(kind)).all()
    assert kind == "blur" or (damage(kind) != damage(kind, seed=1)).any()


def test_blur_takes_the_detail_and_keeps_the_brightness():
    found = damage("blur")
    assert found.std() < 0.15 * VIDEO.std() and found.mean() == pytest.approx(VIDEO.mean(), abs=1)


def test_occlusion_hides_a_quarter_of_the_picture_for_half_of_the_clip():
    changed = damage("occlusion") != VIDEO
    frames = np.flatnonzero(changed.any((1, 2)))
    assert len(frames) == 100 == np.ptp(frames) + 1
    rows, columns = (np.flatnonzero(changed.any(axis)) for axis in ((0, 2), (0, 1)))
    assert len(rows) == len(columns) == 48 == np.ptp(rows) + 1 == np.ptp(columns) + 1
    assert changed.mean() == pytest.approx(1 / 8, rel=0.02)


def test_half_of_the_frames_are_lost_in_stretches():
    shares = []
    for seed in range(20):
        lost = (damage("dropped", seed=seed) != VIDEO).any((1, 2))
        shares.append(lost.mean())
        ends = np.flatnonzero(np.diff(lost.astype(int)))
        assert np.diff(ends).min() >= 5 and np.diff(ends).max() <= 15
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


def test_dropped_frames_are_black_and_frozen_ones_repeat_the_last():
    dropped, frozen = damage("dropped"), damage("frozen")
    lost = dropped.max((1, 2)) == 0
    assert (dropped[~lost] == VIDEO[~lost]).all()
    last = 0
    for t in range(len(VIDEO)):
        last = last if lost[t] else t  # the same draws lose the same frames
        assert (frozen[t] == VIDEO[last]).all()
