"""The talking-face corpus of the mini recipe: layout, reproducibility, sentences, and lips that follow the speech."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="needs the extra that builds the mini corpus")
LOCAL = Path(__file__).parents[2] / "egs2/mini_av/avsr_llm1/local"
sys.path.insert(0, str(LOCAL))

import make_corpus  # noqa: E402
import make_datadir  # noqa: E402
from corpus import clip as clip_module  # noqa: E402
from corpus.clip import make_clip  # noqa: E402
from corpus.grammar import SLOTS, draw_sentence, is_test_sentence  # noqa: E402
from corpus.lips import lip_track  # noqa: E402
from corpus.mouth import Mouth  # noqa: E402
from corpus.phones import CONTROLS, LABELS, VISEMES, VISEMES_OF  # noqa: E402
from corpus.render import Face  # noqa: E402
from corpus.seeding import rng  # noqa: E402
from corpus.speakers import SPLITS, make_speaker  # noqa: E402
from corpus.speech import Segment, Voice, speak  # noqa: E402

from espnet2_avsr_llm.data.media import read_audio, read_video  # noqa: E402


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Two training clips of one speaker and a test clip, with labels, built in this process."""
    out = tmp_path_factory.mktemp("mini_av")
    make_corpus.main(["--out", str(out), "--split", "train:2:1", "--split", "test:1:1", "--labels"])
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.*")) if path.is_file()}


def segments(path: Path) -> list[Segment]:
    rows = [line.split()[:3] for line in path.read_text().splitlines()]
    return [Segment(name, float(start), float(end)) for name, start, end in rows]


def test_layout_is_that_of_lrs3(corpus):
    stem = corpus / "test/test000/00001"
    lines = stem.with_suffix(".txt").read_text().splitlines()
    assert lines[0].startswith("Text:  ") and lines[1] == "Conf:  5" and lines[2] == "Ref:  test000/00001"
    assert lines[3] == "" and lines[4] == "WORD START END ASDSCORE"
    words = lines[0].removeprefix("Text:  ").split(" ")
    assert [line.split()[0] for line in lines[5:]] == words == [word.upper() for word in words]
    assert all(word.lower() in slot for word, slot in zip(words, SLOTS, strict=True))
    assert (corpus / "train.id").read_text().split() == ["trainval/train000/00001", "trainval/train000/00002"]


def test_sound_and_pictures_have_the_same_length(corpus):
    path = corpus / "trainval/train000/00001.mp4"
    pictures, sound = read_video(path), read_audio(path)
    assert pictures.shape[1:] == (224, 224, 3)
    assert 0 <= len(sound) - 640 * len(pictures) < 2048  # AAC pads the end


def test_sound_starts_where_the_labels_say(corpus):
    for stem in ("trainval/train000/00001", "test/test000/00001"):
        sound = read_audio(corpus / f"{stem}.mp4")
        first = segments(corpus / f"{stem}.phn")[0]
        loud = np.flatnonzero(np.abs(sound) > 0.02)[0] / 16000
        assert first.name == "sil" and abs(loud - first.end) < 0.06


def test_phones_tile_the_clip_and_words_lie_inside(corpus):
    for stem in (corpus / "trainval/train000/00001", corpus / "test/test000/00001"):
        phones = segments(stem.with_suffix(".phn"))
        assert phones[0].start == 0 and phones[-1].end == pytest.approx(len(read_video(stem.with_suffix(".mp4"))) / 25)
        assert all(a.end == b.start and a.end > a.start for a, b in zip(phones, phones[1:]))
        rows = [line.split() for line in stem.with_suffix(".txt").read_text().splitlines()[5:]]
        ends = [float(time) for row in rows for time in row[1:3]]
        assert ends == sorted(ends) and phones[0].end - 0.02 < ends[0] and ends[-1] < phones[-1].end


