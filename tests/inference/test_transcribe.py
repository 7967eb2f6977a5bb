"""avsr-llm transcribe: media files to lines of text, with the model of an experiment or a packed one."""

import pytest
import yaml

from espnet2_avsr_llm.bin import transcribe
from espnet2_avsr_llm.inference.speech2text import Speech2Text


def run(*args):
    with pytest.raises(SystemExit) as end:
        transcribe.main([str(a) for a in args])
    return end.value.code


def test_each_file_is_a_line_and_the_unusable_are_named(experiment, corpus, tmp_path, capsys, caplog):
    model = experiment / "config.yaml", experiment / "model.pth"
    sound, video = (corpus / "valid" / "data" / f"valid00.{kind}" for kind in ("flac", "mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    files = [sound, tmp_path / "absent.mp4", tmp_path / "text.mp4", video]
    assert run("--asr_train_config", model[0], "--asr_model_file", model[1], "--beam_size", 2, *files) == 1
    decoder = Speech2Text(*model, beam_size=2)
    expected = {file: " ".join(decoder(speech=str(file), video=str(file))[0][0].split()) for file in (sound, video)}
    assert expected[sound] != expected[video]
    assert capsys.readouterr().out == "".join(f"{file}\t{text}\n" for file, text in expected.items())
    assert f"{sound}: no video: asr instead of avsr" in caplog.text
    assert all(f"{name}.mp4: found" in caplog.text for name in ("absent", "text"))


def test_a_packed_model_and_a_task(experiment, corpus, tmp_path, capsys):
    sound = corpus / "valid" / "data" / "valid01.flac"
    for name in ("config.yaml", "model.pth"):
        (tmp_path / name).write_bytes((experiment / name).read_bytes())
    meta = {"files": {"asr_model_file": "model.pth"}, "yaml_files": {"asr_train_config": "config.yaml"}}
    (tmp_path / "meta.yaml").write_text(yaml.safe_dump(meta))
    assert run("--model_tag", tmp_path, "--task", "asr", sound) == 0
    text = Speech2Text(experiment / "config.yaml", experiment / "model.pth", task="asr")(speech=str(sound))[0][0].split()
    assert capsys.readouterr().out == f"{sound}\t{' '.join(text)}\n"


@pytest.mark.parametrize("options", [[], ["--asr_train_config", "c.yaml"], ["--model_tag", "m", "--asr_train_config", "c", "--asr_model_file", "m"]])
def test_one_model_is_named(options, capsys):
    assert run(*options, "a.mp4") == 2 and "name one model" in capsys.readouterr().err
