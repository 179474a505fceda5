"""What a caller of the federation may have to react to.

SecureFedError
    ConfigError          the configuration cannot be meant: fix it (exit code 2)
    RunFolderError       the results cannot be written or read where asked (exit code 1)
        NoRunFolderError     there is no run where one is named: name another folder (exit code 2)
    TargetEpsilonError   a round would exceed the target epsilon: nothing of it was released (exit code 4)
    ReleaseRefusedError  a site does not make a release that it is asked for; nothing left
        ReleaseGoneError     it was made before and is not kept any more: the site takes part in a later round
    TrainingProcessError a process in which hospitals train has ended or failed; the finished rounds are kept
    DivergedError        what a site has trained predicts nothing finite: lower the learning rates and start anew
    RoundAbortedError    a round ended without opening a sum: too few hospitals were left (exit code 1)
"""

from collections.abc import Collection, Mapping, Sequence

from audit.bounds import LARGEST_CLAIM, at_most


class SecureFedError(Exception):
    """Base of all errors that `securefed` raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(SecureFedError):
    """A configuration key is unknown, out of range or contradicts another; `key` is its dotted name."""

    exit_code = 2

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}" if key else reason)
        self.key = key
        self.reason = reason


class RunFolderError(SecureFedError):
    """A run folder cannot be created, written, read or resumed; `path` is where."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class NoRunFolderError(RunFolderError):
    """A folder that is named as that of a run is none."""

    exit_code = 2

    def __init__(self, path: object, lacks: str = "there is no such folder") -> None:
        super().__init__(path, f"is no run folder ({lacks}); name one that simulate or a deployment has written")


class TargetEpsilonError(SecureFedError):
    """A round was refused before anything of it was released.

    Attributes:
        round_number: The round.
        epsilon: What all releases would cost together with it.
        target: The limit: the target, or LARGEST_CLAIM where no smaller one was set.
    """

    exit_code = 4

    def __init__(self, round_number: int, epsilon: float, target: float, affordable: int) -> None:
        more_noise = "with more noise (leave --noise-multiplier out to have it calibrated)"
        if affordable == 0:
            hint = f"run again {more_noise}, or with a larger --epsilon"
        elif affordable < round_number:
            hint = f"run again with --rounds {affordable}, or {more_noise}"
        else:
            hint = (
                "a round that was begun twice has cost twice; run again with fewer rounds or, with noise in shares, "
                "with --set privacy.spare_rounds=1 or more"
            )
        limit = f"{target:g}, the most that is claimed" if target == LARGEST_CLAIM else f"the target {target:g}"
        super().__init__(
            f"round {round_number} would bring epsilon to {at_most(epsilon)}, above {limit}; nothing of "
            f"it was released. {affordable} rounds fit this noise: {hint}"
        )
        self.round_number = round_number
        self.epsilon = epsilon
        self.target = target


class ReleaseRefusedError(SecureFedError):
    """A site does not make the release that it is asked for."""


class ReleaseGoneError(ReleaseRefusedError):
    """A release was made and can have left, and is not kept any more: made again it would be another one."""

    def __init__(self, round_number: int) -> None:
        super().__init__(
            f"the release of round {round_number} was made before for this model and is not kept any more; with fresh "
            "noise it would be a second release that nobody has paid for. Go on with a later round"
        )
        self.round_number = round_number


