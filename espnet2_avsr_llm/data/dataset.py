"""ESPnet data types and data set for mouth ROIs.

ROIs travel as uint8, a quarter of float32's memory between workers and device; they are normalised in the model.
"""

from __future__ import annotations

import collections.abc
from pathlib import Path

import numpy as np

from espnet2_avsr_llm.compat import ESPnetDataset, SequenceIterFactory, espnet_dataset, espnet_iterable_dataset
from espnet2_avsr_llm.data.media import read_roi

MISSING = "-"  # in video.scp: this utterance has no video


def load_video(path: str) -> np.ndarray:
    """Mouth ROI (T, 96, 96) uint8 of a file; no frames for ``-``."""
    return np.zeros((0, 96, 96), np.uint8) if path == MISSING else read_roi(path)


class VideoScpReader(collections.abc.Mapping):
    """Utterance id -> mouth ROI; only the list is read at start, files are decoded when asked for (in a worker)."""

    def __init__(self, path: Path | str, keys_to_load: set[str] | None = None):
        with open(path, encoding="utf-8") as f:
            pairs = (line.rstrip("\n").split(maxsplit=1) for line in f)
            self._paths = {utt: file for utt, file in pairs if keys_to_load is None or utt in keys_to_load}

    def __getitem__(self, utt: str) -> np.ndarray:
        return load_video(self._paths[utt])

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self):
        return iter(self._paths)


def register_data_types() -> None:
    """Make ``FILE,video,video`` known to both of ESPnet's tables of data types."""
    entry = dict(func=VideoScpReader, kwargs=["keys_to_load"], help="mouth ROI video: 'utterance path' per line")
    espnet_dataset.DATA_TYPES.setdefault("video", entry)
    espnet_iterable_dataset.DATA_TYPES.setdefault("video", load_video)


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
