"""Augmentation against hand-made draws, and against the released programs where AVSR_GOLDEN is set."""

import os
import random

import numpy as np
import pytest

from espnet2_avsr_llm.data.transforms import adaptive_time_mask, center_crop, hflip, normalise, random_crop


def video(n=30):
    return np.random.default_rng(7).integers(1, 256, (n, 96, 96), dtype=np.uint8)


class Draws:
    """A generator that gives what it is told."""

    def __init__(self, spans, starts):
        self.spans, self.starts = np.array(spans), list(starts)

    def integers(self, low, high, size=None):
        if size is not None:
            assert (low, size) == (0, self.spans.shape)
            return self.spans
        start = self.starts.pop(0)
        assert low <= start < high
        return start


def test_crops():
    frames = video()
    assert (center_crop(frames) == frames[:, 4:92, 4:92]).all()
    rng, places = np.random.default_rng(1), set()
    coordinates = np.broadcast_to(np.arange(96 * 96).reshape(96, 96), (3, 96, 96))
    for _ in range(400):
        crop = random_crop(coordinates, rng)
        assert crop.shape == (3, 88, 88) and (crop == crop[:1]).all()
        places.add(divmod(int(crop[0, 0, 0]), 96))
    assert {p[0] for p in places} == {p[1] for p in places} == set(range(9))


def test_flip_mirrors_half_of_the_clips():
    frames, rng = video(2), np.random.default_rng(0)
    flipped = [hflip(frames, rng) for _ in range(200)]
    mirrored = sum((f == frames[:, :, ::-1]).all() for f in flipped)
    assert all((f == frames).all() or (f == frames[:, :, ::-1]).all() for f in flipped) and 70 < mirrored < 130


def test_time_mask_draws():
    """T = 60, stride 25: int((60 + 24.9) / 25) = 3 spans; t = 0 is skipped but uses its draw; u is the length."""
    frames = video(60)
    masked = adaptive_time_mask(frames, Draws([(3, 9), (0, 5), (9, 4)], [10, 30, 40]), window=10, stride=25)
    zero = [t for t in range(60) if not masked[t].any()]
    assert zero == [*range(10, 19), *range(40, 44)]
    assert frames.all() and (masked[:10] == frames[:10]).all()


def test_time_mask_is_cut_at_the_end_and_skips_short_clips():
    wave = np.ones(5, np.float32)
    assert adaptive_time_mask(wave, Draws([(1, 9)], [3]), 10, 25).tolist() == [1, 1, 1, 0, 0]
    assert adaptive_time_mask(wave, Draws([(5, 9)], []), 10, 25).tolist() == [1] * 5


@pytest.mark.parametrize("length, spans", [(25, 1), (26, 2), (50, 2), (51, 3), (1, 1)])
def test_number_of_spans(length, spans):
    draws = Draws([(0, 0)] * spans, [0] * spans)
    adaptive_time_mask(np.ones(length), draws, 10, 25)
    assert draws.starts == []


def test_same_generator_same_result():
    runs = [adaptive_time_mask(video(), np.random.default_rng(3), 10, 25) for _ in range(2)]
    assert (runs[0] == runs[1]).all()


def test_normalise_is_torch_layer_norm():
    torch = pytest.importorskip("torch")
    wave = (np.random.default_rng(0).normal(0.3, 1e-3, 5000)).astype(np.float32)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(wave).double(), (5000,), eps=1e-8).numpy()
    assert np.abs(normalise(wave) - expected).max() < 1e-5
    assert normalise(wave).dtype == np.float32
    assert normalise(np.zeros(10)).tolist() == [0] * 10 and len(normalise(np.zeros(0))) == 0


class TorchDraws:
    """The draws of the released programs: span lengths by torch, starts by `random`."""

    def __init__(self, seed):
        import torch

        torch.manual_seed(seed)
        random.seed(seed)
        self.torch = torch

    def integers(self, low, high, size=None):
        return random.randrange(low, int(high)) if size is None else self.torch.randint(low, high, size).numpy()


def golden():
    folder = os.environ.get("AVSR_GOLDEN")
    if not folder:
        pytest.skip("AVSR_GOLDEN is not set")
    torch = pytest.importorskip("torch")
    return torch.load(os.path.join(folder, "transforms.pt"), weights_only=True)


def test_golden_video_masks():
    for seed, expected in enumerate(golden()["timemask_video_120_seeds0-5"].numpy()):
        masked = adaptive_time_mask(np.ones(120), TorchDraws(seed), 10, 25)
        assert (masked == 0).tolist() in (expected.tolist(), (~expected).tolist())


def test_golden_audio_masks():
    for seed, spans in enumerate(golden()["timemask_audio_48000_seeds0-2_zero_spans"]):
        expected = np.ones(48000)
        for start, end in spans:
            expected[start:end] = 0
        assert (adaptive_time_mask(np.ones(48000), TorchDraws(seed), 6400, 16000) == expected).all()
