"""Frontends: pretrained encoders that turn sound or lips into features of named streams."""

from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend
from espnet2_avsr_llm.frontend.hf_speech import HFSpeechFrontend
from espnet2_avsr_llm.frontend.whisper import WhisperFrontend

FRONTENDS = {"whisper": WhisperFrontend, "hf_speech": HFSpeechFrontend, "avhubert": AVHubertFrontend}
