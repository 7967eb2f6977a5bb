"""Transcribe data directories by Whisper, for corpora without transcripts (VoxCeleb2).

With --job K it does the Kth part of --nj parts, and --finish then writes the directories; without either it does
everything. A killed run continues where it was. What has no words, is in another language (by a multilingual Whisper),
or repeats itself is left out and listed with the reason in dropped.jsonl; so are files that cannot be read, which the
next run tries again. Greedy decoding.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from espnet2_avsr_llm.data import MISSING
from espnet2_avsr_llm.data.atomic import atomic_path
from espnet2_avsr_llm.data.journal import DONE, Entry, Journal, close_all, keep_settings, mark, with_entries
from espnet2_avsr_llm.data.tables import Row, count, rows, segment_of, table_names, writing

if TYPE_CHECKING:
    from espnet2_avsr_llm.data.transcriber import Transcriber


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in_dirs", type=Path, nargs="+", required=True, help="data directories with wav.scp, at most 30 s an utterance")
    parser.add_argument("--out_dirs", type=Path, nargs="+", required=True, help="one for each")
    parser.add_argument("--whisper", default="openai/whisper-medium.en", help="folder or hub id")
    parser.add_argument("--revision", help="of a hub id")
    parser.add_argument("--language", default="en", help="what is spoken; a multilingual Whisper leaves out what it hears as another language")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--ngpu", type=int, choices=[0, 1], default=0)
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--job", type=int, help="part to do, from 1 on")
    parser.add_argument("--finish", action="store_true", help="all parts are done: write the tables")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Transcribe what is not yet transcribed, write the tables."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if len(args.in_dirs) != len(args.out_dirs):
        parser.error(f"found {len(args.in_dirs)} --in_dirs and {len(args.out_dirs)} --out_dirs, expected as many")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    if not args.finish:
        for out_dir in args.out_dirs:
            keep_settings(out_dir, {"whisper": args.whisper, "revision": args.revision, "language": args.language})
        load = cache(partial(_load, args.whisper, args.revision, args.language, "cuda" if args.ngpu else "cpu"))
        for part in [args.job] if args.job else range(1, args.nj + 1):
            for in_dir, out_dir in zip(args.in_dirs, args.out_dirs):
                run(in_dir, out_dir, load, args.batch_size, part, args.nj)
    if args.finish or not args.job:
        for in_dir, out_dir in zip(args.in_dirs, args.out_dirs):
            finish(in_dir, out_dir)


def _load(*args) -> "Transcriber":
    from espnet2_avsr_llm.data.transcriber import Transcriber

    return Transcriber(*args)


def run(in_dir: Path, out_dir: Path, load: Callable[[], "Transcriber"], batch_size: int, part: int, parts: int) -> None:
    """Transcribe the utterances of one part that no journal has yet; the model is loaded if there are any."""
    from tqdm import tqdm

    todo = _todo(in_dir, out_dir, part, parts)
    total = len(range(part - 1, count(in_dir), parts))
    journal = Journal(out_dir, part, parts)
    with tqdm(total=total, desc=f"Whisper {out_dir} {part}/{parts}", unit="utt", mininterval=1) as bar:
        while block := list(islice(todo, batch_size)):
            new = [(utt, row) for utt, row, _, entry in block if entry is None]
            sources = {utt: source for utt, _, source, _ in block}
            for entry in transcribe(load, new):
                journal.append({**entry, "source": sources[entry["utt"]]})
            bar.update(len(block))
    journal.close()


def _todo(in_dir: Path, out_dir: Path, part: int = 1, parts: int = 1) -> Iterator[tuple[str, Row, int, Entry | None]]:
    """The utterances of a part in the order of their ids, each with its row, a mark of its source, and what a journal says of it."""
    for utt, row, entry in islice(with_entries(rows(in_dir), out_dir), part - 1, None, parts):
        source = mark(row.get("wav.scp"), row.get("utt2segment"))
        yield utt, row, source, entry if entry is not None and entry["source"] == source else None


def transcribe(load: Callable[[], "Transcriber"], utterances: Sequence[tuple[str, Row]]) -> list[Entry]:
    """Journal entries of utterances: their ``text``, or the ``reason`` why they have none (``again``: try again later), in their order."""
    from espnet2_avsr_llm.data.media import MediaError, read_audio

    waves, entries = {}, {}
    for utt, row in utterances:
        start, end = segment_of(utt, row)
        try:
            if row.get("wav.scp", MISSING) == MISSING:
                entries[utt] = {"utt": utt, "reason": "no sound"}
            else:
                waves[utt] = read_audio(row["wav.scp"], start, end)
        except MediaError as error:
            entries[utt] = {"utt": utt, "reason": f"not readable: {error}", "again": True}
    for utt, (text, reason) in zip(waves, load()(list(waves.values())) if waves else []):
        entries[utt] = {"utt": utt, "reason": reason} if reason else {"utt": utt, "text": text}
    return [entries[utt] for utt, _ in utterances]


def finish(in_dir: Path, out_dir: Path) -> None:
    """Write the data directory of what was transcribed.

    Raises:
        SystemExit: some utterances were not tried yet.
    """
    names, missing, kept = table_names(in_dir), 0, 0
    with atomic_path(out_dir / DONE) as done, atomic_path(out_dir / "dropped.jsonl") as dropped:
        with open(done, "w", encoding="utf-8") as done_file, open(dropped, "w", encoding="utf-8") as dropped_file:
            with writing(out_dir, names if "text" in names else [*names, "text"]) as write:
                for utt, row, _, entry in _todo(in_dir, out_dir):
                    if entry is None:
                        missing += 1
                        continue
                    if not entry.get("again"):
                        done_file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                    if "reason" in entry:
                        dropped_file.write(json.dumps({"what": utt, "reason": entry["reason"]}, ensure_ascii=False) + "\n")
                    else:
                        kept += 1
                        write(utt, row | {"text": entry["text"]})
                if missing:
                    raise SystemExit(f"{missing} utterances of {in_dir} are not in {out_dir} yet: run the parts that were cut off again")
    close_all(out_dir)
    logging.info("%s: %d of %d utterances have a transcript", out_dir, kept, count(in_dir))


if __name__ == "__main__":
    main()
