"""Seeing inside a trained model: attention sinks, Shapley values of its input tokens, and the page that shows them."""
