"""The MLP projector against explicit matrices (arXiv 2409.12319: W2 ReLU(W1 z + b1) + b2)."""

import pytest
import torch

from espnet2_avsr_llm.projector.mlp import MLPProjector
from espnet2_avsr_llm.projector.mlp_bank import MLPBank


def test_numbers():
    projector = MLPProjector({"audio": {4: 2}}, output_size=2, hidden_size=3)
    first, _, last = projector.streams["audio"]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        first.bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
        last.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]]))
        last.bias.copy_(torch.tensor([0.5, -0.5]))
    # z = (1, -2): hidden (1, -2, -2) -> (1, 0, 0) -> (1.5, -0.5); z = (1, 1): hidden (1, 1, 1) -> (6.5, 1.5)
    out, terms = projector({"audio": (torch.tensor([[[1.0, -2.0], [1.0, 1.0]]]), torch.tensor([2]))}, {"audio": 4})
    assert out["audio"][0].tolist() == [[[1.5, -0.5], [6.5, 1.5]]] and out["audio"][1].tolist() == [2] and terms == {}


def test_layer_norm_comes_last():
    plain, normed = (MLPProjector({"audio": {1: 4}}, 6, 5, layer_norm=ln) for ln in (False, True))
    normed.load_state_dict(plain.state_dict(), strict=False)
    x = {"audio": (torch.randn(1, 3, 4), torch.tensor([3]))}
    (y, _), (z, _) = (p(x, {"audio": 1})[0]["audio"] for p in (plain, normed))
    torch.testing.assert_close(z, torch.nn.functional.layer_norm(y, (6,)))
    assert not torch.allclose(y, z)


def test_streams_do_not_share_weights():
    projector = MLPProjector({"audio": {4: 3}, "video": {2: 3}}, 2, 2)
    x = (torch.ones(1, 1, 3), torch.tensor([1]))
    out, _ = projector({"audio": x, "video": x}, {"audio": 4, "video": 2})
    assert not torch.allclose(out["audio"][0], out["video"][0])


def test_one_projector_for_different_widths_is_refused():
    with pytest.raises(ValueError, match="audio.*widths differ"):
        MLPProjector({"audio": {4: 8, 16: 32}}, 2, 2)


@pytest.mark.parametrize("kind", [MLPProjector, MLPBank])
def test_layer_norm_of_some_streams(kind):
    """Released Omni-AVSR models with stacking can have it for audio alone."""
    projector = kind({"audio": {4: 3}, "video": {2: 3}}, 2, 2, layer_norm={"audio": True, "video": False})
    norms = {name.split(".")[1] for name, module in projector.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    assert norms == {"audio"}
