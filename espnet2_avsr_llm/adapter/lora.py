"""LoRA by PEFT on the LLM (arXiv 2106.09685), with the rank and scale of Llama-AVSR (arXiv 2409.12319).

W x becomes W x + sum of s B A x over the sets that the pass uses. Llama-MTSK (arXiv 2503.06362, II-C): MS is `shared`, SS `scale`,
MSS `shared` and `scale`. Omni-AVSR (arXiv 2511.07253, II-B): S is `shared`, T `task`, ST `shared` and `task`. `task` and `scale`
together are the product. The papers' `rank` option is a reduction factor; here `rank` is the true rank r and `scale` is s.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Sequence

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from espnet2_avsr_llm.hub.lora import inject_lora
from espnet2_avsr_llm.llm.causal_lm import CausalLM
from espnet2_avsr_llm.pass_plan import Pass

SETS = {
    "shared": lambda p: "shared",
    "task": lambda p: f"task_{p.task}",
    "scale": lambda p: f"scale_{p.scale}",
}


class LoRA(nn.Module):
    """LoRA sets inside the LLM; each pass uses some of them.

    Args:
        llm: the LLM; its linear layers get the LoRA weights, under PEFT's names.
        passes: every pass the plan can make.
        rank: r.
        scale: s (PEFT's alpha is ``scale * rank``).
        target_modules: names of the decoder's linear layers.
        sets: which sets a pass adds up: ``shared`` (one for all passes), ``task`` (one per task), ``scale`` (one per rate pair).
        zero: which of B (``up``) and A (``down``) starts at zero (:func:`~espnet2_avsr_llm.hub.lora.inject_lora`).
    """

    def __init__(
        self,
        llm: CausalLM,
        passes: Sequence[Pass],
        rank: int = 64,
        scale: float = 0.125,
        target_modules: Sequence[str] = ("q_proj", "v_proj"),
        sets: Sequence[str] = ("shared",),
        zero: str = "up",
    ):
        super().__init__()
        unknown = [s for s in sets if s not in SETS]
        if unknown or not sets:
            raise ValueError(f"adapter_conf sets: {unknown or 'none given'}; choose from {', '.join(SETS)}")
        self._sets = tuple(sets)
        for name in sorted({name for p in passes for name in self.names(p)}):
            inject_lora(llm.model.get_decoder(), list(target_modules), rank, scale, name, zero)
        # Found again in the LLM at each use: a list of modules here would register their parameters twice.
        self._layers = lambda: (m for m in llm.model.modules() if isinstance(m, BaseTunerLayer))

    def names(self, pass_: Pass) -> list[str]:
        """Names of the LoRA sets that are active in a pass."""
        return [SETS[s](pass_) for s in self._sets]

    def active(self, pass_: Pass) -> int:
        """Number of parameters that a pass uses."""
        names = self.names(pass_)
        return sum(p.numel() for layer in self._layers() for name, p in layer.named_parameters() if name.split(".")[-2] in names)

    def multiplications(self, pass_: Pass) -> int:
        """Multiplications of a token in a pass."""
        return self.active(pass_)

    @contextmanager
    def use(self, pass_: Pass, attention_mask: Tensor | None = None):
        """Select the sets of a pass for the LLM calls inside, leaving ``requires_grad`` alone.

        PEFT's own ``set_adapter`` flips it, and an earlier pass of the same step would silently get no gradient.

        Args:
            pass_: the pass.
            attention_mask: (B, N) valid positions; adapters with statistics need it, LoRA does not.
        """
        names = self.names(pass_)
        layers = list(self._layers())
        for merged in (layer.merged_adapters for layer in layers if layer.merged):
            if set(merged) != set(names):
                raise ValueError(f"The LoRA sets {merged} are merged into the LLM, but this pass needs {names}")
        outer = [layer._active_adapter for layer in layers]
        for layer in layers:
            layer._active_adapter = names
        try:
            yield
        finally:
            for layer, before in zip(layers, outer):
                layer._active_adapter = before

    @contextmanager
    def merged(self, pass_: Pass):
        """Put the sets of a pass into the LLM's own weights for the LLM calls inside, which must be of that pass.

        Equal up to the rounding of W + s B A to the number format of the LLM. The weights come back bit by bit, which
        subtracting would not give.

        Raises:
            ValueError: the weights are quantised.
        """
        layers = list(self._layers())
        for base in (layer.get_base_layer() for layer in layers):
            if not base.weight.is_floating_point():
                raise ValueError(
                    f"merge_adapter: the LLM's weights are quantised ({type(base).__name__}, {base.weight.dtype}), and the LoRA sets "
                    "cannot be merged into such: decode without merge_adapter"
                )
        weights = [layer.get_base_layer().weight for layer in layers]
        originals = [weight.data for weight in weights]
        try:
            for layer, weight in zip(layers, weights):
                weight.data = weight.data.clone()
                layer.merge(adapter_names=self.names(pass_))
            yield
        finally:
            for layer, weight, original in zip(layers, weights, originals):
                weight.data = original
                layer.merged_adapters.clear()

    def losses(self) -> dict[str, Tensor]:
        """Loss terms of the last pass (none)."""
        return {}
