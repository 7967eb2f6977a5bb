"""LLM-based audio-visual speech recognition as an ESPnet2 plugin."""

__version__ = "0.1.0"
