"""The folder of a hospital's own files in a run folder: what writes a run and what verifies it name it alike."""

import hashlib
import re


def site_folder_name(name: str) -> str:
    """Return the name of a hospital's folder within `sites/` (SPEC.md).

    A name of at most 80 of the characters A-Z, a-z, 0-9, ".", "_" and "-", of which "." and "-" neither begin nor end
    it, stays as it is. Any other one has the rest replaced and carries a digest of itself: no two share a folder.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    return plain if plain == name else f"{plain or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
