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
    """A folder as seen from the configuration's folder or one above it; else from here; else there by the end of its path (two names or more).

    Packed models are unpacked elsewhere, and converted experiments, which hold their sources, may be moved.
    """
    above, names = config_file.resolve().parents, Path(source).parts
    ends = [Path(*names[i:]) for i in range(1, len(names) - 1)]
    candidates = [*(folder / source for folder in above), Path(source), *(folder / end for folder in above for end in ends)]
    return next((str(folder) for folder in candidates if folder.is_dir()), source)
