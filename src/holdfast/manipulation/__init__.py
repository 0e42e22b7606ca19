"""Attacks on explanations: change the map, keep the prediction."""

from holdfast.manipulation.ensemble import Ensemble, EnsembleOutcome
from holdfast.manipulation.mass_centre import MassCentre
from holdfast.manipulation.random_search import RandomSearch
from holdfast.manipulation.random_sign import RandomSign
from holdfast.manipulation.rank import RankCorrelation
from holdfast.manipulation.targeted import Targeted
from holdfast.manipulation.top_k import TopK
from holdfast.manipulation.trust import Trust, check, doubts, trust_figures

__all__ = [
    "Ensemble",
    "EnsembleOutcome",
    "MassCentre",
    "RandomSearch",
    "RandomSign",
    "RankCorrelation",
    "Targeted",
    "TopK",
    "Trust",
    "check",
    "doubts",
    "trust_figures",
]
