"""Speech2Text: sound, lips or both in, text out, as ESPnet users know it."""

from __future__ import annotations

import itertools
import logging
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Sequence, Union

import numpy as np
import torch

from espnet2_avsr_llm.data import FPS, INPUTS_PER_SECOND, SAMPLES_PER_FRAME
from espnet2_avsr_llm.data.collate import collate
from espnet2_avsr_llm.data.media import ROI_SIZE, NoStreamError, read_audio, read_roi, video_frames
from espnet2_avsr_llm.data.preprocess import LENGTH_TOLERANCE, eval_inputs
from espnet2_avsr_llm.data.roi import NoFaceError, mouth_roi
from espnet2_avsr_llm.frontend.abs_frontend import Lengthed
from espnet2_avsr_llm.hub.archive import check_archive
from espnet2_avsr_llm.inference.choose import Choice, Request, choose_pass, choose_task
from espnet2_avsr_llm.inference.generate import Hypothesis, Search, generate
from espnet2_avsr_llm.inference.load import load_model
from espnet2_avsr_llm.inference.windows import window_cuts
from espnet2_avsr_llm.lengths import count_features
from espnet2_avsr_llm.pass_plan import Pass

_SHORTEST = 0.1  # seconds that can hold a word

_LOG = logging.getLogger(__name__)
Input = Union[np.ndarray, str, Path, None]  # an array, a file, or nothing
Result = tuple[str, list[str], list[int], Hypothesis]


class Encoded(NamedTuple):
    """One utterance behind the encoders: features of each stream (a batch of one), the pass that reads them, the duration."""

    features: dict[str, Lengthed]
    pass_: Pass
    seconds: float


