"""Where the two face models are kept, and which bytes they must have."""

import hashlib
import os
from pathlib import Path

WHEEL = "mediapipe==0.10.21"
DETECTOR = "face_detection_short_range.tflite"
MESH = "face_landmark.tflite"

# file name: (member of the wheel, sha256). Apache-2.0, as distributed in WHEEL.
MODELS = {
    DETECTOR: (
        f"mediapipe/modules/face_detection/{DETECTOR}",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    MESH: (
        f"mediapipe/modules/face_landmark/{MESH}",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
}


def model_dir() -> Path:
    """The folder of the models: ``$AVSR_LLM_MODELS``, else ``~/.cache/espnet2_avsr_llm``."""
    return Path(os.environ.get("AVSR_LLM_MODELS") or Path.home() / ".cache" / "espnet2_avsr_llm")


def is_right(name: str, content: bytes) -> bool:
    """Whether ``content`` is that of the model ``name`` (by sha256)."""
    return hashlib.sha256(content).hexdigest() == MODELS[name][1]


def load_model(name: str) -> bytes:
    """Read a model file.

    Raises:
        FileNotFoundError: it was not fetched.
        ValueError: it has other bytes than the published file.
    """
    path = model_dir() / name
    advice = "run: python -m espnet2_avsr_llm.bin.roi_models (stage 0 of a recipe does), or set AVSR_LLM_MODELS"
    if not path.is_file():
        raise FileNotFoundError(f"face model {path} is missing; {advice}")
    content = path.read_bytes()
    if not is_right(name, content):
        raise ValueError(f"face model {path} is not the published file (sha256 differs): {advice}")
    return content
