"""The ESPnet face of the model: a batch in, ``(loss, stats, weight)`` out.

Shapes: `B` batch, `T` frames or samples, `L` text tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from espnet2_avsr_llm.compat import AbsESPnetModel, force_gatherable
from espnet2_avsr_llm.model import AVSRLLM
from espnet2_avsr_llm.pass_plan import Step


class ESPnetAVSRLLMModel(AVSRLLM, AbsESPnetModel):
    """An :class:`AVSRLLM` that ESPnet's trainer can train."""

    def forward(self, text: Tensor, text_lengths: Tensor, step: Step | None = None, **batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss of the plan's passes.

        A mean over tokens. The released programs divide it by the mean number of utterances of a rank, and then clip the gradient to a
        norm of 10. Adam does not see the factor, but ``grad_clip: 10`` is as many times tighter here; it acts most where terms are large,
        such as a decorrelation loss of weight 10⁴.

        Args:
            text: (B, L) ids without BOS and EOS, padded at the end.
            text_lengths: (B,).
            step: the plan's name of this training step, given by the trainer; None makes the passes of validation.
            batch: ``speech`` (B, T) and ``video`` (B, T, 88, 88), as the frontends ask, with ``_lengths``; the rest is ignored.

        Returns:
            The loss; ``loss`` and ``acc``, and both by pass when there are several or further terms; the number of scored tokens, by which
            ESPnet weights this batch against those of other ranks.
        """
        features = self.encode(self.inputs(batch))
        passes = self.plan.passes(step)
        # A call of the LLM for each pass: one for all would pad to the longest, and is slower (tests/benchmarks/training_step.py).
        outputs = [self.run_pass(features, p, (text, text_lengths)) for p in passes]
        loss = sum(p.weight * o.total for p, o in zip(passes, outputs))
        # A clone: the trainer divides the loss in place by accum_grad, and the log would show the quotient.
        stats = {"loss": loss.detach().clone(), "acc": torch.stack([o.accuracy for o in outputs]).mean()}
        for p, o in zip(passes, outputs):
            stats |= {f"{key}_{p.name}": value.detach() for key, value in o.terms.items()}
            if len(passes) > 1 or o.terms:
                stats |= {f"loss_{p.name}": o.loss.detach(), f"acc_{p.name}": o.accuracy}
        weight = (text_lengths + 1).sum().to(loss.device)
        return force_gatherable((loss, stats, weight), loss.device)

    def collect_feats(self, **batch) -> dict[str, Tensor]:
        """Nothing: length files are written by ``avsr-llm make_shape``, not by ESPnet's statistics stage."""
        return {}

    def to(self, *args, **kwargs):
        """Move, but keep every part's number format: ESPnet's ``model.to(dtype=...)`` would upcast a bfloat16 LLM."""
        kwargs.pop("dtype", None)
        args = [a for a in args if not isinstance(a, torch.dtype)]
        return super().to(*args, **kwargs) if args or kwargs else self
