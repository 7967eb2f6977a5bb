"""Stage 5: babbles with different talkers, lists that repeat."""

import numpy as np
import pytest
import soundfile

from espnet2_avsr_llm.bin import noise_list
from espnet2_avsr_llm.data.media import read_audio, write_audio
from espnet2_avsr_llm.data.noise import read_noise, read_noise_list


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Three training speakers with a tone each, and a test set whose files do not exist: nobody may read them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(noise_list, "SECONDS", 2)
    train = {f"s{s}_{u}": s for s in (1, 2, 3) for u in "ab"}
    for utt, speaker in train.items():
        wave = 0.2 * np.sin(2 * np.pi * 1000 * speaker * np.arange(20000) / 16000)
        write_audio(f"train/data/{utt}.flac", wave)
    for name, utts in (("train", train), ("test", {"t1": 9, "t2": 9, "t3": 9})):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "wav.scp").write_text("".join(f"{utt} {name}/data/{utt}.flac\n" for utt in utts))
        (tmp_path / name / "utt2spk").write_text("".join(f"{utt} s{spk}\n" for utt, spk in utts.items()))
        (tmp_path / name / "utt2num_samples").write_text("".join(f"{utt} {0 if utt == 't3' else 20000}\n" for utt in utts))
    return tmp_path


def make(out="noise", *more):
    noise_list.main(["--train_dir", "train", "--test_dir", "test", "--snrs", "-10", "0", "2.5", "--out_dir", out, *more])


def test_files_and_lists(corpus):
    make()
    lists = {snr: read_noise_list(corpus / "noise/test" / f"babble_{snr}dB.txt") for snr in ("-10", "0", "2.5")}
    for snr, entries in lists.items():
        assert list(entries) == ["t1", "t2"]  # t3 has no sound
        assert all(e.path == "noise/babble_test.flac" and e.snr == float(snr) and 0 <= e.offset < 32000 for e in entries.values())
    assert {e.offset for e in lists["0"].values()} == {e.offset for e in lists["-10"].values()}
    assert (corpus / "noise/train.txt").read_text() == "babble noise/babble_train.flac\n"


@pytest.fixture
def noises(corpus):
    """MUSAN with eleven files of each kind, half of each file silent, and NOISEX with one at its own rate."""
    rng = np.random.default_rng(0)
    for kind, source in (("music", "fma"), ("noise", "free-sound"), ("speech", "librivox")):
        for i in range(11):
            path = corpus / "musan" / kind / source / f"{kind}-{source}-{i:04}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            wave = rng.normal(0, 0.1, 100000)
            wave[50000:] = 0
            soundfile.write(path, wave, 16000)
    (corpus / "noisex").mkdir()
    soundfile.write(corpus / "noisex" / "white.wav", rng.normal(0, 0.01, 60000), 19980)
    return ["--musan", "musan", "--noisex", "noisex"]


def test_musan_and_noisex(corpus, noises):
    make("noise", "--types", "musan_music", "musan_noise", "musan_speech", "musan_babble", "noisex_white", *noises)
    train = [line.split() for line in (corpus / "noise/train.txt").read_text().splitlines()]
    kinds = [kind for kind, _ in train]
    assert {kind: kinds.count(kind) for kind in kinds} == {"musan_music": 9, "musan_noise": 9, "musan_speech": 9, "musan_babble": 1}
    assert len(list((corpus / "noise/test").iterdir())) == 5 * 3
    heard = set()
    for path in (corpus / "noise/test").iterdir():
        for utt, entry in read_noise_list(path).items():
            heard.add(entry.path)
            assert read_noise(entry.path, entry.offset, 20000).any(), (path, utt)
    assert not heard & {path for _, path in train}
    white = read_audio("noise/noisex_white.flac")
    assert len(white) == pytest.approx(60000 / 19980 * 16000, abs=2) and np.sqrt(np.mean(white**2)) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("types, warned", [(["noisex_white"], True), (["noisex_white", "babble"], False)])
def test_types_of_which_none_is_for_training_are_told(corpus, noises, caplog, types, warned):
    make("noise", "--types", *types, *noises)
    assert ("noisex_white are for tests only: models will be trained WITHOUT noise" in caplog.text) == warned


def test_noise_of_pulses_is_not_clipped(corpus, noises):
    pulses = np.zeros(64000, np.float32)
    pulses[::4000] = np.linspace(0.1, 0.2, 16)
    soundfile.write(corpus / "noisex/hammer.wav", pulses, 16000, subtype="FLOAT")
    make("noise", "--types", "noisex_hammer", *noises)
    found = read_audio("noise/noisex_hammer.flac")
    assert np.abs(found / found.max() - pulses / 0.2).max() < 1e-3


@pytest.mark.parametrize(
    "options, message",
    [
        (["--types", "mussan_music"], "no type of noise 'mussan_music'"),
        (["--types", "musan_music"], "musan_music needs --musan FOLDER"),
        (["--types", "musan_music", "--musan", "train"], "has no wav files"),
        (["--types", "noisex_pink", "--noisex", "nowhere"], "noisex_pink needs --noisex FOLDER"),
    ],
)
def test_noise_that_is_not_there_is_named(corpus, options, message):
    with pytest.raises(SystemExit, match=message):
        make("noise", *options)


def test_babbles_share_no_speaker(corpus):
    make()
    heard = {}
    for name in ("train", "test"):
        babble = read_audio(corpus / "noise" / f"babble_{name}.flac")
        assert len(babble) == 32000 and np.sqrt(np.mean(babble**2)) == pytest.approx(0.1, rel=0.01)
        spectrum = np.abs(np.fft.rfft(babble))
        levels = {speaker: spectrum[2000 * speaker - 20 : 2000 * speaker + 20].max() for speaker in (1, 2, 3)}
        heard[name] = {speaker for speaker, level in levels.items() if level > 0.05 * spectrum.max()}
    assert not heard["train"] & heard["test"] and heard["train"] | heard["test"] == {1, 2, 3}


def test_runs_repeat_and_seeds_differ(corpus):
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        make(out, "--seed", seed)
    read = lambda out, name: (corpus / out / name).read_bytes()  # noqa: E731
    assert read("a", "babble_train.flac") == read("b", "babble_train.flac") != read("c", "babble_train.flac")
    assert read("a", "test/babble_0dB.txt").replace(b"a/", b"b/") == read("b", "test/babble_0dB.txt")


def test_one_speaker_is_split_by_utterance():
    halves = noise_list.split_speakers({f"u{i}": "s1" for i in range(6)}, seed=0)
    utts = [utt for half in halves for group in half.values() for utt in group]
    assert sorted(utts) == [f"u{i}" for i in range(6)] and all(len(half) == 3 for half in halves)


def test_too_little_speech_is_refused():
    with pytest.raises(ValueError, match="found 1 training utterances"):
        noise_list.split_speakers({"u": "s"}, seed=0)
