"""Converters of other programs' checkpoints; none executes anything from a file."""
