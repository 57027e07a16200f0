"""Named options that configurations and modules share."""

from typing import Literal

Activation = Literal["leaky_relu", "swish"]  # inside a skip-layer excitation
Adjacency = Literal["soft", "binary"]  # of a graph convolution
BackboneName = Literal["lite0", "lite1", "squeezenet"]
FeatureName = Literal["inception", "squeezenet", "offline"]  # networks that scores are measured with
Merge = Literal["concat", "gated", "sum"]  # of a map and its long-range maps
NodeFeatures = Literal["conv", "diag"]  # of a graph convolution
Penalty = Literal["exact", "finite-difference"]
Relation = Literal["matmul", "pairwise"]  # of a long-range module
TaskName = Literal["contrastive", "aspect-ratio", "rotation"]  # of a critic on real samples
