"""LoRA inside a pretrained module, by PEFT (arXiv 2106.09685): W x becomes W x + s B A x."""

from __future__ import annotations

import warnings
from typing import Sequence

from torch import nn


def inject_lora(
    module: nn.Module, target_modules: str | Sequence[str], rank: int, scale: float, name: str = "default", zero: str = "up"
) -> None:
    """Add the trained matrices A and B to linear layers of ``module``, in place; they are float32 whatever its own format.

    Args:
        module: what gets them, under PEFT's names.
        target_modules: names of the layers, or a pattern of their full names.
        rank: r.
        scale: s (PEFT's alpha is ``scale * rank``).
        name: of this set of matrices; several may be added.
        zero: which of both matrices starts at zero, so that the module starts as it was: ``up``, B, as in the paper and in PEFT; or
            ``down``, A, as in the released Llama-AVSR programs (system specification 0.6). The other one is drawn, Kaiming-uniform
            (a = √5). With Adam the product then grows several times as fast: B is drawn from ±1/√r, A from ±1/√inputs.

    Raises:
        ValueError: another ``zero``.
    """
    if zero not in ("up", "down"):
        raise ValueError(f"lora zero: {zero!r}; choose from up, down")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=target_modules, init_lora_weights=zero == "up")  # False draws both
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several sets are meant
        inject_adapter_in_model(config, module, name)
    for key, parameter in module.named_parameters():
        if "lora_" in key:
            parameter.data = parameter.data.float()
            if zero == "down" and f".lora_A.{name}." in key:
                nn.init.zeros_(parameter)
