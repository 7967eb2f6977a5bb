"""Whisper's transcripts, with tiny ones that were taught two tones: low is English "low tone", high is Spanish "alto"."""

from unittest.mock import ANY

import pytest

from espnet2_avsr_llm.data.transcriber import Transcriber
from espnet2_avsr_llm.hub.resolve import SourceError
from taught_whisper import HIGH, LOW, make_taught_whisper, tone


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    return make_taught_whisper(tmp_path_factory.mktemp("whisper.en"), multilingual=False)


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    return make_taught_whisper(tmp_path_factory.mktemp("whisper"), multilingual=True)


def test_english_only(english):
    transcriber = Transcriber(english, None, "en", "cpu")
    assert transcriber([LOW, HIGH, LOW]) == [("low tone", None), ("alto", None), ("low tone", None)]
    assert transcriber([HIGH]) == [("alto", None)]  # the same in any batch


def test_another_language_is_left_out(multilingual):
    waves = [LOW, HIGH]
    assert Transcriber(multilingual, None, "en", "cpu")(waves) == [("low tone", None), (ANY, "another language: es")]
    assert Transcriber(multilingual, None, "es", "cpu")(waves) == [(ANY, "another language: en"), ("alto", None)]


def test_what_is_too_long_or_no_transcript_is_left_out(english, monkeypatch):
    transcriber = Transcriber(english, None, "en", "cpu")
    assert transcriber([tone(250, 30.1)])[0][1] == "longer than 30 s: 30.1 s"
    monkeypatch.setattr(transcriber._tokenizer, "batch_decode", lambda *args, **kwargs: [" ... \u266a", "Na " * 15])
    repeated = ("na " * 15).strip()
    assert transcriber([LOW, HIGH]) == [("", "no words"), (repeated, f"repetitive: {repeated}")]


def test_models_that_do_not_fit_are_refused(english, tmp_path):
    with pytest.raises(ValueError, match="knows English only; found language 'es'"):
        Transcriber(english, None, "es", "cpu")
    with pytest.raises(SourceError, match="No folder"):
        Transcriber(str(tmp_path / "absent"), None, "en", "cpu")
