"""Load a trained model for inference, without ESPnet and without executing anything from its files."""

from __future__ import annotations

from pathlib import Path

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.build import PRETRAINED, build
from espnet2_avsr_llm.config import load_config
from espnet2_avsr_llm.model import AVSRLLM


def load_model(config_file: Path | str, model_file: Path | str | None, device: str = "cpu", dtype: str | None = None) -> AVSRLLM:
    """Build the model of an experiment and read its checkpoint.

    Args:
        config_file: ``config.yaml`` of the experiment.
        model_file: checkpoint; None leaves the trained parts as they are drawn.
        device: where to.
        dtype: number format of the pretrained parts, instead of the configured one.

    Returns:
        The model in eval mode.

    Raises:
        RuntimeError: the checkpoint is of another model.
    """
    config = load_config(config_file)
    for part in PRETRAINED:
        if config.get(part) is None:
            continue
        conf = dict(config.get(f"{part}_conf") or {})
        if conf.get("source"):
            conf["source"] = locate(conf["source"], Path(config_file))
        config[f"{part}_conf"] = conf | ({"dtype": dtype} if dtype else {})
    model = build(config)
    if model_file is not None:
        model.load_state_dict(checkpoint.load(model_file))
    return model.to(device).eval()


def locate(source: str, config_file: Path) -> str:
    """A relative folder as seen from here, or else from the configuration's folder or one above it (packed models)."""
    if Path(source).is_dir():
        return source
    return next((str(p / source) for p in config_file.resolve().parents if (p / source).is_dir()), source)
