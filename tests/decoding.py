"""Utterances to decode, and decoders of random weights."""

import numpy as np

from espnet2_avsr_llm.inference.speech2text import Speech2Text

LIMIT = dict(max_tokens_per_second=5, min_tokens=3)


def load(experiment, **options):
    return Speech2Text(experiment / "config.yaml", experiment / "model.pth", **{**LIMIT, **options})


def utterance(seed, frames, only=None):
    rng = np.random.default_rng(seed)
    speech = rng.standard_normal(frames * 640).astype(np.float32)
    video = rng.integers(0, 256, (frames, 96, 96), dtype=np.uint8)
    return (speech if only != "video" else None), (video if only != "speech" else None)


MIXED = [utterance(0, 25), utterance(1, 50), utterance(2, 12), utterance(3, 30, "speech"), utterance(4, 20, "video")]


def call(decoder, utterances, **request):
    speech, video = zip(*utterances)
    return decoder(speech=list(speech), video=list(video), **request)


def ids(results):
    return [r[0][2] for r in results]


def load_batched(decoder, size):
    """The same model with another batch size."""
    clone = object.__new__(Speech2Text)
    clone.__dict__ = {**decoder.__dict__, "batch_size": size}
    return clone
