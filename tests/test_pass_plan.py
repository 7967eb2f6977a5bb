"""Passes and plans, checked where they enter."""

import pytest

from espnet2_avsr_llm.pass_plan import FixedPlan, Pass


@pytest.mark.parametrize(
    "conf,message",
    [
        (dict(task="tts", rates={"audio": 3}), "unknown task 'tts'; known: asr, vsr, avsr"),
        (dict(task="avsr", rates={"audio": 3}), r"avsr reads \['audio', 'video'\], but rates are given for \['audio'\]"),
        (dict(task="asr", rates={"audio": 0}), "integers from 1"),
        (dict(task="asr", rates={"audio": 2.0}), "integers from 1"),
    ],
)
def test_bad_passes(conf, message):
    with pytest.raises(ValueError, match=message):
        FixedPlan([conf])


def test_no_pass():
    with pytest.raises(ValueError, match="at least one pass"):
        FixedPlan([])


def test_fixed_plan_is_the_same_at_every_step_and_in_validation():
    plan = FixedPlan([{"task": "asr", "rates": {"audio": 16}}, {"task": "avsr", "rates": {"audio": 4, "video": 2}, "weight": 0.5}])
    expected = [Pass("asr", {"audio": 16}, 1.0), Pass("avsr", {"audio": 4, "video": 2}, 0.5)]
    assert plan.passes(3) == plan.passes() == plan.all_passes() == expected
    assert plan.rates() == {"audio": [4, 16], "video": [2]}
