"""What is said where a package is not installed; imports nothing, as any other may be the missing one."""

_OWN = ("cli", "securefed", "clients", "protocols", "audit")


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Return in one line which module of others is not installed, and the next step; None where it is one of ours."""
    name = (error.name or "").partition(".")[0]
    if not name or name in _OWN:
        return None
    return (
        f"the Python module {name} is not installed; run pip install . in the checkout of SecureFed, or install what "
        "docs/audit.md names where only audits are run"
    )
