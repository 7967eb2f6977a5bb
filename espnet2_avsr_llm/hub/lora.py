"""LoRA inside a pretrained module, by PEFT (arXiv 2106.09685): W x becomes W x + s B A x."""

from __future__ import annotations

import warnings
from typing import Sequence

from torch import nn


def inject_lora(module: nn.Module, target_modules: str | Sequence[str], rank: int, scale: float, name: str = "default") -> None:
    """Add the trained matrices A and B to linear layers of ``module``, in place; they are float32 whatever its own format.

    Args:
        module: what gets them, under PEFT's names.
        target_modules: names of the layers, or a pattern of their full names.
        rank: r.
        scale: s (PEFT's alpha is ``scale * rank``).
        name: of this set of matrices; several may be added.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=target_modules)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several sets are meant
        inject_adapter_in_model(config, module, name)
    for key, parameter in module.named_parameters():
        if "lora_" in key:
            parameter.data = parameter.data.float()
