"""Scorers by name."""

from textgym.errors import UnknownNameError
from textgym.reward_modeling.scorers.compact import Compact
from textgym.reward_modeling.scorers.embedding import EmbeddingLinear
from textgym.reward_modeling.scorers.lm_linear import LMLinear
from textgym.reward_modeling.scorers.mlp import MLP
from textgym.reward_modeling.scorers.scorer import Scorer
from textgym.reward_modeling.scorers.tfidf import TfIdf
from textgym.reward_modeling.scorers.transformer import Transformer

SCORERS: dict[str, type[Scorer]] = {scorer.name: scorer for scorer in (TfIdf, Compact, EmbeddingLinear, MLP, LMLinear, Transformer)}


def scorer_class(name: str) -> type[Scorer]:
    """Return the class of a scorer; raises `UnknownNameError`."""
    if name not in SCORERS:
        raise UnknownNameError("scorer", name, SCORERS)
    return SCORERS[name]
