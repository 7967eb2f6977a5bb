"""Parts by name, options checked where they enter, and configurations that do not fit together."""

import pytest

from espnet2_avsr_llm.build import PARTS, build
from espnet2_avsr_llm.registry import construct, nearest


class Part:
    def __init__(self, given, rank=1, scale=2):
        self.values = given, rank, scale


def test_construct_passes_given_and_options():
    assert construct({"part": Part}, "part", {"scale": 5}, given=3).values == (3, 1, 5)


def test_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown 'prt' \(did you mean 'part'\?\); known: part, other"):
        construct({"part": Part, "other": Part}, "prt", {})


def test_unknown_option_names_the_nearest():
    with pytest.raises(ValueError, match=r"part has no option 'rnak' \(did you mean 'rank'\?\); its options: rank, scale"):
        construct({"part": Part}, "part", {"rnak": 3}, given=0)


def test_what_the_program_gives_is_no_option():
    with pytest.raises(ValueError, match="no option 'given'"):
        construct({"part": Part}, "part", {"given": 3}, given=0)


def test_nothing_near():
    assert nearest("zzz", ["rank"]) == ""


@pytest.mark.parametrize("part", PARTS)
def test_every_part_refuses_an_unknown_name_and_option(tiny_config, part):
    with pytest.raises(ValueError, match="Unknown 'nonsense'"):
        build(tiny_config() | {part: "nonsense"})
    with pytest.raises(ValueError, match="no option 'nonsense'"):
        build(tiny_config() | {f"{part}_conf": {"nonsense": 1}})


@pytest.mark.parametrize("part", ["llm", "plan", "compression", "projector"])
def test_a_missing_part_is_named(tiny_config, part):
    with pytest.raises(ValueError, match=f"names no {part}; choose from"):
        build(tiny_config() | {part: None})


def test_streams_of_plan_and_frontends_must_agree(tiny_config):
    with pytest.raises(ValueError, match=r"plan reads the streams \['audio', 'video'\], but the frontends yield \['audio'\]"):
        build(tiny_config() | {"video_frontend": None})


def test_two_frontends_with_one_stream_are_refused(tiny_config, sources):
    """One of them would be encoded for nothing."""
    twice = {"video_frontend": "whisper", "video_frontend_conf": {"source": sources["whisper"]}}
    with pytest.raises(ValueError, match=r"reads the streams \['audio'\], but the frontends yield \['audio', 'audio'\]"):
        build(tiny_config("asr") | twice)


def test_frontends_that_hear_differently_are_refused(tiny_config):
    """Whisper reads waveforms, AV-HuBERT filterbanks."""
    passes = [{"task": "asr", "rates": {"audio": 4}}, {"task": "avsr", "rates": {"audiovisual": 2}}]
    config = tiny_config(video_frontend="avhubert", video_frontend_conf={"streams": ["audiovisual"]}, passes=passes)
    with pytest.raises(ValueError, match="One frontend hears waveforms and the other filterbanks"):
        build(config)


def test_registering_a_class_is_enough(tiny_config, monkeypatch):
    from espnet2_avsr_llm.compression import COMPRESSIONS, AvgPool

    class Every(AvgPool):
        pass

    monkeypatch.setitem(COMPRESSIONS, "every", Every)
    assert type(build(tiny_config(compression="every")).compression) is Every
