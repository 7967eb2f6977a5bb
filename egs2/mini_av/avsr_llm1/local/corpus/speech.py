"""espeak-ng speech with word and phone times, through ctypes on the library of the `espeakng-loader` wheel.

The library keeps state between calls, so that only the first utterance of a process is always the same; each
utterance is therefore spoken in a fork. Shapes: `S` samples at 16 kHz.
"""

import ctypes
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import espeakng_loader
import numpy as np
from scipy.signal import resample_poly

from corpus.grammar import spoken
from corpus.phones import PHONE_OF

SAMPLE_RATE = 16000
_ESPEAK_RATE = 22050
_RETRIEVAL, _PHONEME_EVENTS = 2, 1  # AUDIO_OUTPUT_SYNCHRONOUS: audio goes to the callback; phone events switched on
_UTF8, _PHONEME_INPUT = 1, 0x100  # [[...]] in the text is read as phones
_WORD_EVENT, _PHONE_EVENT = 1, 7
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}
_VOLUME, _QUIET = 2, 60  # below the default of 100, at which some voices clip


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Voice:
    """A synthesiser voice: espeak's name (`language+variant`), words per minute, pitch and its range (0-99)."""

    name: str
    rate: int
    pitch: int
    range: int


@dataclass(frozen=True)
class Segment:
    """A named stretch of time (a phone or a word), in seconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Speech without leading or trailing silence: `wave` (S,) float32 of peak 1 at most, phones and words in order."""

    wave: np.ndarray
    phones: list[Segment]
    words: list[Segment]


def speak(words: list[str], voice: Voice, data: Path | None = None) -> Utterance:
    """Speak a sentence.

    Args:
        words: the sentence, as in the transcript.
        voice: who speaks.
        data: folder of the synthesiser's data, where it is not the wheel's own.

    Returns:
        16 kHz speech with the times of its phones and words.

    Raises:
        RuntimeError: the synthesiser failed or marked another number of words.
    """
    pcm, events = _in_fork(" ".join(map(spoken, words)), voice, data or Path(espeakng_loader.get_data_path()))
    phones = [(PHONE_OF[name], time, position) for kind, position, time, name in events if kind == _PHONE_EVENT]
    marks = [position for kind, position, _, _ in events if kind == _WORD_EVENT]
    if len(marks) != len(words) or not phones or phones[-1][0] != "sil":
        raise RuntimeError(f"espeak marked {len(marks)} words and phones {phones} for {words} by {voice}")
    times = [time / 1000 for _, time, _ in phones]  # the last ones are the silence at the end
    segments = [Segment(name, *span) for (name, _, _), span in zip(phones, zip(times, times[1:]))]
    segments = [segment for segment in segments if segment.name != "sil" and segment.end > segment.start]
    owner = [max(m for m in marks if m <= position) for name, _, position in phones if name != "sil"]
    word_times = [_span(times, owner, mark) for mark in marks]
    wave = resample_poly(pcm.astype(np.float32) / 32768, 320, 441)  # 22,050 -> 16,000 Hz
    return Utterance(wave.astype(np.float32), segments, [Segment(w, *span) for w, span in zip(words, word_times)])


def _span(times: list[float], owner: list[int], mark: int) -> tuple[float, float]:
    own = [index for index, position in enumerate(owner) if position == mark]
    return times[own[0]], times[own[-1] + 1]


def _in_fork(text: str, voice: Voice, data: Path) -> tuple[np.ndarray, list[tuple]]:
    """Run `_synthesise` in a child process of its own and fetch its answer through a pipe."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with os.fdopen(write_end, "wb") as pipe:
                pickle.dump(_synthesise(text, voice, data), pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(f"espeak-ng could not speak {text!r} with voice {voice.name!r}")
    return pickle.loads(answer)  # from our own child, through our own pipe


def _synthesise(text: str, voice: Voice, data: Path) -> tuple[np.ndarray, list[tuple]]:
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_RETRIEVAL, 0, str(data).encode(), _PHONEME_EVENTS)
    if rate != _ESPEAK_RATE or library.espeak_SetVoiceByName(voice.name.encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice {voice.name!r}")
    chunks: list[bytes] = []
    events: list[tuple] = []

    @_CALLBACK
    def collect(samples, count, event):
        if samples and count:
            chunks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while event[index].type:
            item = event[index]
            name = item.id.string.decode() if item.type == _PHONE_EVENT else ""
            events.append((item.type, item.text_position, item.audio_position, name.lstrip("',")))
            index += 1
        return 0

    library.espeak_SetSynthCallback(collect)
    library.espeak_SetParameter(_VOLUME, _QUIET, 0)
    for name, number in _PARAMETERS.items():
        library.espeak_SetParameter(number, getattr(voice, name), 0)
    line = text.encode()
    library.espeak_Synth(line, len(line) + 1, 0, 1, 0, _UTF8 | _PHONEME_INPUT, None, None)
    return np.frombuffer(b"".join(chunks), np.int16), events
