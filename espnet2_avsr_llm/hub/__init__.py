"""Pretrained parts: where they come from, and how a checkpoint knows them again."""
