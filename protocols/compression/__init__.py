"""Compressed updates that can be summed under masks: public subspaces, narrow grids, error feedback (SPEC.md here)."""

from protocols.compression.codec import CompressedCodec, Quantised
from protocols.compression.download import Download, PackedStep, Step, decode_download, encode_download
from protocols.compression.feedback import ErrorFeedback
from protocols.compression.parts import Bases, Part
from protocols.compression.replica import DownloadHistory, Replica
from protocols.compression.scheme import Scheme, SchemeKind, parse_scheme
from protocols.compression.state import CompressionState

__all__ = [
    "Bases",
    "CompressedCodec",
    "CompressionState",
    "Download",
    "DownloadHistory",
    "ErrorFeedback",
    "PackedStep",
    "Part",
    "Quantised",
    "Replica",
    "Scheme",
    "SchemeKind",
    "Step",
    "decode_download",
    "encode_download",
    "parse_scheme",
]
