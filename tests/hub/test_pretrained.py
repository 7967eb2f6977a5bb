"""Fingerprints of sources, and what a source's tensors are."""

import pytest
import torch
from torch import nn

from espnet2_avsr_llm.hub.build import build, reading, torch_dtype
from espnet2_avsr_llm.hub.pretrained import Pretrained, fingerprint
from espnet2_avsr_llm.hub.resolve import SourceError


def module(seed=0, size=4):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(size, 3), nn.BatchNorm1d(3))


def test_fingerprint_knows_values_names_and_shapes():
    same, values, shapes = module(), module(1), module(size=5)
    named = nn.ModuleDict({"a": module()})
    assert fingerprint(module()) == fingerprint(same)
    assert len({fingerprint(m) for m in (same, values, shapes, named)}) == 4


def test_fingerprint_knows_one_changed_tensor():
    changed = module()
    with torch.no_grad():
        changed[1].running_mean.add_(1.0)
    assert fingerprint(changed) != fingerprint(module())


def test_fingerprint_does_not_depend_on_the_format():
    assert fingerprint(module()) == fingerprint(module().bfloat16())


class Part(Pretrained):
    def __init__(self):
        super().__init__()
        self.encoder = module()
        self.adopt("encoder", self.encoder, "there")
        self.encoder.add_module("added", nn.Linear(1, 1))
        self.own = nn.Linear(1, 1)


def test_only_what_was_there_at_adoption_is_external():
    part = Part()
    external = {n for n in part.state_dict() if part.is_external(n)}
    assert external == {f"encoder.{n}" for n in module().state_dict()}
    assert part.is_external("encoder.0.base_layer.weight")  # PEFT's name of the same tensor


def test_adoption_freezes_and_training_mode_does_not_enter():
    part = Part()
    assert not part.encoder[0].weight.requires_grad and not part.frozen
    part.own.requires_grad_(False)
    part.encoder.added.requires_grad_(False)
    assert part.frozen
    assert not any(m.training for m in part.train().modules())


@pytest.mark.parametrize(
    "conf,message",
    [
        (dict(source=None, init="random", arch=None), "init: random needs arch"),
        (dict(source=None, init="pretrained", arch=None), "needs source"),
        (dict(source=None, init="scratch", arch=None), "init 'scratch': expected pretrained or random"),
        (dict(source=None, init="pretrained", arch="tiny-whisper"), "needs source"),
    ],
)
def test_what_init_needs(conf, message):
    with pytest.raises(SourceError, match=message):
        build(**conf, revision=None, dtype=torch.float32, load=None, random=None)


def test_random_is_repeatable_and_leaves_other_draws_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, origin, _ = build(None, "random", "tiny-llama", None, torch.bfloat16, None, lambda facts: nn.Linear(3, 3))
    assert torch.rand(1) == expected and origin == "random:tiny-llama" and first.weight.dtype == torch.bfloat16
    second, *_ = build(None, "random", "tiny-llama", None, torch.bfloat16, None, lambda facts: nn.Linear(3, 3))
    assert torch.equal(first.weight, second.weight)


def test_dtype_names():
    assert torch_dtype("bfloat16") == torch.bfloat16
    with pytest.raises(ValueError, match="dtype 'int8': expected float32 or bfloat16"):
        torch_dtype("int8")


def test_memory_that_runs_out_is_no_damage():
    with pytest.raises(torch.OutOfMemoryError), reading("there"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(SourceError, match="there cannot be loaded"), reading("there"):
        raise RuntimeError("PytorchStreamReader failed")
