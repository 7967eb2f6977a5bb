"""ESPnet data types and data set for sound and mouth ROIs, either of which an utterance may lack.

ROIs travel as uint8, a quarter of float32's memory between workers and device; they are normalised in the model.
"""

from __future__ import annotations

import collections.abc
from pathlib import Path
from typing import Callable

import numpy as np

from espnet2_avsr_llm.compat import ESPnetDataset, SequenceIterFactory, espnet_dataset, espnet_iterable_dataset
from espnet2_avsr_llm.data import MISSING
from espnet2_avsr_llm.data.media import ROI_SIZE, read_audio, read_roi


def load_speech(path: str) -> np.ndarray:
    """Sound (T,) float32 at 16 kHz of a file; no samples for ``-``."""
    return np.zeros(0, np.float32) if path == MISSING else read_audio(path)


def load_video(path: str) -> np.ndarray:
    """Mouth ROI (T, 96, 96) uint8 of a file; no frames for ``-``."""
    return np.zeros((0, ROI_SIZE, ROI_SIZE), np.uint8) if path == MISSING else read_roi(path)


class ScpReader(collections.abc.Mapping):
    """Utterance id -> array; only the list is read at start, files are decoded by :attr:`load` when asked for (in a worker)."""

    load: Callable[[str], np.ndarray]

    def __init__(self, path: Path | str, keys_to_load: set[str] | None = None):
        with open(path, encoding="utf-8") as f:
            pairs = (line.rstrip("\n").split(maxsplit=1) for line in f)
            self._paths = {utt: file for utt, file in pairs if keys_to_load is None or utt in keys_to_load}

    def __getitem__(self, utt: str) -> np.ndarray:
        return self.load(self._paths[utt])

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self):
        return iter(self._paths)


class SpeechScpReader(ScpReader):
    """Utterance id -> sound."""

    load = staticmethod(load_speech)


class VideoScpReader(ScpReader):
    """Utterance id -> mouth ROI."""

    load = staticmethod(load_video)


def register_data_types() -> None:
    """Make ``FILE,speech,speech`` and ``FILE,video,video`` known to both of ESPnet's tables of data types."""
    for name, reader in (("speech", SpeechScpReader), ("video", VideoScpReader)):
        entry = dict(func=reader, kwargs=["keys_to_load"], help=f"{name} files: 'utterance path' per line, '-' for none")
        espnet_dataset.DATA_TYPES.setdefault(name, entry)
        espnet_iterable_dataset.DATA_TYPES.setdefault(name, reader.load)


class AVDataset(ESPnetDataset):
    """ESPnet's data set, which refuses uint8 after preprocessing: those arrays are held back from its cast."""

    def __init__(self, path_name_type_list, preprocess=None, **kwargs):
        super().__init__(path_name_type_list, preprocess=self._hold_back, **kwargs)
        self.preprocessor = preprocess
        self._held: dict[str, np.ndarray] = {}

    def _hold_back(self, utt: str, data: dict) -> dict:
        data = self.preprocessor(utt, data)
        self._held = {name: value for name, value in data.items() if value.dtype == np.uint8}
        return {name: value for name, value in data.items() if name not in self._held}

    def __getitem__(self, utt):
        utt, data = super().__getitem__(utt)
        return utt, {**data, **self._held}


class EpochIterFactory(SequenceIterFactory):
    """Tells the preprocessor the epoch, so that augmentation depends on (seed, epoch, utterance) and nothing else."""

    def build_iter(self, epoch: int, shuffle: bool | None = None):
        self.dataset.preprocessor.epoch = epoch
        return super().build_iter(epoch, shuffle)
