"""Make babble noise and the fixed noise lists of the test sets (stage 5).

OUT_DIR/babble_train.flac and OUT_DIR/babble_test.flac are made of the training set: 30 talkers at once, the
speakers of the one never in the other (the utterances, where there is one speaker). No test utterance is in either.
OUT_DIR/<test set>/babble_<snr>dB.txt has a line `utterance noise_path offset_in_samples snr_in_dB` for each utterance.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from espnet2_avsr_llm.bin.datadir import read_table
from espnet2_avsr_llm.data import MISSING

SECONDS = 60
_LEVEL = 0.1  # RMS in the file, so that no 16-bit sample clips


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_dir", type=Path, required=True, help="dumped training set: the babble's talkers")
    parser.add_argument("--test_dir", type=Path, nargs="+", required=True, help="dumped test sets, to be listed")
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--snrs", type=float, nargs="+", default=[-10, -5, 0, 5, 10], help="dB")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make both babbles, then the lists."""
    from espnet2_avsr_llm.data.noise import noise_list, write_noise_list

    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    waves = read_waves(args.train_dir)
    halves = split_speakers({utt: spk for utt, spk in read_table(args.train_dir / "utt2spk").items() if utt in waves}, args.seed)
    for name, speakers in zip(("train", "test"), halves, strict=True):
        write_babble(args.out_dir / f"babble_{name}.flac", waves, speakers, name, args.seed)
    babble, n_samples = str(args.out_dir / "babble_test.flac"), SECONDS * 16000
    for test_dir in args.test_dir:
        utts = list(read_waves(test_dir))
        for snr in args.snrs:
            path = args.out_dir / test_dir.name / f"babble_{snr:g}dB.txt"
            write_noise_list(path, noise_list(utts, babble, n_samples, snr, args.seed))
    logging.info("%s: babble and lists at %s dB", args.out_dir, args.snrs)


def read_waves(data_dir: Path) -> dict[str, str]:
    """The sound file of each utterance that has one."""
    return {utt: path for utt, path in read_table(data_dir / "wav.scp").items() if path != MISSING}


def split_speakers(utt2spk: dict[str, str], seed: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Share the talkers between training and test babble.

    Args:
        utt2spk: speaker of each training utterance, two utterances at least.
        seed: of the draw.

    Returns:
        two disjoint tables speaker -> utterances; one speaker's utterances are shared out instead.

    Raises:
        ValueError: fewer than two utterances.
    """
    from espnet2_avsr_llm.data.noise import named_rng

    if len(utt2spk) < 2:
        raise ValueError(f"found {len(utt2spk)} training utterances; expected two at least, to make two babbles")
    if len(set(utt2spk.values())) == 1:
        utt2spk = {utt: utt for utt in utt2spk}
    speakers = sorted(set(utt2spk.values()))
    named_rng(seed, "split of the talkers").shuffle(speakers)
    halves = speakers[: len(speakers) // 2], speakers[len(speakers) // 2 :]
    return tuple({spk: [utt for utt, s in utt2spk.items() if s == spk] for spk in sorted(half)} for half in halves)


def write_babble(path: Path, waves: dict[str, str], speakers: dict[str, list[str]], name: str, seed: int) -> None:
    """Write 60 s of babble; where there are fewer than 30 speakers, some talk several times over.

    Args:
        path: flac file to make.
        waves: file of each utterance.
        speakers: utterances of each talker.
        name: of the babble; with ``seed`` it names every draw.
        seed: see ``name``.
    """
    from espnet2_avsr_llm.data.media import write_audio
    from espnet2_avsr_llm.data.noise import N_TALKERS, make_babble, named_rng

    rng = named_rng(seed, "babble", name)
    order = list(rng.permutation(sorted(speakers)))
    talkers = [speakers[order[i % len(order)]] for i in range(N_TALKERS)]
    tracks = [_track([waves[utt] for utt in rng.permutation(utts)]) for utts in talkers]
    write_audio(path, make_babble(tracks, SECONDS * 16000, rng) * _LEVEL)


def _track(files: Sequence[str]):
    """Join utterances until 60 s are full or there are no more."""
    import numpy as np

    from espnet2_avsr_llm.data.media import read_audio

    pieces, n_samples = [], 0
    for file in files:
        if n_samples >= SECONDS * 16000:
            break
        pieces.append(read_audio(file))
        n_samples += len(pieces[-1])
    return np.concatenate(pieces)


if __name__ == "__main__":
    main()
