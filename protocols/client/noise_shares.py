"""Seeds of excess noise: a client's own are dealt in shares, others' shares returned for exactly what is removed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from protocols.commitments import commit_to_noise_seed, commit_to_noise_share
from protocols.entropy import Entropy
from protocols.messages.consistency import SurvivorSet
from protocols.messages.noise_shares import DealtNoise
from protocols.parameters import RoundParameters
from protocols.sealing import open_noise_shares, seal_noise_shares
from protocols.secret_values import NoiseSeed, NoiseShare, SealingKey, Secret
from protocols.shamir import split
from protocols.wire import Reader, u8, u16

HeldNoise = Mapping[int, tuple[NoiseShare, ...]]
"""{owner: this holder's share of each of its noise seeds, in the order of the components 1, 2, ...}."""


@dataclass(frozen=True, slots=True)
class OwnNoise:
    """A client's own excess noise, between dealing and masking.

    Attributes:
        seeds: Of the components 1, 2, ...
        shares: Its own share of each.
    """

    seeds: tuple[NoiseSeed, ...] = ()
    shares: tuple[NoiseShare, ...] = ()

    def secrets(self) -> Iterable[Secret]:
        """Return each secret."""
        return (*self.seeds, *self.shares)

    def fields(self) -> bytes:
        """Return the bytes for a dump."""
        seeds, shares = (b"".join(secret.expose() for secret in group) for group in (self.seeds, self.shares))
        return u8(len(self.seeds)) + seeds + shares

    @classmethod
    def read(cls, reader: Reader) -> "OwnNoise":
        """Read what `fields` wrote.

        Raises:
            DecodeError: The bytes are not that.
        """
        count = reader.u8()
        seeds = tuple(NoiseSeed(reader.view(NoiseSeed.length)) for _ in range(count))
        return cls(seeds, tuple(NoiseShare(reader.view(NoiseShare.length)) for _ in range(count)))


@dataclass(slots=True)
class NoiseDealer:
    """Splits a client's noise seeds and seals each holder's shares.

    Args:
        seeds: Of the components 1, 2, ...
        session_id: 32 bytes.
        owner: This client's position.
        entropy: Cryptographic source.

    Attributes:
        own: This client's own shares.
        dealt: {holder: sealed shares} so far.
    """

    seeds: tuple[NoiseSeed, ...]
    session_id: bytes
    owner: int
    entropy: Entropy
    own: tuple[NoiseShare, ...] = ()
    dealt: dict[int, DealtNoise] = field(default_factory=dict)
    _shares: dict[int, tuple[NoiseShare, ...]] = field(default_factory=dict)

    def split(self, holders: list[int], threshold: int) -> None:
        """Split every seed among the holders, at any `threshold` of whom it can be rebuilt."""
        if not self.seeds:
            return
        points = [holder + 1 for holder in holders]
        split_seeds = split([seed.expose() for seed in self.seeds], points, threshold, self.entropy)
        for holder, *raw in zip(holders, *split_seeds, strict=True):
            self._shares[holder] = tuple(NoiseShare(share) for share in raw)

    def undealt(self) -> Iterable[NoiseShare]:
        """Return the shares that are not dealt yet."""
        return [share for shares in self._shares.values() for share in shares]

    def deal(self, holder: int, key: SealingKey | None) -> None:
        """Seal one holder's shares; without a key they are the client's own and stay."""
        if not self.seeds:
            return
        shares = self._shares.pop(holder)
        sealed = b""
        if key is None:
            self.own = shares
        else:
            sealed = seal_noise_shares(key, shares, self.session_id, self.owner, holder, self.entropy)
        self.dealt[holder] = DealtNoise(_commitments(shares, self.session_id, self.owner, holder), sealed)
        if key is not None:
            for share in shares:
                share.erase()

    def seed_commitments(self) -> tuple[bytes, ...]:
        """Return 32 bytes for each component."""
        return tuple(
            commit_to_noise_seed(seed, self.session_id, self.owner, component)
            for component, seed in enumerate(self.seeds, start=1)
        )


def open_noise(
    key: SealingKey, dealt: DealtNoise | None, session_id: bytes, dealer: int, holder: int, components: int
) -> tuple[NoiseShare, ...] | None:
    """Return the shares that a dealer sealed for this holder, or None where they do not open or do not fit."""
    if dealt is None or len(dealt.commitments) != components:
        return None
    shares = open_noise_shares(key, dealt.sealed, session_id, dealer, holder, components)
    if shares is None or _commitments(shares, session_id, dealer, holder) == dealt.commitments:
        return shares
    for share in shares:
        share.erase()
    return None


def return_noise(held: HeldNoise, survivors: SurvivorSet, parameters: RoundParameters) -> HeldNoise:
    """Choose what is removed: of each survivor the components above the number of lost clients.

    With D of n clients lost, components 0 to D stay and add up to the noise that was agreed on. Of lost clients nothing
    is returned: their noise is in no sum.
    """
    lost = parameters.clients - len(survivors.positions)
    return {owner: shares[lost:] for owner, shares in held.items() if owner in survivors.positions}


def noise_fields(held: HeldNoise) -> Iterable[bytes]:
    """Return the bytes for a dump."""
    yield u16(len(held))
    for owner, shares in held.items():
        yield u16(owner) + u8(len(shares)) + b"".join(share.expose() for share in shares)


def read_noise(reader: Reader) -> dict[int, tuple[NoiseShare, ...]]:
    """Read what `noise_fields` wrote.

    Raises:
        DecodeError: The bytes are not that.
    """
    held: dict[int, tuple[NoiseShare, ...]] = {}
    for _ in range(reader.count(3)):
        owner, count = reader.u16(), reader.u8()
        held[owner] = tuple(NoiseShare(reader.view(NoiseShare.length)) for _ in range(count))
    return held


def _commitments(shares: tuple[NoiseShare, ...], session_id: bytes, owner: int, holder: int) -> tuple[bytes, ...]:
    return tuple(
        commit_to_noise_share(share, session_id, owner, holder, component)
        for component, share in enumerate(shares, start=1)
    )
