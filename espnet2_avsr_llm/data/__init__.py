"""Data: media files, augmentation, data sets and batches."""

MISSING = "-"  # in wav.scp or video.scp: this utterance has no sound, or no video
