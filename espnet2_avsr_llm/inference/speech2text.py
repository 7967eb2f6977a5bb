"""Speech2Text: sound, lips or both in, text out, as ESPnet users know it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Sequence, Union

import numpy as np
import torch

from espnet2_avsr_llm.data.collate import collate
from espnet2_avsr_llm.data.media import read_audio, read_roi, read_video
from espnet2_avsr_llm.data.preprocess import eval_inputs
from espnet2_avsr_llm.hub.archive import check_archive
from espnet2_avsr_llm.inference.generate import Hypothesis, Search, generate
from espnet2_avsr_llm.inference.load import load_model
from espnet2_avsr_llm.pass_plan import Pass

INPUTS_PER_SECOND = {"speech": 16000, "video": 25}
ROI_SIZE = 96

Input = Union[np.ndarray, str, Path, None]  # an array, a file, or nothing
Result = tuple[str, list[str], list[int], Hypothesis]


class Speech2Text:
    """Decode one utterance or a list of them.

    Args:
        asr_train_config: ``config.yaml`` of the experiment.
        asr_model_file: checkpoint.
        device: ``cpu``, ``cuda``, ...
        dtype: number format of the pretrained parts; None keeps the configured one on a GPU and takes float32 on a CPU.
        batch_size: utterances decoded together.
        search: further options of :class:`~espnet2_avsr_llm.inference.generate.Search`; greedy and deterministic by default.

    Examples:
        >>> speech2text = Speech2Text("exp/avsr/config.yaml", "exp/avsr/valid.acc.ave.pth")
        >>> text, tokens, token_ids, hypothesis = speech2text(speech="clip.mp4", video="clip.mp4")[0]
    """

    def __init__(
        self,
        asr_train_config: Path | str,
        asr_model_file: Path | str | None = None,
        device: str = "cpu",
        dtype: str | None = None,
        batch_size: int = 1,
        **search: Any,
    ):
        self.search = Search(**search)
        self.batch_size = batch_size
        self.model = load_model(asr_train_config, asr_model_file, device, dtype or ("float32" if device == "cpu" else None))
        self.names = sorted({name for f in self.model.frontends.values() for name in f.inputs})
        limits = [f.max_inputs / INPUTS_PER_SECOND[f.inputs[0]] for f in self.model.frontends.values() if f.max_inputs]
        self.max_seconds = min(limits, default=math.inf)
        self._filterbanks = any(f.filterbanks for f in self.model.frontends.values())

    @staticmethod
    def from_pretrained(model_tag: str, cachedir: str | None = None, **options: Any) -> "Speech2Text":
        """From a packed model: an unpacked folder with ``meta.yaml``, a zip file, or a model-zoo or hub name."""
        folder = Path(model_tag)
        if (folder / "meta.yaml").is_file():
            import yaml

            meta = yaml.safe_load((folder / "meta.yaml").read_text(encoding="utf-8"))
            files = {k: str(folder / v) for group in ("files", "yaml_files") for k, v in meta[group].items()}
        else:
            from espnet_model_zoo.downloader import ModelDownloader

            cachedir = cachedir or str(Path.home() / ".cache" / "espnet_model_zoo")
            downloader = ModelDownloader(cachedir)
            if Path(fetched := downloader.download(model_tag)).is_file():
                check_archive(fetched)
            files = downloader.download_and_unpack(model_tag)
        return Speech2Text(**{k: files[k] for k in ("asr_train_config", "asr_model_file")}, **options)

    def __call__(
        self,
        speech: Input | Sequence[Input] = None,
        video: Input | Sequence[Input] = None,
        pass_: Pass | Sequence[Pass] | None = None,
    ) -> list[Result] | list[list[Result]]:
        """Decode.

        Args:
            speech: 16 kHz waveform (T,) or a file with sound; or a list of them, None where an utterance has no sound.
            video: mouth ROI (T, 96, 96) uint8, or a video file (of 96x96 mouths, or of faces); or a list of them.
            pass_: task and rates, for all or for each; None takes the first pass of the training plan.

        Returns:
            The n-best ``(text, tokens, token_ids, hypothesis)``; a list of them for lists.

        Raises:
            ValueError: lists of different lengths, or an utterance with no input that the model can use.
            MediaError: a file cannot be read.
        """
        many = isinstance(speech, (list, tuple)) or isinstance(video, (list, tuple))
        utterances = self._utterances(speech, video)
        default = self.model.plan.all_passes()[0]
        passes = list(pass_) if isinstance(pass_, (list, tuple)) else [pass_ or default] * len(utterances)
        if len(passes) != len(utterances):
            raise ValueError(f"{len(passes)} passes for {len(utterances)} utterances: give one, or one for each")
        windows = [(i, w) for i, utterance in enumerate(utterances) for w in self._windows(utterance)]
        decoded = self._decode([w for _, w in windows], [passes[i] for i, _ in windows])
        results = [self._join([d for (j, _), d in zip(windows, decoded) if j == i]) for i in range(len(utterances))]
        return results if many else results[0]

    def _utterances(self, speech, video) -> list[dict[str, np.ndarray]]:
        given = {"speech": speech, "video": video}
        columns = {n: (list(x) if isinstance(x, (list, tuple)) else [x]) for n, x in given.items() if n in self.names and x is not None}
        if len({len(c) for c in columns.values()}) != 1:
            raise ValueError(f"This model reads {' and '.join(self.names)}; found {({n: len(c) for n, c in columns.items()}) or 'none of them'}")
        count = len(next(iter(columns.values())))
        read = {"speech": _read_speech, "video": _read_video}
        return [{n: read[n](columns[n][i] if n in columns else None) for n in self.names} for i in range(count)]

    def _windows(self, utterance: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Equal parts that the encoders can take; one for almost every utterance."""
        parts = max(1, math.ceil(_seconds(utterance) / self.max_seconds)) if _seconds(utterance) else 1
        frames = math.ceil(_seconds(utterance) * 25 / parts)
        cuts = {"speech": frames * 640, "video": frames}
        return [{n: x[k * cuts[n] : (k + 1) * cuts[n]] for n, x in utterance.items()} for k in range(parts)]

    def _decode(self, windows: list[dict[str, np.ndarray]], passes: list[Pass]) -> list[list[Hypothesis]]:
        """Windows of one pass in batches of similar length."""
        order = sorted(range(len(windows)), key=lambda i: (str(passes[i]), -_seconds(windows[i])))
        results: dict[int, list[Hypothesis]] = {}
        while order:
            batch = [i for i in order[: self.batch_size] if passes[i] == passes[order[0]]]
            order = order[len(batch) :]
            results |= dict(zip(batch, self._decode_batch([windows[i] for i in batch], passes[batch[0]])))
        return [results[i] for i in range(len(windows))]

    def _decode_batch(self, windows: list[dict[str, np.ndarray]], pass_: Pass) -> list[list[Hypothesis]]:
        samples = [(str(i), eval_inputs(w.get("speech"), w.get("video"), self._filterbanks)) for i, w in enumerate(windows)]
        batch = {name: x.to(self.model.device) for name, x in collate(samples)[1].items()}
        with torch.no_grad():
            features = self.model.encode(self.model.inputs(batch))
        return generate(self.model, features, pass_, [_seconds(w) for w in windows], self.search)

    def _join(self, windows: list[list[Hypothesis]]) -> list[Result]:
        """n-best of an utterance; of several windows the best texts, joined."""
        if len(windows) > 1:
            best = [w[0] for w in windows]
            ids = [t for h in best for t in h.token_ids]
            text = " ".join(h.text for h in best if h.text)
            truncated = any(h.truncated for h in best)
            windows = [[Hypothesis(text, ids, sum(h.score for h in best), truncated, best[0].task, best[0].rates)]]
        return [(h.text, self.model.llm.tokens.pieces(h.token_ids), h.token_ids, h) for h in windows[0]]


def _seconds(utterance: dict[str, np.ndarray]) -> float:
    return max(len(x) / INPUTS_PER_SECOND[name] for name, x in utterance.items())


def _read_speech(speech: Input) -> np.ndarray:
    if speech is None:
        return np.zeros(0, np.float32)
    return read_audio(speech) if isinstance(speech, (str, Path)) else np.asarray(speech, np.float32)


def _read_video(video: Input) -> np.ndarray:
    if video is None:
        return np.zeros((0, ROI_SIZE, ROI_SIZE), np.uint8)
    if not isinstance(video, (str, Path)):
        return np.asarray(video)
    frames = read_video(video)
    if frames.shape[1:3] == (ROI_SIZE, ROI_SIZE):
        return read_roi(video)
    from espnet2_avsr_llm.data.roi import mouth_roi

    return mouth_roi(frames)[0]