def test_the_same_bytes_in_other_processes_order_and_sizes(corpus, tmp_path):
    make_corpus.main(["--out", str(tmp_path), "--split", "test:2:2", "--split", "train:2:1", "--labels", "--nj", "2"])
    again = contents(tmp_path)
    for name, content in contents(corpus).items():
        if name != "test.id":
            assert again[name] == content, name


def test_another_seed_gives_another_corpus_and_is_not_mixed_in(corpus, tmp_path):
    make_corpus.main(["--out", str(tmp_path), "--split", "train:1:1", "--seed", "1"])
    name = "trainval/train000/00001.mp4"
    assert (tmp_path / name).read_bytes() != (corpus / name).read_bytes()
    with pytest.raises(SystemExit, match="'seed': 1.*'seed': 2"):
        make_corpus.main(["--out", str(tmp_path), "--split", "train:1:1", "--seed", "2"])
    assert json.loads((tmp_path / "corpus.json").read_text())["seed"] == 1


def test_a_killed_build_continues(corpus, tmp_path, monkeypatch):
    speaker = make_speaker(0, "train", 0)
    face = Face(rng(0, "face", speaker.name))
    monkeypatch.setattr(clip_module.os, "replace", _fail_on_mp4(clip_module.os.replace))
    with pytest.raises(KeyboardInterrupt):
        make_clip(tmp_path / "00001", 0, speaker, face, labels=False)
    assert not (tmp_path / "00001.mp4").exists()
    monkeypatch.undo()
    make_clip(tmp_path / "00001", 0, speaker, face, labels=False)
    made = (tmp_path / "00001.mp4").stat()
    assert (tmp_path / "00001.mp4").read_bytes() == (corpus / "trainval/train000/00001.mp4").read_bytes()
    make_clip(tmp_path / "00001", 0, speaker, face, labels=False)
    assert (tmp_path / "00001.mp4").stat().st_mtime_ns == made.st_mtime_ns


def _fail_on_mp4(replace):
    def failing(source, target):
        if str(target).endswith(".mp4"):
            raise KeyboardInterrupt
        replace(source, target)

    return failing


@pytest.mark.parametrize("text", ["train", "dev:3:1", "train:1:2", "train:x:1", "train:3:0", "train:3:1:1"])
def test_a_wrong_split_is_refused(text, capsys, tmp_path):
    with pytest.raises(SystemExit):
        make_corpus.main(["--out", str(tmp_path / "out"), "--split", text])
    assert text in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_jaw_opens_with_the_sound(corpus):
    """The jaw and the log energy rise together over 40-ms frames, with the lips neither late nor far ahead."""
    stem = corpus / "trainval/train000/00002"
    sound, phones = read_audio(stem.with_suffix(".mp4")), segments(stem.with_suffix(".phn"))
    frames = round(phones[-1].end * 25)
    energy = np.log(sound[: 640 * frames].reshape(frames, 640).std(axis=1) + 1e-3)
    jaw = lip_track(phones, frames, 0.04, 1.0)[:, CONTROLS.index("jaw")]
    by_lead = [np.corrcoef(jaw[max(0, -k) : frames - max(0, k)], energy[max(0, k) : frames + min(0, k)])[0, 1] for k in range(-6, 7)]
    assert max(by_lead) > 0.5 and -1 <= int(np.argmax(by_lead)) - 6 <= 3


def test_mouth_in_the_picture_is_dark_where_the_jaw_is_open():
    face = Face(rng(0, "face", "anybody"))
    controls = np.array([VISEMES["sil"], VISEMES["AA"], VISEMES["PBM"]])
    shut, opened, pressed = face.frames(controls, rng(0, "still"))
    region = np.s_[130:190, 70:154]
    dark = [np.count_nonzero(picture[region].mean(axis=-1) < 45) for picture in (shut, opened, pressed)]
    assert dark[1] > 100 + 3 * max(dark[0], dark[2])


