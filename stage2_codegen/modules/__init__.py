"""Layers that papers describe, one file for each."""

from stage2_codegen.modules.batch_norm import BatchNorm1d, BatchNorm2d
from stage2_codegen.modules.class_scores import ClassScores, last_layer, scored
from stage2_codegen.modules.dense import MapToVector, VectorToMap
from stage2_codegen.modules.giu import GIU
from stage2_codegen.modules.glu import GLU
from stage2_codegen.modules.graph_convolution import GraphConvolution
from stage2_codegen.modules.involution import Involution
from stage2_codegen.modules.long_range import ChannelLongRange, LongRange, SpatialLongRange
from stage2_codegen.modules.non_local import NonLocal
from stage2_codegen.modules.pixel_norm import PixelNorm
from stage2_codegen.modules.representative_batch_norm import RepresentativeBatchNorm2d
from stage2_codegen.modules.residual import ResidualBlock
from stage2_codegen.modules.self_attention import SelfAttention
from stage2_codegen.modules.skip_layer_excitation import SkipLayerExcitation
from stage2_codegen.modules.spectral_norm import shared_weights, spectral_norm
from stage2_codegen.modules.squeeze_excitation import SqueezeExcitation

__all__ = [
    "GIU",
    "GLU",
    "BatchNorm1d",
    "BatchNorm2d",
    "ChannelLongRange",
    "ClassScores",
    "GraphConvolution",
    "Involution",
    "LongRange",
    "MapToVector",
    "NonLocal",
    "PixelNorm",
    "RepresentativeBatchNorm2d",
    "ResidualBlock",
    "SelfAttention",
    "SkipLayerExcitation",
    "SpatialLongRange",
    "SqueezeExcitation",
    "VectorToMap",
    "last_layer",
    "scored",
    "shared_weights",
    "spectral_norm",
]
