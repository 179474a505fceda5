"""Frozen encoders: from images and class names to features, computed once."""

from clients.encoders.bundle import FeatureBundle, LabelledFeatures, SiteFeatures
from clients.encoders.errors import (
    EncoderError,
    FeatureCacheError,
    FeatureFileError,
    InvalidEncoderError,
    UnknownClassError,
    UnknownEncoderError,
    WeightsMissingError,
)
from clients.encoders.loose import EncodedClasses, EncodedImages, encode_classes, encode_images
from clients.encoders.options import DEFAULT_TEMPLATE, EncodeOptions, default_cache_dir
from clients.encoders.precomputed import export_features, load_features
from clients.encoders.prepare import prepare_features
from clients.encoders.spec import parse_encoder

__all__ = [
    "DEFAULT_TEMPLATE",
    "EncodeOptions",
    "EncodedClasses",
    "EncodedImages",
    "EncoderError",
    "FeatureBundle",
    "FeatureCacheError",
    "FeatureFileError",
    "InvalidEncoderError",
    "LabelledFeatures",
    "SiteFeatures",
    "UnknownClassError",
    "UnknownEncoderError",
    "WeightsMissingError",
    "default_cache_dir",
    "encode_classes",
    "encode_images",
    "export_features",
    "load_features",
    "parse_encoder",
    "prepare_features",
]
