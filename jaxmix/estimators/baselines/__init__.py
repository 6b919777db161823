"""What others would do, for contrast: each is right under an assumption the library can drop.

Difference in means, regression and inverse probability weighting ignore hidden confounding;
clustering needs classes that can be told apart; NN-PARAFAC needs level 2; plain EM needs many
random starts. Where an estimate is not defined (an arm without rows, a propensity of 0 or 1) a
number is NaN, and a law carries NONFINITE.
"""

from jaxmix.estimators.baselines.contrasts import (
    cluster_then_adjust,
    difference_in_means,
    inverse_probability_weighting,
    published_synthetic,
    regression_adjustment,
)
from jaxmix.estimators.baselines.parafac import em, nn_parafac

__all__ = [
    "cluster_then_adjust",
    "difference_in_means",
    "em",
    "inverse_probability_weighting",
    "nn_parafac",
    "published_synthetic",
    "regression_adjustment",
]
