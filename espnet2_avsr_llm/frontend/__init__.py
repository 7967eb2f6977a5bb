"""Frontends: pretrained encoders that turn sound or lips into features of named streams."""

from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend
from espnet2_avsr_llm.frontend.whisper import WhisperFrontend

FRONTENDS = {"whisper": WhisperFrontend, "avhubert": AVHubertFrontend}
