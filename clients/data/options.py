"""How a source of data is to be read."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DataOptions:
    """How a source of data is to be read; the defaults recognise the standard names.

    Attributes:
        path_column: Column of a table with the image path; None recognises `path`. Likewise:
        label_column: Column with the class; None recognises `label`. A column named here outranks the class folders.
        site_column: Column with the hospital; None recognises `site`. Outranks the site folders in the same way.
        patient_column: Column with the patient; None recognises `patient`, `patient_id` and `lesion_id`.
        split_column: Column with train, val or test; None recognises `split` and `suggested_split`.
        global_site: Site that is held out of training: all its images become test images; None for none.
        part: The one site whose images are meant, composed (NFC): of the others none need be here. None for all.
        class_names: Names of the classes 0, 1, ... of a MedMNIST file; () takes the known or numbered names.
        split_shares: Shares of train, val and test where splits are not given; positive, sum 1.
        split_seed: Chooses another division where splits are not given, at least 0.
        fewest_classes: Refuse a data set with fewer; at least 1, which is enough to judge models by.
        strict: Refuse a data set with broken images, missing files, or leaks between splits or sites.
    """

    path_column: str | None = None
    label_column: str | None = None
    site_column: str | None = None
    patient_column: str | None = None
    split_column: str | None = None
    global_site: str | None = None
    part: str | None = None
    class_names: tuple[str, ...] = ()
    split_shares: tuple[float, float, float] = (0.6, 0.2, 0.2)
    split_seed: int = 0
    fewest_classes: int = 2
    strict: bool = False

    def __post_init__(self) -> None:
        if len(self.split_shares) != 3 or not all(0 < share < 1 for share in self.split_shares):
            raise ValueError(f"split_shares {self.split_shares} must be three numbers between 0 and 1")
        if not math.isclose(sum(self.split_shares), 1.0, abs_tol=1e-9):
            raise ValueError(f"split_shares {self.split_shares} must sum to 1")
        if self.split_seed < 0:
            raise ValueError(f"split_seed {self.split_seed} must not be negative")
        if self.fewest_classes < 1:
            raise ValueError(f"fewest_classes {self.fewest_classes} must be at least 1")
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class_names {self.class_names} must differ from each other")


def column_setting(meaning: str, column: str = "") -> str:
    """Return in words where a column is named: in the [data] section of any TOML file; not every command has the flag.

    Args:
        meaning: path, label, site, patient or split.
        column: What to write there; "" leaves it open.
    """
    flag = f"--{meaning}-column {column}".rstrip()
    return f"the setting data.{meaning}_column ({flag} where there is such an option)"
