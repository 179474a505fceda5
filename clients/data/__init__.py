"""Data sets: what a hospital's images are, what is wrong with them, and how they are divided."""

from clients.data.checks import check_dataset
from clients.data.dataset import SPLITS, ImageDataset, ImageSource, Record
from clients.data.errors import (
    BrokenImageError,
    ColumnError,
    ConflictError,
    DataError,
    EmptyDataError,
    FindingError,
    MissingDependencyError,
    OneClassError,
    PartitionError,
    SiteError,
    SourceFormatError,
    SourceNotFoundError,
    UnknownSplitError,
)
from clients.data.findings import DataWarning
from clients.data.fingerprint import fingerprint, patient_grouping
from clients.data.load import load_dataset
from clients.data.options import DataOptions
from clients.data.partition import partition
from clients.data.report import DataReport, SiteReport, inspect

__all__ = [
    "SPLITS",
    "BrokenImageError",
    "ColumnError",
    "ConflictError",
    "DataError",
    "DataOptions",
    "DataReport",
    "DataWarning",
    "EmptyDataError",
    "FindingError",
    "ImageDataset",
    "ImageSource",
    "MissingDependencyError",
    "OneClassError",
    "PartitionError",
    "Record",
    "SiteError",
    "SiteReport",
    "SourceFormatError",
    "SourceNotFoundError",
    "UnknownSplitError",
    "check_dataset",
    "fingerprint",
    "inspect",
    "load_dataset",
    "partition",
    "patient_grouping",
]
