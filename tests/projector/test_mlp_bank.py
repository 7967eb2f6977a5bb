"""The bank of projectors: one MLP for each rate of each stream."""

import pytest
import torch

from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.projector.mlp import MLPProjector
from espnet2_avsr_llm.projector.mlp_bank import MLPBank

SIZES = {"audio": {4: 3, 16: 7}, "video": {2: 3}}  # stacking: another width at each rate


def inputs(rates):
    generator = torch.Generator().manual_seed(0)
    return {s: (torch.randn(2, 5, SIZES[s][r], generator=generator), torch.tensor([5, 3])) for s, r in rates.items()}


@pytest.mark.parametrize("layer_norm", [False, True])
def test_each_rate_is_an_mlp_of_its_own(layer_norm):
    bank = MLPBank(SIZES, 6, 4, layer_norm)
    seen = set()
    for rate in (4, 16):
        rates = {"audio": rate, "video": 2}
        single = MLPProjector({s: {r: SIZES[s][r]} for s, r in rates.items()}, 6, 4, layer_norm)
        for stream, r in rates.items():
            single.streams[stream].load_state_dict(bank.streams[stream][str(r)].state_dict())
        found, terms = bank(inputs(rates), rates)
        expected, _ = single(inputs(rates), rates)
        assert terms == {} and bank.active(Pass("avsr", rates)) == sum(p.numel() for p in single.parameters())
        for stream in rates:
            assert torch.equal(found[stream][0], expected[stream][0]) and found[stream][1].tolist() == [5, 3]
        seen.add(found["audio"][0].sum().item())
    assert len(seen) == 2


def test_names_of_the_tensors():
    """Stream and rate, then the indices of the released state dicts."""
    names = set(MLPBank({"video": {2: 3, 5: 3}}, 6, 4, layer_norm=True).state_dict())
    assert names == {f"streams.video.{rate}.{i}.{kind}" for rate in (2, 5) for i in (0, 2, 3) for kind in ("weight", "bias")}