def test_every_viseme_changes_the_mouth():
    look = Face(rng(0, "face", "anybody")).look
    mouths = []
    for controls in VISEMES.values():
        head = np.full((224, 224, 4), 180, np.uint8)
        Mouth(look).draw(head, np.array(controls))
        mouths.append(head[..., :3].mean(axis=-1))
    apart = [np.abs(a - b).sum() for i, a in enumerate(mouths) for b in mouths[:i]]
    assert min(apart) > 3000  # e.g. 100 pixels by 30 grey levels


def test_bilabials_shut_the_lips_however_short():
    phones = [Segment("AA", 0.0, 0.30), Segment("B", 0.30, 0.32), Segment("AA", 0.32, 0.7)]
    for lead in (0.0, 0.013, 0.04):
        track = lip_track(phones, 18, lead, 1.0)
        assert track[:, CONTROLS.index("jaw")].min() == 0 and track[:, CONTROLS.index("press")].max() == 1
        shut = int(track[:, CONTROLS.index("jaw")].argmin())
        assert abs((shut + 0.5) / 25 + lead - 0.31) <= 0.02


def test_words_and_phones_come_in_order_and_letters_by_name():
    utterance = speak(["bin", "blue", "at", "a", "two", "now"], Voice("en-us+m3", 140, 50, 50))
    assert [word.name for word in utterance.words] == ["bin", "blue", "at", "a", "two", "now"]
    letter = utterance.words[3]
    assert [p.name for p in utterance.phones if letter.start <= p.start < letter.end] == ["EY"]
    starts = [segment.start for segment in utterance.phones]
    assert starts == sorted(starts) and utterance.phones[-1].end <= len(utterance.wave) / 16000


def test_synthesis_repeats_exactly_within_a_process():
    voice = Voice("en-gb-x-rp+f4", 140, 50, 50)
    first, second = (speak(["set", "red", "in", "z", "nine", "soon"], voice) for _ in range(2))
    assert np.array_equal(first.wave, second.wave) and first.phones == second.phones


def test_unknown_voice_is_an_error():
    with pytest.raises(RuntimeError, match="no-such-voice"):
        speak(["bin"], Voice("no-such-voice", 140, 50, 50))


def test_test_sentences_are_of_the_grammar_and_in_no_other_split():
    generator = rng("sentences")
    for test in (True, False):
        sentences = [draw_sentence(generator, test) for _ in range(50)]
        assert all(is_test_sentence(words) == test for words in sentences)
        assert all(word in slot for words in sentences for word, slot in zip(words, SLOTS, strict=True))


def test_no_voice_is_in_two_splits_of_the_usual_sizes():
    sizes = dict(zip(SPLITS, (60, 30, 5, 16), strict=True))
    voices = [{make_speaker(0, split, number).voice.name for number in range(sizes[split])} for split in SPLITS]
    assert [len(names) for names in voices] == list(sizes.values())
    assert len(set().union(*voices)) == sum(sizes.values())


def test_tables_of_phones_are_complete():
    assert all(set(VISEMES_OF[label]) <= set(VISEMES) for label in LABELS)
    assert {viseme for label in LABELS for viseme in VISEMES_OF[label]} == set(VISEMES)
    assert all(len(controls) == len(CONTROLS) and 0 <= min(controls) <= max(controls) <= 1 for controls in VISEMES.values())


def test_data_directory(corpus, tmp_path):
    make_datadir.main(["--corpus", str(corpus), "--split", "train", "--out_dir", str(tmp_path)])
    text = (tmp_path / "text").read_text().splitlines()
    assert [line.split()[0] for line in text] == ["train000_00001", "train000_00002"]
    assert all(line == line.lower() and len(line.split()) == 7 for line in text)
    assert (tmp_path / "spk2utt").read_text() == "train000 train000_00001 train000_00002\n"
    for name in ("wav.scp", "video.scp"):
        assert all(Path(line.split()[1]).is_file() for line in (tmp_path / name).read_text().splitlines())


def test_a_damaged_transcript_is_named(tmp_path):
    (tmp_path / "00001.txt").write_text("WORDS\n")
    with pytest.raises(ValueError, match="00001.txt: found 'WORDS'"):
        make_datadir.transcript(tmp_path / "00001.txt")
