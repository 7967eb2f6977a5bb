"""Train one of the mini recipe's parts further on GRID: `whisper`, `avhubert`, then `llama`, which reads what the two others hear and see.

    PYTHONPATH=../../mini_av/avsr_llm1/local python3 local/adapt_parts.py whisper --corpus GRID --train dump/raw/train --valid dump/raw/valid --out exp/adapt

The objectives are those of their pretraining: the phone of each frame, and its word too (`word_labels.py`); and sentences put together from
words. The corpus has the times of words; within a word, phones take the shares of it that the synthesiser gives them.
"""

import argparse
import logging
import shutil
from pathlib import Path

STEPS = {"whisper": 2500, "avhubert": 700, "llama": 800}
BATCH = {"whisper": 8, "avhubert": 8, "llama": 24}
PEAK_LR = {"whisper": 1e-3, "avhubert": 1.5e-3, "llama": 1e-3}
CONDITIONS = {"whisper": 3, "avhubert": 2}  # readings of each clip for llama: as it is, and augmented
MOST_CLIPS = 2000  # that are held in memory, 0.9 MB each
TICKS = 25000  # a second, in .align files


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(STEPS))
    parser.add_argument("--corpus", type=Path, required=True, help="GRID, whose alignments are read")
    parser.add_argument("--train", type=Path, required=True, help="dumped clips to train on")
    parser.add_argument("--valid", type=Path, required=True, help="dumped clips to measure on")
    parser.add_argument("--pretrained", type=Path, default=Path("../../mini_av/avsr_llm1/pretrained"), help="the parts to start from")
    parser.add_argument("--out", type=Path, required=True, help="the part is written to OUT/PART, an encoder's heads to OUT/PART_heads.pt")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: %s)" % STEPS)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    """Train one part further, and log how good it is on the validation clips."""
    args = get_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    train, valid = load(args.train, args.corpus), load(args.valid, args.corpus)
    import torch

    torch.manual_seed(args.seed)
    shutil.copytree(args.pretrained / args.part, args.out / args.part, dirs_exist_ok=True)
    if args.part == "llama":
        train_llama(args, train, valid)
    else:
        train_encoder(args, train, valid)


def train_encoder(args: argparse.Namespace, train: list, valid: list) -> None:
    """Train an encoder, with new heads."""
    import numpy as np
    import torch

    from espnet2_avsr_llm.data.atomic import atomic_path
    from word_labels import ENCODERS

    model = ENCODERS[args.part](args.out / args.part, train)
    model.train_on(train, args.steps or STEPS[args.part], BATCH[args.part], PEAK_LR[args.part], args.seed)
    model.save(args.out / args.part)
    with atomic_path(_heads(args, args.part)) as heads:
        torch.save(model.heads.state_dict(), heads)
    rng = np.random.default_rng(args.seed)
    logging.info("%s: %.3f of the frames right, %.3f of augmented ones", args.part, model.accuracy(valid), model.accuracy(valid, rng))


def train_llama(args: argparse.Namespace, train: list, valid: list) -> None:
    """Let the trained encoders read the clips, silence and all, and train the language model on that."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pretrain.llama import Reader
    from pretrain.symbols import Splicer, read
    from word_labels import ENCODERS, add_words

    encoders = []
    for part, count in CONDITIONS.items():
        encoders.append((ENCODERS[part](args.out / part, train), count))
        encoders[-1][0].heads.load_state_dict(torch.load(_heads(args, part), weights_only=True))
    folder = args.out / "llama"
    reader = Reader(AutoTokenizer.from_pretrained(folder), args.seed)
    reader.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    add_words(reader)
    known, unknown = (Splicer([read(clip, encoders, args.seed) for clip in clips]) for clips in (train, valid))
    before = reader.losses(unknown, args.seed)
    reader.train_on(known, args.steps or STEPS["llama"], BATCH["llama"], PEAK_LR["llama"], args.seed)
    reader.save(folder)
    logging.info("llama: loss %.4f before, %.4f after", before, reader.losses(unknown, args.seed))


def load(dump: Path, corpus: Path) -> list:
    """The clips of a dumped set that have an alignment, with the phones of their words; evenly chosen where they are too many.

    Raises:
        SystemExit: there is none.
    """
    from espnet2_avsr_llm.data.media import read_audio, read_roi
    from espnet2_avsr_llm.data.tables import read_dir
    from pretrain.clips import Clip

    tables = read_dir(dump)
    clips = []
    utts = list(tables["text"])
    for utt in utts[:: -(-len(utts) // MOST_CLIPS) or 1]:
        speaker, text = tables["utt2spk"][utt], tables["text"][utt]
        path = align_file(corpus, speaker, utt.removeprefix(f"{speaker}_"))
        words = word_times(path)
        if text.split() == [word.name for word in words]:  # the corpus has alignments of other clips under some names
            clips.append(Clip(speaker, text, read_audio(tables["wav.scp"][utt]), read_roi(tables["video.scp"][utt]), phones_of(words), words))
    logging.info("%s: %d clips, %d of them with their alignment", dump, len(utts), len(clips))
    if not clips:
        raise SystemExit(f"{dump}: none of {len(utts)} clips has its alignment; the last one's would be {path if utts else 'nowhere'}")
    return clips


def align_file(corpus: Path, speaker: str, clip: str) -> Path:
    """Where the word times of a clip are: in the whole corpus, or beside the folder of one speaker's clips."""
    whole = corpus / "alignments"
    return (whole / speaker if whole.is_dir() else corpus.with_name(f"{corpus.name}_align")) / f"{clip}.align"


def word_times(path: Path) -> tuple:
    """The words of an .align file, in seconds; none if there is no file."""
    from pretrain.clips import Segment

    rows = (line.split() for line in path.read_text().splitlines()) if path.is_file() else ()
    return tuple(Segment(word, int(start) / TICKS, int(end) / TICKS) for start, end, word in rows if word not in ("sil", "sp"))


def phones_of(words: tuple) -> tuple:
    """The phones of a sentence: the synthesiser's, each word's stretched to its time."""
    from corpus.speech import Voice, speak
    from pretrain.clips import Segment

    said = speak([word.name for word in words], Voice("en-gb-x-rp", 140, 50, 50))
    phones = []
    for word, source in zip(words, said.words, strict=True):
        scale = (word.end - word.start) / (source.end - source.start)
        own = [phone for phone in said.phones if source.start <= phone.start < source.end]
        phones += [Segment(p.name, *(word.start + (t - source.start) * scale for t in (p.start, p.end))) for p in own]
    return tuple(phones)


def _heads(args: argparse.Namespace, part: str) -> Path:
    return args.out / f"{part}_heads.pt"


if __name__ == "__main__":
    main()
