"""Make noise for training and the fixed noise lists of the test sets (stage 5).

Types are `babble`, of the training set's speech; `musan_music`, `musan_noise`, `musan_speech`, `musan_babble` of MUSAN;
`noisex_NAME` for NAME.wav of NOISEX-92. OUT_DIR/<test set>/<type>_<snr>dB.txt has a line `utterance noise_path
offset_in_samples snr_in_dB` for each utterance, the same places at all levels. OUT_DIR/train.txt lists the noise for
training, a line `type path` each. What is in one is not in the other: of babble's talkers (utterances, where there is
one speaker) each half has its own; of MUSAN's files four fifths are for training; NOISEX is for tests only. No test
utterance is in any noise.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet2_avsr_llm.data import MISSING, SAMPLE_RATE
from espnet2_avsr_llm.data.atomic import write_text
from espnet2_avsr_llm.data.tables import read_table

SECONDS = 60
_LEVEL = 0.1  # RMS in the file, less where its peaks leave no room; mixing measures it anyway
_MUSAN = ("music", "noise", "speech", "babble")


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_dir", type=Path, required=True, help="dumped training set: the babble's talkers")
    parser.add_argument("--test_dir", type=Path, nargs="+", required=True, help="dumped test sets, to be listed")
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=["babble"])
    parser.add_argument("--snrs", type=float, nargs="+", default=[-10, -5, 0, 5, 10], help="dB")
    parser.add_argument("--musan", type=Path, help="folder of MUSAN (OpenSLR 17), with music/, noise/ and speech/")
    parser.add_argument("--noisex", type=Path, help="folder of NOISEX-92's wav files")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the noise, then the lists."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    train, test = {}, {}
    for kind in args.types:
        train[kind], test[kind] = noise_of(kind, args)
    write_text(args.out_dir / "train.txt", "".join(f"{kind} {path}\n" for kind, paths in train.items() for path in paths))
    if not any(train.values()):
        logging.warning("%s are for tests only: models will be trained WITHOUT noise, unless --types has babble or one of MUSAN", ", ".join(args.types))
    for test_dir in args.test_dir:
        lengths = {utt: int(n) for utt, n in read_table(test_dir / "utt2num_samples").items() if int(n)}
        for kind, paths in test.items():
            write_lists(args.out_dir / test_dir.name, kind, paths, lengths, args.snrs, args.seed)
    logging.info("%s: %s, and lists at %s dB", args.out_dir, ", ".join(args.types), args.snrs)


def noise_of(kind: str, args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """The files of a type of noise for training and for tests; those that have to be made are made.

    Raises:
        SystemExit: no such type, or its corpus is not there.
    """
    corpus, _, name = kind.partition("_")
    if kind == "babble":
        waves = read_waves(args.train_dir)
        speakers = {utt: speaker for utt, speaker in read_table(args.train_dir / "utt2spk").items() if utt in waves}
        return make_babbles(kind, waves, speakers, args)
    if corpus == "musan" and name in _MUSAN:
        folder = _corpus(args.musan, "--musan", kind) / ("speech" if name == "babble" else name)
        files = {path.stem: str(path) for path in sorted(folder.rglob("*.wav"))}
        if not files:
            raise SystemExit(f"{folder} has no wav files; expected MUSAN as OpenSLR 17 distributes it")
        if name == "babble":
            return make_babbles(kind, files, {file: file for file in files}, args)
        return split_files([Path(path) for path in files.values()], kind, args.seed)
    if corpus == "noisex" and name:
        return [], [convert(_corpus(args.noisex, "--noisex", kind) / f"{name}.wav", args.out_dir / f"{kind}.flac")]
    raise SystemExit(f"no type of noise {kind!r}: choose from babble, {', '.join(f'musan_{name}' for name in _MUSAN)}, noisex_NAME")


def _corpus(folder: Path | None, option: str, kind: str) -> Path:
    if folder is None or not folder.is_dir():
        raise SystemExit(f"{kind} needs {option} FOLDER; found {folder}")
    return folder


def split_files(files: Sequence[Path], kind: str, seed: int) -> tuple[list[Path], list[Path]]:
    """Four fifths of the files for training, the rest for tests."""
    from espnet2_avsr_llm.data.noise import named_rng

    order = named_rng(seed, "split of the files", kind).permutation(len(files))
    n_test = max(1, len(files) // 5)
    return sorted(files[i] for i in order[n_test:]), sorted(files[i] for i in order[:n_test])


def convert(source: Path, target: Path) -> Path:
    """A noise file of any kind as 16 kHz mono flac."""
    import numpy as np

    from espnet2_avsr_llm.data.media import read_audio, write_audio

    wave = read_audio(source)
    write_audio(target, wave * (_LEVEL / np.sqrt(np.mean(wave.astype(np.float64) ** 2))).astype(np.float32))
    return target


def write_lists(folder: Path, kind: str, paths: Sequence[Path], lengths: Mapping[str, int], snrs: Sequence[float], seed: int) -> None:
    """Write the lists of one type of noise for one test set.

    Args:
        folder: where to.
        kind: type of noise.
        paths: its files.
        lengths: samples of each utterance that has sound.
        snrs: dB.
        seed: the draws depend on it and the utterance's id alone.
    """
    import soundfile

    from espnet2_avsr_llm.data.noise import NoiseEntry, draw_noise, named_rng, write_noise_list

    files = [(str(path), soundfile.info(path).frames) for path in paths]
    places = {utt: draw_noise(files, n_samples, named_rng(seed, utt)) for utt, n_samples in lengths.items()}
    for snr in snrs:
        write_noise_list(folder / f"{kind}_{snr:g}dB.txt", {utt: NoiseEntry(*place, snr) for utt, place in places.items()})


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
    chosen = set(speakers[: len(speakers) // 2])
    halves: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for utt, speaker in utt2spk.items():
        halves[speaker not in chosen].setdefault(speaker, []).append(utt)
    return halves


def make_babbles(kind: str, waves: dict[str, str], utt2spk: dict[str, str], args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Write the babble for training and the one for tests, of different talkers."""
    halves = split_speakers(utt2spk, args.seed)
    paths = [args.out_dir / f"{kind}_{name}.flac" for name in ("train", "test")]
    for name, path, speakers in zip(("train", "test"), paths, halves, strict=True):
        write_babble(path, waves, speakers, name, args.seed)
    return paths[:1], paths[1:]


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
    write_audio(path, make_babble(tracks, SECONDS * SAMPLE_RATE, rng) * _LEVEL)


def _track(files: Sequence[str]):
    """Join utterances until 60 s are full or there are no more."""
    import numpy as np

    from espnet2_avsr_llm.data.media import read_audio

    pieces, n_samples = [], 0
    for file in files:
        if n_samples >= SECONDS * SAMPLE_RATE:
            break
        pieces.append(read_audio(file))
        n_samples += len(pieces[-1])
    return np.concatenate(pieces)


if __name__ == "__main__":
    main()
