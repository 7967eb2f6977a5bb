"""Compression in time: features of one stream, fewer but (when stacked) wider."""

from espnet2_avsr_llm.compression.avg_pool import AvgPool
from espnet2_avsr_llm.compression.stack import Stack

COMPRESSIONS = {"stack": Stack, "avg_pool": AvgPool}