class Speech2Text:
    """Decode one utterance or a list of them.

    Args:
        asr_train_config: ``config.yaml`` of the experiment.
        asr_model_file: checkpoint.
        device: ``cpu``, ``cuda``, ...
        dtype: number format of the pretrained parts; None keeps the configured one on a GPU and takes float32 on a CPU.
        batch_size: utterances decoded together.
        merge_adapter: decode with the adapter merged into the LLM's weights: faster, equal up to rounding in their number format.
            Only LoRA can be merged, and only into an LLM that is not quantised.
        task: ``asr``, ``vsr`` or ``avsr``, if trained; None is the one that reads the most. An utterance that lacks a stream is
            decoded in the trained task that fits, and its hypothesis says so.
        audio_rate: compression rate, one of the trained; None is the finest that the budget allows.
        video_rate: likewise.
        max_llm_tokens: budget of an utterance: what the LLM may read before it writes (BOS, delimiters, audio, video, prompt).
        max_tflops: budget of an utterance: what reading it may cost. Where no trained rates keep a budget, the coarsest are
            taken, and the hypothesis says so.
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
        merge_adapter: bool = False,
        task: str | None = None,
        audio_rate: int | None = None,
        video_rate: int | None = None,
        max_llm_tokens: int | None = None,
        max_tflops: float | None = None,
        **search: Any,
    ):
        self.search = Search(**search)
        self.merge_adapter = merge_adapter
        self.batch_size = batch_size
        self.model = load_model(asr_train_config, asr_model_file, device, dtype or ("float32" if device == "cpu" else None))
        self.names = self.model.input_names()
        self.trained = self.model.plan.all_passes()
        self.request = self._checked(Request(task, audio_rate, video_rate, max_llm_tokens, max_tflops))
        if merge_adapter:  # one that cannot be merged is refused here, not at the first utterance
            with self.model.merged(self.trained[0]):
                pass
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
        task: str | None = None,
        audio_rate: int | None = None,
        video_rate: int | None = None,
        max_llm_tokens: int | None = None,
        max_tflops: float | None = None,
    ) -> list[Result] | list[list[Result]]:
        """Decode.

        Args:
            speech: 16 kHz waveform (T,) or a file with sound; or a list of them, None where an utterance has no sound.
            video: mouth ROI (T, 96, 96) uint8, or a video file (of 96x96 mouths, or of faces); or a list of them. A file without
                sound, video or face counts as none, with a warning.
            task, audio_rate, video_rate, max_llm_tokens, max_tflops: as at construction, for this call; None keeps that.

        Returns:
            The n-best ``(text, tokens, token_ids, hypothesis)``; a list of them for lists. Less than 0.1 s gives no text.

        Raises:
            ValueError: lists of different lengths, a task or rate that was not trained, or an utterance with no input that the
                model can use.
            MediaError, NoFaceError: a file cannot be read, or there is nothing else where it lacks what is asked of it.
        """
        asked = dict(task=task, audio_rate=audio_rate, video_rate=video_rate, max_llm_tokens=max_llm_tokens, max_tflops=max_tflops)
        request = self._checked(replace(self.request, **{name: value for name, value in asked.items() if value is not None}))
        many = isinstance(speech, (list, tuple)) or isinstance(video, (list, tuple))
        planned = [self._plan(i, u, request) for i, u in enumerate(self._utterances(speech, video))]
        windows, choices = zip(*planned) if planned else ([], [])
        owners = [i for i, parts in enumerate(windows) for _ in parts]
        decoded = self._decode([w for parts in windows for w in parts], [choices[i].pass_ for i in owners])
        results = [self._join([d for j, d in zip(owners, decoded) if j == i], choice) for i, choice in enumerate(choices)]
        return results if many else results[0]

    def encode(self, speech: Input = None, video: Input = None) -> Encoded:
        """One utterance behind the encoders, with the pass that decodes it: what an analysis looks at.

        Raises:
            ValueError: it is longer than one window, or lacks a stream of the task asked for.
        """
        (utterance,) = self._utterances(speech, video)
        windows, choice = self._plan(0, utterance, self.request)
        if len(windows) > 1:
            raise ValueError(f"it has {_seconds(utterance):.1f} s, but an encoder takes {self.max_seconds:g} s")
        if choice.note:
            raise ValueError(choice.note)
        return Encoded(self._encode(windows, choice.pass_), choice.pass_, _seconds(windows[0]))

    def _checked(self, request: Request) -> Request:
        request.candidates(self.trained, request.wanted(self.trained))
        return request

    def _plan(self, number: int, utterance: dict[str, np.ndarray], request: Request) -> tuple[list[dict[str, np.ndarray]], Choice]:
        """Windows of an utterance, as model inputs, and the pass that decodes them; no windows where it is too short for a word."""
        present = {s for f in self.model.frontends.values() for s in f.streams if any(len(utterance[name]) for name in f.inputs_of(s))}
        passes, note = choose_task(self.trained, request, present)
        names = self.model.input_names(passes[0].rates)
        cut = self._windows({n: utterance[n] for n in names})
        windows = [eval_inputs(w.get("speech"), w.get("video"), self._filterbanks) for w in cut]
        features = [count_features(self.model.frontends.values(), {n: len(x) for n, x in w.items()}) for w in cut]
        try:
            choice = choose_pass(self.model, request, passes, features, note)
        except ValueError as e:
            if not _seconds(utterance):
                raise ValueError(f"Utterance {number}: {e}") from None
            choice = Choice(passes[0], 0, 0.0, str(e))
        if _seconds(utterance) < _SHORTEST:
            choice = Choice(passes[0], 0, 0.0, f"shorter than {_SHORTEST} s")
        if not choice.llm_tokens:
            _LOG.warning("utterance %d is given no text: %s", number, choice.note)
            return [], choice
        return windows, choice

    def _utterances(self, speech, video) -> list[dict[str, np.ndarray]]:
        given = {"speech": speech, "video": video}
        columns = {n: (list(x) if isinstance(x, (list, tuple)) else [x]) for n, x in given.items() if n in self.names and x is not None}
        if len({len(c) for c in columns.values()}) != 1:
            raise ValueError(f"This model reads {' and '.join(self.names)}; found {({n: len(c) for n, c in columns.items()}) or 'none of them'}")
        count = len(next(iter(columns.values())))
        return [self._utterance({n: column[i] for n, column in columns.items()}) for i in range(count)]

    def _utterance(self, given: dict[str, Input]) -> dict[str, np.ndarray]:
        """What there is of an utterance, as arrays."""
        found, error = {}, None
        for name in self.names:
            try:
                found[name] = _READ[name](given.get(name))
            except (NoStreamError, NoFaceError) as e:
                found[name], error = _READ[name](None), e
        seconds = {n: len(x) / INPUTS_PER_SECOND[n] for n, x in found.items() if len(x)}
        if error and not seconds:
            raise error
        if error:
            _LOG.warning("%s: decoded without", error)
        if abs(seconds.get("speech", 0) - seconds.get("video", 0)) > LENGTH_TOLERANCE and len(seconds) == 2:
            _LOG.warning("sound of %.2f s is made as long as the video of %.2f s", seconds["speech"], seconds["video"])
        return found

    def _windows(self, utterance: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Parts that the encoders can take, cut in pauses; one for almost every utterance."""
        cuts = window_cuts(math.ceil(_seconds(utterance) * FPS), self.max_seconds * FPS, utterance.get("speech"))
        samples = {"speech": SAMPLES_PER_FRAME, "video": 1}
        return [{n: x[start * samples[n] : end * samples[n]] for n, x in utterance.items()} for start, end in zip(cuts, cuts[1:])]

    def _decode(self, windows: list[dict[str, np.ndarray]], passes: list[Pass]) -> list[list[Hypothesis]]:
        """Windows of one pass in batches of similar length."""
        results: dict[int, list[Hypothesis]] = {}
        for pass_ in {p.name: p for p in passes}.values():
            rows = sorted((i for i, p in enumerate(passes) if p.name == pass_.name), key=lambda i: -_seconds(windows[i]))
            with self.model.merged(pass_) if self.merge_adapter else nullcontext():
                for k in range(0, len(rows), self.batch_size):
                    batch = rows[k : k + self.batch_size]
                    results |= zip(batch, self._decode_batch([windows[i] for i in batch], pass_))
        return [results[i] for i in range(len(windows))]

    def _decode_batch(self, windows: list[dict[str, np.ndarray]], pass_: Pass) -> list[list[Hypothesis]]:
        return generate(self.model, self._encode(windows, pass_), pass_, [_seconds(w) for w in windows], self.search)

    @torch.no_grad()
    def _encode(self, windows: list[dict[str, np.ndarray]], pass_: Pass) -> dict[str, Lengthed]:
        batch = {name: x.to(self.model.device) for name, x in collate([(str(i), w) for i, w in enumerate(windows)])[1].items()}
        return self.model.encode(self.model.inputs(batch, pass_.rates))

    def _join(self, windows: list[list[Hypothesis]], choice: Choice) -> list[Result]:
        """n-best of an utterance; of several windows the best texts, joined."""
        hypotheses = windows[0] if windows else [Hypothesis("", [], 0.0, False, choice.pass_.task, choice.pass_.rates, 0)]
        if len(windows) > 1:
            best = [w[0] for w in windows]
            text, ids = " ".join(h.text for h in best if h.text), [t for h in best for t in h.token_ids]
            hypotheses = [replace(best[0], text=text, token_ids=ids, score=sum(h.score for h in best), truncated=any(h.truncated for h in best))]
        hypotheses = [replace(h, llm_tokens=choice.llm_tokens, tflops=choice.tflops, note=choice.note) for h in hypotheses]
        return [(h.text, self.model.llm.tokens.pieces(h.token_ids), h.token_ids, h) for h in hypotheses]


def _seconds(utterance: dict[str, np.ndarray]) -> float:
    # filterbanks are as many as video frames
    return max(len(x) / INPUTS_PER_SECOND["speech" if x.ndim == 1 else "video"] for x in utterance.values())


def _read_speech(speech: Input) -> np.ndarray:
    if speech is None:
        return np.zeros(0, np.float32)
    return read_audio(speech) if isinstance(speech, (str, Path)) else np.asarray(speech, np.float32)


def _read_video(video: Input) -> np.ndarray:
    if video is None:
        return np.zeros((0, ROI_SIZE, ROI_SIZE), np.uint8)
    if not isinstance(video, (str, Path)):
        return np.asarray(video)
    frames = video_frames(video)
    first = next(frames)
    if first.shape[:2] == (ROI_SIZE, ROI_SIZE):
        return read_roi(video)
    try:
        found = mouth_roi(itertools.chain([first], frames))
    except NoFaceError as e:
        raise NoFaceError(f"{video}: {e}") from e
    if found.faces > 1:
        _LOG.warning("%s: %d faces are seen at once; the largest of the first frame is followed", video, found.faces)
    return found.frames


_READ = {"speech": _read_speech, "video": _read_video}
