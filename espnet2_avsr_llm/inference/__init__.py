"""Decoding: from inputs to n-best text."""
