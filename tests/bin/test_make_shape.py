"""Length files equal what training lays out."""

import pytest
import yaml

from espnet2_avsr_llm.bin import make_shape
from espnet2_avsr_llm.data.batching import read_lengths
from espnet2_avsr_llm.data.collate import collate
from espnet2_avsr_llm.data.media import read_audio, read_roi
from espnet2_avsr_llm.data.preprocess import Preprocessor
from espnet2_avsr_llm.task import AVSRLLMTask

JOINT = dict(
    audio_frontend=None,
    video_frontend_conf={"streams": ["audiovisual"]},
    plan_conf={"passes": [{"task": "avsr", "rates": {"audiovisual": 2}}]},
)
TWO = [{"task": "asr", "rates": {"audio": 16}}, {"task": "avsr", "rates": {"audio": 4, "video": 2}}]


@pytest.mark.parametrize("kwargs", [dict(task="asr"), dict(task="vsr"), dict(), dict(compression="avg_pool", passes=TWO)])
def test_tokens_of_all_passes(make_model, tiny_config, corpus, tmp_path, kwargs):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config(**kwargs)))
    make_shape.main(["--config", str(tmp_path / "config.yaml"), "--data_dirs", str(corpus / "train"), "--outs", str(tmp_path / "out" / "shape")])
    lengths = read_lengths(tmp_path / "out" / "shape")
    texts = dict(line.split(maxsplit=1) for line in (corpus / "train" / "text").read_text().splitlines())
    assert list(lengths) == list(texts)
    model = make_model(**kwargs)
    for utt in list(texts)[:3]:
        data = {"speech": read_audio(corpus / "train" / "data" / f"{utt}.flac"), "video": read_roi(corpus / "train" / "data" / f"{utt}.mp4")}
        batch = collate([(utt, Preprocessor(model.llm.tokens, None, 0)(utt, data | {"text": texts[utt]}))])[1]
        features = model.encode(model.inputs(batch))
        laid_out = [model.prepare(features, p, (batch["text"], batch["text_lengths"]))[0].attention_mask.sum() for p in model.plan.passes()]
        assert lengths[utt] == (sum(laid_out), len(data["video"]))


def shapes(config, tmp_path, *utterances):
    """The length file of utterances of (samples, frames)."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for name, values in zip(("utt2num_samples", "utt2num_frames", "text"), (*zip(*utterances), ["hi"] * len(utterances))):
        (tmp_path / name).write_text("".join(f"u{i} {value}\n" for i, value in enumerate(values)))
    make_shape.main(["--config", str(tmp_path / "config.yaml"), "--data_dirs", str(tmp_path), "--outs", str(tmp_path / "shape")])
    return list(read_lengths(tmp_path / "shape").values())


def test_an_utterance_without_a_token_in_some_pass_is_left_out(tiny_config, train_command, corpus, tmp_path, caplog, monkeypatch):
    """Training would stop at it: 10 to 19 frames are 20 to 38 features at 50 Hz."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    plan = ("random_rates", {"rates": {"audio": [4, 30], "video": [2]}, "tasks": {"asr": 1, "vsr": 1}})
    config = tiny_config(compression="avg_pool", plan=plan)
    frames = dict(line.split() for name in ("train", "valid") for line in (corpus / name / "utt2num_frames").read_text().splitlines())
    command = train_command(tmp_path / "exp", config, "--max_epoch", 1)
    AVSRLLMTask.main(cmd=command)
    written = [read_lengths(command[command.index(f"--{phase}_shape_file") + 1]) for phase in ("train", "valid")]
    short = [utt for utt, n in frames.items() if int(n) < 15]
    assert [*written[0], *written[1]] == [utt for utt in frames if utt not in short] and 0 < len(short) < len(frames)
    assert f"{short[0]} (asr_audio30), " in caplog.text and caplog.text.count("0.6 s of sound and video would do") == 2


def test_what_is_left_out_is_counted_and_an_empty_result_is_an_error(tiny_config, tmp_path, caplog):
    config = tiny_config(passes=[{"task": "asr", "rates": {"audio": 32}}, {"task": "vsr", "rates": {"video": 2}}])
    assert len(shapes(config, tmp_path, (10239, 0), (10240, 16), (32000, 0), (0, 50))) == 1
    said = "left out 3 of 4 utterances without an audio or video token in a pass, such as u0 (asr_audio32), u2 (vsr_video2), u3 (asr_audio32): 0.64 s"
    assert said in caplog.text
    with pytest.raises(ValueError, match="has no utterance to train on"):
        shapes(config, tmp_path, (10239, 15))


def test_a_joint_stream_is_as_long_as_what_there_is(tiny_config, tmp_path):
    """AV-HuBERT reads sound where there is no video."""
    both, sound, video = shapes(tiny_config(**JOINT), tmp_path, (32000, 50), (32000, 0), (0, 50))
    assert both == sound == video and both[1] == 50


def test_sound_is_as_long_as_its_video(tiny_config, tmp_path):
    """So it is cut or padded in training."""
    equal, longer, alone = shapes(tiny_config(), tmp_path, (32000, 50), (40000, 50), (40000, 0))
    assert equal == longer and alone[1] == 63


def test_streams_of_plan_and_frontends_must_agree(tiny_config, tmp_path):
    with pytest.raises(ValueError, match=r"plan reads the streams \['audio', 'video'\], but the frontends yield \['audio'\]"):
        shapes(tiny_config() | {"video_frontend": None}, tmp_path, (32000, 50))