class TrainingProcessError(SecureFedError):
    """A process in which hospitals train has ended, or training failed in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}. The finished rounds are kept: go on with simulate --resume and the run's folder (--workers 1 "
            "needs no such process), or start the sweep again"
        )
        self.reason = reason


_LOWER_RATES = "lower training.fam_learning_rate or training.mlp_learning_rate, and start a new run or study"
"""After a divergence: the run is the same each time, so that going on with it leads there again."""


class DivergedError(SecureFedError):
    """Training diverged: what a site's model says is NaN or infinite.

    Attributes:
        sites: Where.
        round_number: After which round; 0 where a finished model is evaluated.
    """

    def __init__(self, sites: Sequence[str], round_number: int = 0) -> None:
        when = f" in round {round_number}" if round_number else ""
        super().__init__(
            f"training diverged at {', '.join(sites)}{when}: the model predicts NaN or infinity; {_LOWER_RATES}"
        )
        self.sites = tuple(sites)
        self.round_number = round_number


class RoundAbortedError(SecureFedError):
    """A round ended without a sum; nothing of anybody's update was revealed.

    Attributes:
        round_number: The round.
        stage: The protocol stage at which it ended.
        cause: Why.
        dropouts: {site: stage} of the sites that were lost.
        byte_rows: Every message that had passed (securefed.run_folder.ByteRow).
        diverged: Those of the sites that refused what they had trained themselves, because it is not finite.
        planned: Those that the run's configuration loses in this round, by name or at random, and would lose again.
        unpaid: Sites that take no part because their privacy budget does not bear it.
        before: Who was in a sum that may have been opened over the same model before; nobody where none was.
        isolating: Sites that refused since they opened a sum over that model and other sites.
    """

    def __init__(
        self,
        round_number: int,
        stage: str,
        cause: str,
        dropouts: Mapping[str, str] | None = None,
        byte_rows: Sequence[object] = (),
        diverged: Sequence[str] = (),
        planned: Collection[str] = (),
        unpaid: Sequence[str] = (),
        before: Collection[str] = (),
        isolating: Collection[str] = (),
    ) -> None:
        self.round_number = round_number
        self.stage = stage
        self.cause = cause
        self.dropouts = dict(dropouts or {})
        self.byte_rows = tuple(byte_rows)
        self.diverged = tuple(diverged)
        self.planned = tuple(planned)
        self.unpaid = tuple(unpaid)
        self.before = tuple(sorted(before))
        self.isolating = tuple(sorted(isolating))
        why = cause.removesuffix(": nothing was revealed")
        super().__init__(f"round {round_number} was aborted and nothing was revealed: {why}. {self._next_step()}")

    def for_want_of_budget(self, unpaid: Sequence[str]) -> "RoundAbortedError":
        """Return the same error, whose message says that these sites cannot pay."""
        lost = self.dropouts, self.byte_rows, self.diverged, self.planned
        return RoundAbortedError(self.round_number, self.stage, self.cause, *lost, unpaid, self.before, self.isolating)

    def _next_step(self) -> str:
        if self.unpaid:
            return (
                f"The finished rounds are kept, but {', '.join(self.unpaid)} cannot pay for another (their refusals "
                "say why), and to bring them back is of no use. A ledger's budget can be renewed by its signer, then "
                "submit; where the study's own epsilon is used up, it cannot go on: make a new one, with noise in "
                "shares with privacy.spare_rounds"
            )
        if self.isolating or self._missing():
            return f"The finished rounds are kept. {self._same_sum()}"
        if set(self.dropouts) - set(self.diverged) - set(self.planned) or not (self.diverged or self.planned):
            return (
                "The finished rounds are kept: bring the lost sites back and go on with simulate --resume, deploy "
                "submit or the same sweep again"
            )
        if self.diverged:
            return f"Training diverged at {', '.join(self.diverged)}, where the update is not finite: {_LOWER_RATES}"
        return (
            "The run itself loses these sites (simulation.drop, or simulation.dropout at random): start a new run that "
            "loses fewer in this round"
        )

    def _missing(self) -> list[str]:
        """Return who was in the earlier sum over the model and was lost in this attempt."""
        return sorted(set(self.before) & set(self.dropouts) - set(self.isolating))

    def _same_sum(self) -> str:
        """What to do where a sum over the same model may have been opened before."""
        if missing := self._missing():
            return (
                f"A sum of this round over {', '.join(self.before)} may have been opened before, and it is "
                "opened over the same hospitals only, since two sums over one model would single the others out: bring "
                f"{', '.join(missing)} back and go on with deploy submit"
            )
        return (
            f"{', '.join(self.isolating)} opened a sum over this model and other hospitals before, and open it over "
            "the same ones only. Their logs name who makes the difference: stop the node of a hospital that was not in "
            "that sum, bring back one that was, and go on with deploy submit"
        )
