"""What a private step trains, and which of it is clipped together."""

from collections.abc import Iterable, Sequence

from torch import nn

from clients.method.model import HospitalModel
from clients.privacy.settings import PrivacySettings


def trained_parameters(model: HospitalModel, privacy: PrivacySettings) -> list[tuple[str, nn.Parameter]]:
    """Return the named parameters that the private step moves, FAM first: the order in which noise is drawn."""
    parts: list[tuple[str, nn.Module]] = [("fam", model.fam)]
    if privacy.coupling == "joint" and model.mlp is not None:
        parts.append(("mlp", model.mlp))
    return [(f"{part}.{name}", p) for part, m in parts for name, p in m.named_parameters() if p.requires_grad]


def group_names(names: Iterable[str], clip_norms: Sequence[float]) -> tuple[tuple[str, ...], ...]:
    """Return the names of what each clip norm is for: all of it, or the FAM and the MLP."""
    names = tuple(names)
    if len(clip_norms) == 1:
        return (names,)
    return tuple(tuple(name for name in names if name.startswith(part)) for part in ("fam.", "mlp."))
