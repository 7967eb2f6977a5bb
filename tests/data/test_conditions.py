"""Test conditions: the same waveforms and frames in every run, at exactly the level named."""

import numpy as np
import pytest

from espnet2_avsr_llm.bin import noise_list
from espnet2_avsr_llm.data.conditions import Condition, concerns
from espnet2_avsr_llm.data.media import read_audio, write_audio

RNG = np.random.default_rng(0)
UTTS = {f"t{i}": int(RNG.integers(8000, 40000)) for i in range(6)}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Lists at several levels for six test utterances with pauses; the folder of them, and the waves."""
    folder = tmp_path_factory.mktemp("noise")
    for name, utts in (("train", {f"s{i}": 30000 for i in range(8)}), ("test", UTTS)):
        (folder / name).mkdir()
        for utt, length in utts.items():
            wave = RNG.normal(0, 0.1, length) * (np.sin(np.arange(length) / 3000) > -0.5)
            write_audio(folder / name / f"{utt}.flac", wave)
        for table, value in (("wav.scp", f"{folder}/{name}/{{0}}.flac"), ("utt2spk", "{0}"), ("utt2num_samples", "{1}")):
            (folder / name / table).write_text("".join(f"{utt} {value.format(utt, n)}\n" for utt, n in utts.items()))
    args = ["--train_dir", str(folder / "train"), "--test_dir", str(folder / "test"), "--out_dir", str(folder / "noise")]
    noise_list.main([*args, "--snrs", "-10", "-5", "0", "2.5", "10"])
    return folder / "noise" / "test", {utt: read_audio(folder / "test" / f"{utt}.flac") for utt in UTTS}


@pytest.mark.parametrize("snr", [-10, -5, 0, 2.5, 10])
def test_the_level_measured_on_the_mixture_is_the_one_named(noise, snr):
    folder, waves = noise
    condition = Condition(f"babble_{snr:g}dB", folder)
    for utt, wave in waves.items():
        added = condition.speech(utt, wave).astype(np.float64) - wave
        assert 10 * np.log10(np.mean(wave.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(snr, abs=0.05)


def test_two_runs_give_the_same_bits_in_any_order(noise):
    folder, waves = noise
    first, second = Condition("babble_0dB", folder), Condition("babble_0dB", folder)
    np.random.seed(1)
    again = {utt: second.speech(utt, waves[utt]) for utt in reversed(waves)}
    for utt, wave in waves.items():
        assert first.speech(utt, wave).tobytes() == again[utt].tobytes()


def test_all_levels_take_the_same_part_of_the_noise(noise):
    folder, waves = noise
    loud, soft = (Condition(f"babble_{snr}dB", folder).speech("t0", waves["t0"]) - waves["t0"] for snr in (-10, 10))
    assert np.corrcoef(loud, soft)[0, 1] > 0.9999 and np.std(loud) / np.std(soft) == pytest.approx(10, rel=1e-3)


def test_clean_is_untouched_and_parts_add_up(noise):
    folder, waves = noise
    video = RNG.integers(0, 256, (40, 96, 96), dtype=np.uint8)
    clean, both = Condition("clean"), Condition("babble_0dB+dropped+blur", folder)
    assert clean.speech("t0", waves["t0"]) is waves["t0"] and clean.video("t0", video) is video
    assert np.array_equal(both.speech("t0", waves["t0"]), Condition("babble_0dB", folder).speech("t0", waves["t0"]))
    dropped = Condition("dropped").video("t0", video)
    assert np.array_equal(both.video("t0", video), Condition("blur").video("t0", dropped)) and (dropped == 0).all((1, 2)).any()
    assert not np.array_equal(dropped, Condition("dropped").video("t1", video))
    assert Condition("dropped").speech("t0", waves["t0"]) is waves["t0"]


def test_unknown_conditions_are_named(noise):
    with pytest.raises(FileNotFoundError, match="condition 'bable_0dB' has no noise list .*blur, occlusion, dropped, frozen"):
        Condition("bable_0dB", noise[0])


def test_what_a_task_is_tested_in():
    assert [concerns(name, {"audio"}) for name in ("clean", "babble_0dB", "blur", "babble_0dB+blur")] == [True, True, False, True]
    assert [concerns(name, {"video"}) for name in ("clean", "babble_0dB", "blur", "babble_0dB+blur")] == [True, False, True, True]
    assert concerns("blur", {"audiovisual"}) and concerns("babble_0dB", {"audiovisual"})
