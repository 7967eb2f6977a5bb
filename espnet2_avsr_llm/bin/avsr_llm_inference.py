"""Decode a test set: every trained task and rate, or those asked for, in every noise condition, in one process."""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espnet2_avsr_llm.inference.decoded import Cell


def __getattr__(name: str):
    """``Speech2Text`` where ESPnet users look for it, imported only when asked for."""
    if name == "Speech2Text":
        from espnet2_avsr_llm.inference.speech2text import Speech2Text

        return Speech2Text
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_parser() -> argparse.ArgumentParser:
    """Options; those of the search may also stand in ``--config``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="YAML file with any of the options below")
    parser.add_argument("--asr_train_config", help="config.yaml of the experiment")
    parser.add_argument("--asr_model_file", help="checkpoint")
    parser.add_argument("--data_dir", help="dumped test set: wav.scp and video.scp")
    parser.add_argument("--output_dir", help="writes PASS/CONDITION/{text,token,token_int,score,log.json} here")
    parser.add_argument(
        "--requests",
        nargs="+",
        metavar="KEY=VALUE,...",
        help="what to decode with: task, audio_rate, video_rate, max_llm_tokens, max_tflops; default: each pass the model was trained for",
    )
    parser.add_argument("--conditions", nargs="+", default=["clean"], help="see data/conditions.py: clean, babble_0dB, occlusion, babble_0dB+frozen, ...")
    parser.add_argument("--noise_dir", help="folder of noise lists (stage 5)")
    parser.add_argument("--ngpu", type=int, choices=[0, 1], default=0, help="1: decode on the GPU")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--num_threads", type=int, help="CPU threads")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--merge_adapter", action="store_true", help="merge the adapter into the LLM while decoding")
    parser.add_argument("--beam_size", type=int, default=1)
    parser.add_argument("--nbest", type=int, default=1)
    parser.add_argument("--length_penalty", type=float, default=1.0)
    parser.add_argument("--max_tokens_per_second", type=float, default=20.0)
    parser.add_argument("--sample", action="store_true", help="the papers' stochastic beam (temperature 0.6, top-p 0.9)")
    parser.add_argument("--seed", type=int, default=0, help="of --sample")
    parser.add_argument("--nj", type=int, default=1, help="number of parts of the test set")
    parser.add_argument("--job", type=int, help="part to decode, from 1 on")
    parser.add_argument("--finish", action="store_true", help="all parts are decoded: make one result of them")
    return parser


SEARCH = ("beam_size", "nbest", "length_penalty", "max_tokens_per_second", "sample")


def main(argv: list[str] | None = None) -> None:
    """Decode every condition that is not complete yet."""
    args = parse(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    from espnet2_avsr_llm.data.conditions import Condition
    from espnet2_avsr_llm.inference.decoded import Cell

    folder, utterances = Path(args.output_dir), read_data_dir(Path(args.data_dir))
    options = {name: getattr(args, name) for name in (*SEARCH, "seed", "dtype", "merge_adapter")}
    cells = [Cell(f"{r.name}/{c}", r, Condition(c, args.noise_dir), Path(args.asr_model_file), options) for r, c in grid(args)]
    cells = [cell for cell in cells if not cell.complete(folder, utterances)]
    if args.finish:
        finish(folder, cells, utterances, args.nj)
        return
    if args.job:
        folder, utterances = part(folder, utterances, args.job, args.nj)
        cells = [cell for cell in cells if utterances and not cell.complete(folder, utterances)]
    if not cells:
        logging.info(f"{folder}: everything asked for is decoded")
        return
    decode_all(folder, cells, utterances, args)


def grid(args: argparse.Namespace) -> list[tuple]:
    """Each request in each condition; noise only for tasks that hear, damaged video only for those that see."""
    from espnet2_avsr_llm.build import PARTS
    from espnet2_avsr_llm.config import load_config
    from espnet2_avsr_llm.data.conditions import concerns
    from espnet2_avsr_llm.inference.choose import Request
    from espnet2_avsr_llm.registry import construct

    config = load_config(args.asr_train_config)
    trained = construct(PARTS["plan"], config["plan"], config["plan_conf"]).all_passes()
    requests = [Request.parse(text) for text in args.requests] if args.requests else [Request.of(p) for p in trained]
    passes = [r.candidates(trained, r.wanted(trained))[0] for r in requests]
    named = [(replace(r, task=p.task), p) for r, p in zip(requests, passes)]
    return [(r, c) for r, p in named for c in args.conditions if concerns(c, set(p.rates))]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Options of the command line over those of ``--config``; an unknown key of the file is an error."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.config:
        import yaml

        from espnet2_avsr_llm.registry import nearest

        config = yaml.safe_load(Path(args.config).read_text(encoding="utf-8")) or {}
        for key in config:
            if not hasattr(args, key):
                parser.error(f"{args.config}: unknown option {key!r}{nearest(key, vars(args))}")
        parser.set_defaults(**config)
        args = parser.parse_args(argv)
    missing = [n for n in ("asr_train_config", "asr_model_file", "data_dir", "output_dir") if getattr(args, n) is None]
    if missing:
        parser.error(f"needed: {', '.join('--' + n for n in missing)}")
    return args


def read_data_dir(data_dir: Path) -> dict[str, dict[str, str]]:
    """For each utterance its ``speech`` and ``video`` files, as far as there are."""
    utterances: dict[str, dict[str, str]] = {}
    for name, scp in (("speech", "wav.scp"), ("video", "video.scp")):
        if (data_dir / scp).is_file():
            for line in (data_dir / scp).read_text(encoding="utf-8").splitlines():
                utt, path = line.split(maxsplit=1)
                utterances.setdefault(utt, {})[name] = path
    return dict(sorted(utterances.items()))


def decode_all(folder: Path, cells: list[Cell], utterances: dict[str, dict[str, str]], args: argparse.Namespace) -> None:
    """Decode requests in conditions into a folder."""
    import torch

    from espnet2_avsr_llm.inference.speech2text import Speech2Text

    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    options = {name: getattr(args, name) for name in SEARCH}
    # each job of a machine takes its next GPU
    device = f"cuda:{((args.job or 1) - 1) % max(1, torch.cuda.device_count())}" if args.ngpu else "cpu"
    speech2text = Speech2Text(args.asr_train_config, args.asr_model_file, device, args.dtype, args.batch_size, args.merge_adapter, **options)
    for cell in cells:
        torch.manual_seed(args.seed)
        decode(speech2text, utterances, cell, folder, 8 * args.batch_size)


def decode(speech2text, utterances: dict[str, dict[str, str]], cell: Cell, folder: Path, step: int) -> None:
    """Decode one request in one condition and write its files, with ``step`` utterances in hand: enough to batch those of similar length."""
    from tqdm import tqdm

    from espnet2_avsr_llm.inference.decoded import write

    load = Loader(utterances, cell.condition)
    ids, results, speech_seconds, start = list(utterances), [], 0.0, time.perf_counter()
    for i in tqdm(range(0, len(ids), step), desc=cell.name, unit="chunk"):
        chunk = ids[i : i + step]
        inputs = {name: [load(utt, name) for utt in chunk] for name in speech2text.names}
        speech_seconds += sum(max(seconds(name, x) for name, x in zip(inputs, row)) for row in zip(*inputs.values()))
        results += speech2text(**inputs, **asdict(cell.request))
    log = {"settings": cell.settings, "seconds": time.perf_counter() - start, "utterances": len(ids), "speech_seconds": speech_seconds}
    write(folder / cell.name, dict(zip(ids, results)), log)


def part(folder: Path, utterances: dict, job: int, nj: int) -> tuple[Path, dict]:
    """Folder and utterances of a part: every nj-th, as in stage 3."""
    return folder / "parts" / f"{job}of{nj}", dict(list(utterances.items())[job - 1 :: nj])


def finish(folder: Path, cells: list[Cell], utterances: dict, nj: int) -> None:
    """Make one result of the parts, which are removed.

    Raises:
        SystemExit: a part is not decoded.
    """
    from espnet2_avsr_llm.inference.decoded import merge

    parts = [part(folder, utterances, job, nj) for job in range(1, min(nj, len(utterances)) + 1)]
    for cell in cells:
        if missing := [str(path) for path, of in parts if not cell.complete(path, of)]:
            raise SystemExit(f"{cell.name} is not decoded in {', '.join(missing)}: run the parts that were cut off again")
        merge([path / cell.name for path, _ in parts], folder / cell.name)
    shutil.rmtree(folder / "parts", ignore_errors=True)


def seconds(name: str, x) -> float:
    """Duration of ``speech`` or ``video``; 0 where there is none."""
    from espnet2_avsr_llm.inference.speech2text import INPUTS_PER_SECOND

    return 0.0 if x is None else len(x) / INPUTS_PER_SECOND[name]


class Loader:
    """Inputs of an utterance by name, as they are in a condition (:class:`~espnet2_avsr_llm.data.conditions.Condition`)."""

    def __init__(self, utterances: dict[str, dict[str, str]], condition):
        self.utterances, self.condition = utterances, condition

    def __call__(self, utt: str, name: str):
        """Array of ``speech`` or ``video``; None where the utterance has none."""
        from espnet2_avsr_llm.data import MISSING
        from espnet2_avsr_llm.data.media import read_audio, read_roi

        path = self.utterances[utt].get(name)
        if path is None or path == MISSING:
            return None
        return self.condition.video(utt, read_roi(path)) if name == "video" else self.condition.speech(utt, read_audio(path))


if __name__ == "__main__":
    main()
