"""Who speaks: a voice, a way of moving the lips and a face per speaker, never shared between splits."""

import hashlib
from dataclasses import dataclass

import numpy as np

from corpus.seeding import rng
from corpus.speech import Voice

# Variants of espeak-ng 1.52 left out: nine with time-seeded breath noise (f2 f3 f5 whisper whisperf Alicia Demonic
# sandro victor), robots and croaks, voices that clip, and copies of one timbre under several names.
TRAINING_VARIANTS = (
    "Andrea Andy AnxiousAndy Denis Diogo Gene Henrique Hugo Marco Mike Nguyen Reed RicishayMax RicishayMax2 adam anika "
    "announcer antonio benjamin ed edward2 f1 fast grandma grandpa gustave john kaukovalta klatt3 klatt4 klatt6 linda "
    "m1 m2 m4 m6 m8 marcelo max michel miguel mike2 pablo paul pedro steph travis"
).split()
VALID_VARIANTS = "Michael aunty boris m5 robert".split()
TEST_VARIANTS = "Alex Annie Lee Mario belinda david edward f4 ian m3 m7 norbert quincy rob shelby".split()
ACCENTS = ("en-us", "en-gb-x-rp")
SPLITS = ("pretrain", "train", "valid", "test")


@dataclass(frozen=True)
class Speaker:
    """A speaker: `name`, `voice`, and the traits of the lips (`expressiveness` scales all movement, `lead` in seconds)."""

    name: str
    voice: Voice
    expressiveness: float
    lead: float


def make_speaker(seed: int, split: str, number: int) -> Speaker:
    """Speaker `number` of a split.

    Args:
        seed: seed of the corpus.
        split: one of `SPLITS`.
        number: from 0; the voices repeat, with another pitch and rate, when the split has more speakers than voices.

    Returns:
        The speaker, the same whatever the sizes of the splits.
    """
    name = f"{split}{number:03d}"
    generator = rng(seed, "speaker", name)
    voices = _voices(split)
    voice = Voice(
        name=voices[number % len(voices)],
        rate=int(generator.integers(125, 156)),
        pitch=int(generator.integers(35, 66)),
        range=int(generator.integers(35, 66)),
    )
    return Speaker(name, voice, float(generator.uniform(0.85, 1.1)), float(generator.normal(0.04, 0.008)))


def _voices(split: str) -> list[str]:
    """Voices of a split in a fixed random order; pretrain and train take the two ends of one list."""
    variants = {"valid": VALID_VARIANTS, "test": TEST_VARIANTS}.get(split, TRAINING_VARIANTS)
    names = [f"{accent}+{variant}" for accent in ACCENTS for variant in variants]
    names.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return names[::-1] if split == "train" else names


def utterance_voice(speaker: Speaker, generator: np.random.Generator) -> Voice:
    """The speaker's voice with the small changes of rate and pitch from one utterance to the next."""
    voice = speaker.voice
    return Voice(
        voice.name,
        voice.rate + int(generator.integers(-6, 7)),
        voice.pitch + int(generator.integers(-3, 4)),
        voice.range,
    )
