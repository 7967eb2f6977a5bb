"""Decode a test set: every trained task and rate, or those asked for, in every noise condition, in one process."""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path


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
    parser.add_argument("--conditions", nargs="+", default=["clean"], help="clean, or names of noise lists in --noise_dir (these where the task hears)")
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
    return parser


SEARCH = ("beam_size", "nbest", "length_penalty", "max_tokens_per_second", "sample")


def main(argv: list[str] | None = None) -> None:
    """Decode every condition that is not complete yet."""
    args = parse(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    import torch

    from espnet2_avsr_llm.inference.speech2text import Speech2Text

    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    utterances = read_data_dir(Path(args.data_dir))
    cells = {Path(args.output_dir) / request.name / c: (request, c) for request, c in grid(args)}
    todo = [folder for folder in cells if not complete(folder / "text", utterances, Path(args.asr_model_file))]
    if not todo:
        logging.info(f"{args.output_dir}: everything asked for is decoded")
        return
    options = {name: getattr(args, name) for name in SEARCH}
    device = "cuda" if args.ngpu else "cpu"
    speech2text = Speech2Text(args.asr_train_config, args.asr_model_file, device, args.dtype, args.batch_size, args.merge_adapter, **options)
    for folder in todo:
        torch.manual_seed(args.seed)
        decode(speech2text, utterances, *cells[folder], folder, args)


def grid(args: argparse.Namespace) -> list[tuple]:
    """Each request in each condition; noise only for tasks that hear."""
    from espnet2_avsr_llm.build import PARTS
    from espnet2_avsr_llm.config import load_config
    from espnet2_avsr_llm.inference.choose import Request
    from espnet2_avsr_llm.registry import construct

    config = load_config(args.asr_train_config)
    trained = construct(PARTS["plan"], config["plan"], config["plan_conf"]).all_passes()
    requests = [Request.parse(text) for text in args.requests] if args.requests else [Request.of(p) for p in trained]
    passes = [r.candidates(trained, r.wanted(trained))[0] for r in requests]
    named = [(replace(r, task=p.task), p) for r, p in zip(requests, passes)]
    return [(r, c) for r, p in named for c in args.conditions if c == "clean" or set(p.rates) != {"video"}]


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


def complete(text: Path, utterances: dict, model_file: Path) -> bool:
    """Whether a condition's text is newer than the model and holds every utterance (it is written last, and at once)."""
    if not text.is_file() or text.stat().st_mtime < model_file.stat().st_mtime:
        return False
    return {line.split(maxsplit=1)[0] for line in text.read_text(encoding="utf-8").splitlines()} == set(utterances)


def decode(speech2text, utterances: dict[str, dict[str, str]], request, condition: str, folder: Path, args: argparse.Namespace) -> None:
    """Decode one condition and write its files."""
    from tqdm import tqdm

    load = Loader(utterances, speech2text.names, Path(args.noise_dir) / f"{condition}.txt" if condition != "clean" else None)
    ids, results, speech_seconds, start = list(utterances), [], 0.0, time.perf_counter()
    step = 8 * args.batch_size  # utterances in hand: enough to batch those of similar length
    for i in tqdm(range(0, len(ids), step), desc=f"{request.name} {condition}", unit="chunk"):
        chunk = ids[i : i + step]
        inputs = {name: [load(utt, name) for utt in chunk] for name in speech2text.names}
        speech_seconds += sum(max(seconds(name, x) for name, x in zip(inputs, row)) for row in zip(*inputs.values()))
        results += speech2text(**inputs, **asdict(request))
    log = {"seconds": time.perf_counter() - start, "utterances": len(ids), "speech_seconds": speech_seconds}
    write(folder, dict(zip(ids, results)), log)


def seconds(name: str, x) -> float:
    """Duration of ``speech`` or ``video``; 0 where there is none."""
    from espnet2_avsr_llm.inference.speech2text import INPUTS_PER_SECOND

    return 0.0 if x is None else len(x) / INPUTS_PER_SECOND[name]


class Loader:
    """Inputs of an utterance by name; sound with the noise that the condition's list gives it."""

    def __init__(self, utterances: dict[str, dict[str, str]], names: list[str], noise_list: Path | None):
        from espnet2_avsr_llm.data.noise import read_noise_list

        self.utterances = utterances
        self.noise = read_noise_list(noise_list) if noise_list is not None and "speech" in names else None
        self._waves: dict[str, object] = {}

    def __call__(self, utt: str, name: str):
        """Array of ``speech`` or ``video``; None where the utterance has none."""
        from espnet2_avsr_llm.data import MISSING
        from espnet2_avsr_llm.data.media import read_audio, read_roi
        from espnet2_avsr_llm.data.noise import mix

        path = self.utterances[utt].get(name)
        if path is None or path == MISSING:
            return None
        if name == "video":
            return read_roi(path)
        wave = read_audio(path)
        if self.noise is None:
            return wave
        entry = self.noise[utt]
        if entry.path not in self._waves:
            self._waves[entry.path] = read_audio(entry.path)
        return mix(wave, self._waves[entry.path], entry.snr, entry.offset)


def write(folder: Path, results: dict[str, list], log: dict) -> None:
    """``1best_recog`` style files of the best hypothesis; those of all n best beside them when n > 1."""
    from espnet2_avsr_llm.data.atomic import write_text

    nbest = max(len(r) for r in results.values())
    for n in range(nbest):
        rows = {utt: r[n] for utt, r in results.items() if len(r) > n}
        columns = {
            "token": {u: " ".join(r[1]) for u, r in rows.items()},
            "token_int": {u: " ".join(map(str, r[2])) for u, r in rows.items()},
            "score": {u: f"{r[3].score:.4f}" for u, r in rows.items()},
            "text": {u: r[0] for u, r in rows.items()},
        }
        for name, values in columns.items():
            target = folder / f"{n + 1}best_recog" / name
            write_text(target, "".join(f"{utt} {value}".rstrip() + "\n" for utt, value in values.items()))
    best = {utt: r[0][3] for utt, r in results.items()}
    log |= {"llm_tokens": sum(h.llm_tokens for h in best.values()), "tflops": sum(h.tflops for h in best.values())}
    log["picked"] = {utt: {"task": h.task, **h.rates, "llm_tokens": h.llm_tokens} for utt, h in best.items()}
    log["notes"] = {utt: h.note for utt, h in best.items() if h.note}
    log["truncated"] = [utt for utt, h in best.items() if h.truncated]
    write_text(folder / "log.json", json.dumps(log, indent=2) + "\n")
    write_text(folder / "text", (folder / "1best_recog" / "text").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
