"""Passes and plans: what they make, and what they refuse where it enters."""

from collections import Counter
from itertools import product

import pytest

from espnet2_avsr_llm.pass_plan import AllRatesPlan, FixedPlan, Pass, RandomRatesPlan

RATES = {"audio": [4, 16], "video": [2, 5]}
PAIRS = [{"audio": a, "video": v} for a, v in product(RATES["audio"], RATES["video"])]
OMNI = {"asr": 1, "vsr": 1.5, "avsr": 1}


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
    assert plan.passes((0, 3)) == plan.passes() == plan.all_passes() == plan.longest() == expected
    assert plan.rates() == {"audio": [4, 16], "video": [2]}


def test_all_rates_is_the_mean_over_every_pair():
    plan = AllRatesPlan("avsr", RATES)
    assert plan.passes((0, 1)) == plan.passes() == [Pass("avsr", pair, 0.25) for pair in PAIRS]
    assert AllRatesPlan("vsr", {"video": [1, 2, 3]}).passes() == [Pass("vsr", {"video": v}, 1 / 3) for v in (1, 2, 3)]


def test_weights_of_all_rates_make_a_weighted_mean():
    plan = AllRatesPlan("avsr", RATES, [1, 1, 2, 4])
    assert [p.weight for p in plan.passes()] == [0.125, 0.125, 0.25, 0.5]
    other_way_round = AllRatesPlan("avsr", {"video": RATES["video"], "audio": RATES["audio"]}, [1, 1, 2, 4])
    assert other_way_round.passes() == plan.passes(), "weights depend on the order of the streams in the YAML file"


@pytest.mark.parametrize("weights", [[1, 1], [1, 1, 1, 0], [1, 1, 1, -1]])
def test_weights_of_all_rates_are_checked(weights):
    with pytest.raises(ValueError, match="a positive weight for each of .*'audio': 4, 'video': 2.* found"):
        AllRatesPlan("avsr", RATES, weights)


def test_all_rates_of_another_stream_are_refused():
    with pytest.raises(ValueError, match=r"asr reads \['audio'\]"):
        AllRatesPlan("asr", RATES)


def test_random_rates_are_three_tasks_at_one_drawn_pair():
    plan = RandomRatesPlan(RATES, OMNI)
    drawn = Counter()
    for update in range(400):
        asr, vsr, avsr = passes = plan.passes((7, update))
        assert [p.task for p in passes] == ["asr", "vsr", "avsr"] and [p.weight for p in passes] == [1, 1.5, 1]
        assert avsr.rates == {**asr.rates, **vsr.rates}
        drawn[tuple(avsr.rates.values())] += 1
    assert set(drawn) == {(4, 2), (4, 5), (16, 2), (16, 5)} and min(drawn.values()) > 70  # uniform: 100, standard deviation 9


def test_random_rates_depend_on_seed_and_update_alone():
    def rates(seed):
        return [RandomRatesPlan(RATES, OMNI).passes((seed, u))[2].rates for u in range(40)]

    assert rates(1) == rates(1) != rates(2)
    plan = RandomRatesPlan(RATES, OMNI)
    assert [plan.passes((1, u))[2].rates for u in reversed(range(40))] == rates(1)[::-1]


def test_validation_of_random_rates_is_the_expectation():
    plan = RandomRatesPlan(RATES, OMNI)
    expected = [("asr", {"audio": 4}, 0.5), ("asr", {"audio": 16}, 0.5), ("vsr", {"video": 2}, 0.75), ("vsr", {"video": 5}, 0.75)]
    assert plan.passes() == plan.all_passes() == [Pass(*p) for p in expected] + [Pass("avsr", pair, 0.25) for pair in PAIRS]


def test_longest_step_of_random_rates_is_at_the_finest():
    plan = RandomRatesPlan({"video": [5, 2], "audio": [16, 4]}, OMNI)
    assert plan.longest() == [Pass("asr", {"audio": 4}, 1), Pass("vsr", {"video": 2}, 1.5), Pass("avsr", {"audio": 4, "video": 2}, 1)]


def test_the_released_programs_division():
    plan = RandomRatesPlan(RATES, OMNI, mean_over_tasks=True)
    assert [p.weight for p in plan.passes((0, 0))] == pytest.approx([1 / 3, 0.5, 1 / 3])


@pytest.mark.parametrize(
    "rates,tasks,message",
    [
        (RATES, {"asr": 1}, r"none of the tasks \['asr'\] reads \['video'\]"),
        ({"audio": [4]}, OMNI, r"vsr reads \['video'\], but rates are given for \[\]"),
        (RATES, {"asr": 1, "avsr": 1, "tts": 1}, "unknown task 'tts'"),
        ({"audio": []}, {"asr": 1}, "at least one pass"),
    ],
)
def test_bad_random_rates(rates, tasks, message):
    with pytest.raises(ValueError, match=message):
        RandomRatesPlan(rates, tasks)
