"""The decoding program."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from espnet2_avsr_llm.bin import avsr_llm_inference
from espnet2_avsr_llm.data.noise import NoiseEntry, write_noise_list
from espnet2_avsr_llm.inference import decoded, speech2text
from espnet2_avsr_llm.inference.speech2text import Speech2Text

FINEST = "avsr_audio4_video2"


def decode_part(experiment, corpus, out, *options):
    args = ["--asr_train_config", experiment / "config.yaml", "--asr_model_file", experiment / "model.pth"]
    args += ["--data_dir", corpus / "valid", "--output_dir", out, "--batch_size", 2, "--max_tokens_per_second", 5, *options]
    decoded._checksum.cache_clear()
    avsr_llm_inference.main([str(a) for a in args])


def decode(experiment, corpus, out, *options):
    decode_part(experiment, corpus, out, *options)
    return dict(line.partition(" ")[::2] for line in (out / FINEST / "clean" / "1best_recog" / "token_int").read_text().splitlines())


def test_program_writes_what_speech2text_finds(experiment, corpus, tmp_path):
    found = decode(experiment, corpus, tmp_path, "--beam_size", 2, "--nbest", 2)
    decoder = Speech2Text(experiment / "config.yaml", experiment / "model.pth", beam_size=2, max_tokens_per_second=5)
    for utt, value in found.items():
        expected = decoder(speech=str(corpus / "valid" / "data" / f"{utt}.flac"), video=str(corpus / "valid" / "data" / f"{utt}.mp4"))
        assert value == " ".join(map(str, expected[0][2]))
    assert sorted(found) == ["valid00", "valid01", "valid02"]
    assert {p.name for p in (tmp_path / FINEST / "clean").iterdir()} == {"1best_recog", "2best_recog", "text", "log.json"}


def test_program_decodes_every_trained_pass_and_noise_only_where_it_is_heard(omni_experiment, corpus, tmp_path):
    entry = NoiseEntry(str(corpus / "valid" / "data" / "valid00.flac"), 100, 0.0)
    write_noise_list(tmp_path / "noise" / "babble_0dB.txt", dict.fromkeys(["valid00", "valid01", "valid02"], entry))
    decode(omni_experiment, corpus, tmp_path, "--conditions", "clean", "babble_0dB", "blur", "--noise_dir", tmp_path / "noise")
    pairs = [f"avsr_audio{a}_video{v}" for a in (4, 16) for v in (2, 5)]
    heard = {f"{name}/{c}" for name in ["asr_audio4", "asr_audio16", *pairs] for c in ("clean", "babble_0dB")}
    seen = {f"{name}/{c}" for name in ["vsr_video2", "vsr_video5", *pairs] for c in ("clean", "blur")}
    assert {str(p.relative_to(tmp_path).parent) for p in tmp_path.glob("*/*/text")} == heard | seen
    frames = dict(line.split() for line in (corpus / "valid" / "utt2num_frames").read_text().splitlines())
    for pass_ in ("asr_audio16", "avsr_audio4_video5"):
        log = json.loads((tmp_path / pass_ / "clean" / "log.json").read_text())
        assert log["speech_seconds"] == pytest.approx(sum(map(int, frames.values())) / 25)
        assert log["llm_tokens"] == sum(p["llm_tokens"] for p in log["picked"].values()) and log["tflops"] > 0 and log["notes"] == {}


def test_program_takes_requests_and_missing_files(omni_experiment, corpus, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("wav.scp", "video.scp"):
        lines = (corpus / "valid" / name).read_text().splitlines(keepends=True)
        (data / name).write_text("".join(["valid00 -\n", *lines[1:]] if name == "wav.scp" else lines))
    decode(omni_experiment, corpus, tmp_path / "out", "--data_dir", data, "--requests", "task=avsr,audio_rate=4,video_rate=2", "max_llm_tokens=60")
    log = json.loads((tmp_path / "out" / FINEST / "clean" / "log.json").read_text())
    assert log["notes"] == {"valid00": "no audio: vsr instead of avsr"}
    assert log["picked"]["valid00"]["task"] == "vsr" and log["picked"]["valid01"]["task"] == "avsr"
    log = json.loads((tmp_path / "out" / "avsr_tokens60" / "clean" / "log.json").read_text())
    assert all(p["llm_tokens"] <= 60 or log["notes"][u] for u, p in log["picked"].items())


def test_program_refuses_what_was_not_trained_before_it_decodes(omni_experiment, corpus, tmp_path):
    with pytest.raises(ValueError, match="not trained for asr, audio_rate=8"):
        decode(omni_experiment, corpus, tmp_path, "--requests", "task=asr", "task=asr,audio_rate=8")
    with pytest.raises(ValueError, match="no option .rate.; its options: task, audio_rate"):
        decode(omni_experiment, corpus, tmp_path, "--requests", "rate=8")
    assert not list(tmp_path.iterdir())


def test_complete_conditions_are_not_decoded_again(experiment, corpus, tmp_path, monkeypatch):
    decode(experiment, corpus, tmp_path)
    monkeypatch.setattr(avsr_llm_inference, "decode", lambda *_: pytest.fail("decoded again"))
    decode(experiment, corpus, tmp_path)
    (tmp_path / FINEST / "clean" / "text").write_text("valid00 a\n")
    with pytest.raises(pytest.fail.Exception):
        decode(experiment, corpus, tmp_path)


def copy_of(corpus, folder):
    """The test set with files of its own."""
    shutil.copytree(corpus / "valid", folder)
    for name in ("wav.scp", "video.scp"):
        (folder / name).write_text((folder / name).read_text().replace(str(corpus / "valid"), str(folder)))
    return folder


def test_what_was_decoded_with_other_settings_noise_or_media_is_decoded_again(experiment, corpus, tmp_path, monkeypatch):
    data, noise, config = copy_of(corpus, tmp_path / "data"), tmp_path / "noise.flac", tmp_path / "decode.yaml"

    def prepare(text="nbest: 1\n", sound="valid00", offset=100):
        """What stages 1 to 5 write in every run."""
        config.write_text(text)
        shutil.copy(corpus / "valid" / "data" / f"{sound}.flac", noise)
        write_noise_list(tmp_path / "babble_0dB.txt", dict.fromkeys(["valid00", "valid01", "valid02"], NoiseEntry(str(noise), offset, 0.0)))

    def again():
        """Conditions that would be decoded."""
        done = []
        monkeypatch.setattr(avsr_llm_inference, "decode", lambda _, __, cell, *___: done.append(cell.name.split("/")[1]))
        decode(*args)
        return done

    args = experiment, corpus, tmp_path / "out", "--config", config, "--requests", "task=avsr,audio_rate=4,video_rate=2"
    args += "--conditions", "clean", "babble_0dB", "--noise_dir", tmp_path, "--data_dir", data
    prepare()
    decode(*args)
    prepare("# a comment\nnbest: 1\n")  # the same, and newer
    assert again() == []
    prepare("beam_size: 2\n")
    assert again() == ["clean", "babble_0dB"]
    prepare(offset=200)
    assert again() == ["babble_0dB"]
    prepare(sound="valid01")
    assert again() == ["babble_0dB"]
    prepare()
    assert again() == []
    os.utime(data / "data" / "valid01.mp4", (9e9, 9e9))
    assert again() == ["clean", "babble_0dB"]


def files(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file() and p.name != "log.json"}


@pytest.mark.parametrize("nj", [2, 4])
def test_parts_give_the_same_as_one_job(experiment, corpus, tmp_path, nj):
    """Also more parts than utterances."""
    args = "--beam_size", 2, "--nbest", 2, "--requests", "task=avsr,audio_rate=4,video_rate=2", "task=asr", "--nj", nj
    decode(experiment, corpus, tmp_path / "one", *args)
    for job in range(1, nj + 1):
        decode_part(experiment, corpus, tmp_path / "parts", *args, "--job", job)
    decode(experiment, corpus, tmp_path / "parts", *args, "--finish")
    assert files(tmp_path / "parts") == files(tmp_path / "one")
    one, parts = (json.loads((tmp_path / name / FINEST / "clean" / "log.json").read_text()) for name in ("one", "parts"))
    assert parts.pop("seconds") > 0 and one.pop("seconds") > 0
    assert sorted(parts.pop("truncated")) == one.pop("truncated")
    for key in ("tflops", "speech_seconds"):
        assert parts.pop(key) == pytest.approx(one.pop(key))
    assert parts == one


def test_jobs_of_a_machine_share_its_gpus(monkeypatch):
    devices = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(speech2text, "Speech2Text", lambda _, __, device, *___, **____: devices.append(device))
    for options in ([], ["--job", "1"], ["--job", "2"], ["--job", "3"]):
        needed = ["--asr_train_config", "c", "--asr_model_file", "m", "--data_dir", "d", "--output_dir", "o", "--ngpu", "1"]
        avsr_llm_inference.decode_all(Path("o"), [], {}, avsr_llm_inference.parse([*needed, *options]))
    assert devices == ["cuda:0", "cuda:0", "cuda:1", "cuda:0"]


def test_parts_that_are_missing_are_named_and_complete_ones_not_decoded_again(experiment, corpus, tmp_path, monkeypatch):
    args = "--requests", "task=asr", "--nj", 2
    decode_part(experiment, corpus, tmp_path, *args, "--job", 1)
    with pytest.raises(SystemExit, match="asr/clean is not decoded in .*/parts/2of2: run the parts"):
        decode_part(experiment, corpus, tmp_path, *args, "--finish")
    decode_part(experiment, corpus, tmp_path, *args, "--job", 2)
    monkeypatch.setattr(avsr_llm_inference, "decode", lambda *_: pytest.fail("decoded again"))
    for job in ("--job", 1), ("--finish",), ("--job", 2):
        decode_part(experiment, corpus, tmp_path, *args, *job)
    assert not (tmp_path / "parts").exists()


def test_options_from_a_file_and_unknown_ones(tmp_path, capsys):
    (tmp_path / "good.yaml").write_text("beam_size: 7\nnbest: 2\n")
    needed = ["--asr_train_config", "c", "--asr_model_file", "m", "--data_dir", "d", "--output_dir", "o"]
    args = avsr_llm_inference.parse([*needed, "--config", str(tmp_path / "good.yaml"), "--nbest", "3"])
    assert (args.beam_size, args.nbest) == (7, 3)
    (tmp_path / "bad.yaml").write_text("beam_sise: 7\n")
    with pytest.raises(SystemExit):
        avsr_llm_inference.parse([*needed, "--config", str(tmp_path / "bad.yaml")])
    assert "unknown option 'beam_sise' (did you mean 'beam_size'?)" in capsys.readouterr().err


def test_speech2text_is_where_espnet_users_look_for_it():
    assert avsr_llm_inference.Speech2Text is Speech2Text
