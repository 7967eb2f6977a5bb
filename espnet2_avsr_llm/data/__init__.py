"""Data: media files, augmentation, data sets and batches."""

SAMPLE_RATE = 16000  # of all sound, in Hz
FPS = 25  # of all video
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
INPUTS_PER_SECOND = {"speech": SAMPLE_RATE, "video": FPS}
MISSING = "-"  # in wav.scp or video.scp: this utterance has no sound, or no video
