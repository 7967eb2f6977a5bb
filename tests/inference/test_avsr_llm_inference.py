"""The decoding program."""

import json

import pytest

from espnet2_avsr_llm.bin import avsr_llm_inference
from espnet2_avsr_llm.data.noise import NoiseEntry, write_noise_list
from espnet2_avsr_llm.inference.speech2text import Speech2Text

FINEST = "avsr_audio4_video2"


def decode(experiment, corpus, out, *options):
    args = ["--asr_train_config", experiment / "config.yaml", "--asr_model_file", experiment / "model.pth"]
    args += ["--data_dir", corpus / "valid", "--output_dir", out, "--batch_size", 2, "--max_tokens_per_second", 5, *options]
    avsr_llm_inference.main([str(a) for a in args])
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
