"""Attacks on explanations: change the map, keep the prediction."""

from holdfast.manipulation.top_k import TopK

__all__ = ["TopK"]
