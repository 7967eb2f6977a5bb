"""Decode test sets: every noise condition asked for, in one process."""

from __future__ import annotations

import argparse
import json
import logging
import time
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
    parser.add_argument("--output_dir", help="writes CONDITION/{text,token,token_int,score,log.json} here")
    parser.add_argument("--conditions", nargs="+", default=["clean"], help="clean, or names of noise lists in --noise_dir")
    parser.add_argument("--noise_dir", help="folder of noise lists (stage 5)")
    parser.add_argument("--ngpu", type=int, choices=[0, 1], default=0, help="1: decode on the GPU")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--num_threads", type=int, help="CPU threads")
    parser.add_argument("--batch_size", type=int, default=1)
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
    todo = [c for c in args.conditions if not complete(Path(args.output_dir) / c / "text", utterances, Path(args.asr_model_file))]
    if not todo:
        logging.info(f"{args.output_dir}: all conditions are decoded")
        return
    options = {name: getattr(args, name) for name in SEARCH}
    speech2text = Speech2Text(
        args.asr_train_config, args.asr_model_file, "cuda" if args.ngpu else "cpu", args.dtype, args.batch_size, **options
    )
    for condition in todo:
        torch.manual_seed(args.seed)
        decode(speech2text, utterances, condition, args)


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


def decode(speech2text, utterances: dict[str, dict[str, str]], condition: str, args: argparse.Namespace) -> None:
    """Decode one condition and write its files."""
    from tqdm import tqdm

    load = Loader(utterances, speech2text.names, Path(args.noise_dir) / f"{condition}.txt" if condition != "clean" else None)
    ids, results, start = list(utterances), [], time.perf_counter()
    step = 8 * args.batch_size  # utterances in hand: enough to batch those of similar length
    for i in tqdm(range(0, len(ids), step), desc=condition, unit="chunk"):
        chunk = ids[i : i + step]
        results += speech2text(**{name: [load(utt, name) for utt in chunk] for name in speech2text.names})
    log = {"seconds": time.perf_counter() - start, "utterances": len(ids)}
    write(Path(args.output_dir) / condition, dict(zip(ids, results)), log)


class Loader:
    """Inputs of an utterance by name; sound with the noise that the condition's list gives it."""

    def __init__(self, utterances: dict[str, dict[str, str]], names: list[str], noise_list: Path | None):
        from espnet2_avsr_llm.data.noise import read_noise_list

        self.utterances = utterances
        self.noise = read_noise_list(noise_list) if noise_list is not None and "speech" in names else None
        self._waves: dict[str, object] = {}

    def __call__(self, utt: str, name: str):
        """Array of ``speech`` or ``video``; None where the utterance has none."""
        from espnet2_avsr_llm.data.media import read_audio, read_roi
        from espnet2_avsr_llm.data.noise import mix

        path = self.utterances[utt].get(name)
        if path is None:
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
    log["truncated"] = [utt for utt, r in results.items() if r[0][3].truncated]
    write_text(folder / "log.json", json.dumps(log, indent=2) + "\n")
    write_text(folder / "text", (folder / "1best_recog" / "text").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
