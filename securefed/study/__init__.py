"""The study: what all parties agree to before the first round; one file that every hospital signs (docs/study.md)."""

from securefed.study.approval import Approval, approve, read_approval
from securefed.study.form import FORMAT, Study, new_study, read_study

__all__ = ["FORMAT", "Approval", "Study", "approve", "new_study", "read_approval", "read_study"]
