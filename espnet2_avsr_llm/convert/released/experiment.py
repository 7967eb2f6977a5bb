"""A released checkpoint as an experiment folder of this program, and back: Llama-AVSR, Llama-MTSK, Llama-SMoP and Omni-AVSR.

    OUT/config.yaml         the model, for Speech2Text and training
    OUT/model.pth           trained parts and added rows, for Speech2Text and --init_param
    OUT/sources/PART/       pretrained parts that differ from the source the user named
    OUT/released.json       names, number formats and places of the released tensors; with
    OUT/unused.safetensors  (tensors that the model does not need) it gives the released state dict back, bit by bit
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.build import build
from espnet2_avsr_llm.convert.released.config import Part, model_config
from espnet2_avsr_llm.convert.released.facts import Facts, read_facts, under
from espnet2_avsr_llm.convert.released.names import MODEL, PARTS, UNUSED, Piece, pieces
from espnet2_avsr_llm.convert.released.reading import FORMATS, read_released
from espnet2_avsr_llm.convert.released.sources import KINDS, Source, configure, given_configuration, number_format, place_source
from espnet2_avsr_llm.convert.released.vocabulary import Vocabulary, check_prompts, read_vocabulary
from espnet2_avsr_llm.espnet_model import ESPnetAVSRLLMModel
from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.registry import construct

RECORD, CONFIG, CHECKPOINT, REST = "released.json", "config.yaml", "model.pth", "unused.safetensors"


@dataclass(frozen=True)
class Options:
    """What a released checkpoint does not tell.

    A source is a folder or hub id (its configuration is read, and the LLM's tokenizer), a configuration of what shapes cannot
    tell, or None where the shapes are those of a public model.

    Attributes:
        audio_encoder: Whisper or AV-HuBERT, such as ``{"encoder_attention_heads": 16}``.
        video_encoder: AV-HuBERT; of both streams too (then ``audio_encoder`` serves as well).
        llm: such as ``{"num_attention_heads": 32, "rms_norm_eps": 1e-5, "rope_theta": 500000.0}``.
        tokenizer: folder or hub id of the LLM's tokenizer, where ``llm`` is no folder.
        rates: rate or rates of each stream (``{"audio": [4, 16], "video": [2, 5]}``), in the order of the training options, where
            features were average-pooled: no tensor tells them.
        lora_scale: s = alpha / reduction factor of the LLM's LoRA, 1/8 in every published model.
        rope_frequency_dtype: ``bfloat16`` or ``float32``; None takes the format of the LLM's tensors, in which it was trained.
        released: keep as many Whisper features as the released programs do (25 at least, counted in float32), and cut the video of models
            of one rate to whole rate steps before AV-HuBERT sees it.
        dtype: number format of the pretrained parts, instead of the checkpoint's.
    """

    audio_encoder: Source = None
    video_encoder: Source = None
    llm: Source = None
    tokenizer: str | None = None
    rates: Mapping[str, int | Sequence[int]] | None = None
    lora_scale: float = 0.125
    rope_frequency_dtype: str | None = None
    released: bool = False
    dtype: str | None = None

    def source(self, prefix: str) -> Source:
        """The source of the part with a released prefix."""
        if prefix == "audiovisual_encoder":
            return self.audio_encoder if self.video_encoder is None else self.video_encoder
        return getattr(self, prefix)


def load_released(
    path: Path | str, *, audio_encoder: Source = None, video_encoder: Source = None, llm: Source = None, **options: Any
) -> tuple[ESPnetAVSRLLMModel, Any]:
    """The model of a released checkpoint, with the numbers of the program that wrote it.

    Args:
        path: released ``.pth``, a flat state dict.
        audio_encoder, video_encoder, llm, options: of :class:`Options`.

    Returns:
        The model in eval mode, and its tokenizer with the added tokens. Its sources are not kept; :func:`convert_released` keeps them.

    Raises:
        ValueError: no such option.
        SourceError: as of :func:`convert_released`.
    """
    sources = dict(audio_encoder=audio_encoder, video_encoder=video_encoder, llm=llm)
    asked = construct({"load_released": Options}, "load_released", options, **sources)
    with TemporaryDirectory() as folder:
        model = convert_released(path, Path(folder) / "experiment", asked)
    return model.eval(), model.llm.tokens.tokenizer


def convert_released(path: Path | str, out: Path | str, options: Options = Options(), system: str | None = None) -> ESPnetAVSRLLMModel:
    """Write the experiment folder of a released checkpoint.

    Args:
        path: released ``.pth``.
        out: folder to write; it must not exist.
        options: what the checkpoint does not tell.
        system: ``llama_avsr``, ``omni_avsr``, ``mtsk`` or ``smop``, to be checked against the keys; None infers it.

    Returns:
        The model.

    Raises:
        SourceError: the file is no released checkpoint, contradicts itself, an option or a source, or does not tell what is needed.
    """
    tensors = read_released(path)
    facts = read_facts(tensors, options.rates)
    if system not in (None, facts.system):
        raise SourceError(f"{path} holds a model of {facts.system} by its keys, not of {system}")
    vocabulary = read_vocabulary(under(tensors, "llm"), options.llm, options.tokenizer)
    places = {name: pieces(name, facts, vocabulary.tied) for name in tensors}
    files = _distribute(tensors, places, vocabulary.own)
    with new_folder(out) as folder:
        parts = _place_sources(facts, files, vocabulary, options, folder)
        rope = options.rope_frequency_dtype or FORMATS[number_format(files["llm"])]
        config = model_config(facts, parts, options.lora_scale, rope, options.released)
        model = build(config, ESPnetAVSRLLMModel)
        check_prompts(tensors, model.llm.tokens)
        try:
            model.load_state_dict(files[MODEL] | {"_extra_state": model.get_extra_state()})
        except RuntimeError as e:
            raise SourceError(f"{path}: projectors, LoRA and added rows do not fit the model that its other tensors show. {e}") from e
        checkpoint.save(model.state_dict(), folder / CHECKPOINT)
        save_file(files[UNUSED], folder / REST)
        record = {name: {"dtype": FORMATS[t.dtype], "pieces": places[name]} for name, t in tensors.items()}
        (folder / RECORD).write_text(json.dumps(record, indent=0), encoding="utf-8")
        (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return model


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """A folder that did not exist; it goes again when the block fails."""
    path = Path(path)
    if path.exists():
        raise SourceError(f"{path} exists: give a new folder")
    path.mkdir(parents=True)
    try:
        yield path
    except BaseException:
        shutil.rmtree(path)
        raise


def _distribute(tensors: Mapping[str, Tensor], places: Mapping[str, list[Piece]], own_rows: int) -> dict[str, dict[str, Tensor]]:
    """Tensors by file and name; those of two pieces are cut after the LLM's own rows."""
    files: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        rows = tensor.split([own_rows, len(tensor) - own_rows]) if len(places[name]) > 1 else [tensor]
        for (file, ours), piece in zip(places[name], rows, strict=True):
            files[file][ours] = piece
    return files


def _place_sources(facts: Facts, files: Mapping[str, dict[str, Tensor]], vocabulary: Vocabulary, options: Options, folder: Path) -> dict[str, Part]:
    parts = {}
    for prefix, kind in {**facts.encoders, "llm": "llm"}.items():
        part, source, known = PARTS[prefix], options.source(prefix), given_configuration(options.source(prefix))
        if prefix == "llm":
            known |= {"vocab_size": vocabulary.own, "tie_word_embeddings": vocabulary.tied}
        config = configure(prefix, KINDS[kind], files[part], known)
        target = folder / "sources" / part
        source = None if prefix == "llm" and options.tokenizer else source  # the folder holds another tokenizer
        place = place_source(KINDS[kind], source, config, files[part], target)
        if prefix == "llm" and place == str(target):
            vocabulary.tokenizer.save_pretrained(target)
        parts[part] = Part(place, options.dtype or FORMATS[number_format(files[part])])
    return parts
