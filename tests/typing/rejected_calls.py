"""Calls that the type checker must reject: each marked line misuses a secret, a share or a vector."""

import numpy as np

from protocols.commitments import commit_to_seed, commit_to_share
from protocols.key_agreement import AgreementKey, self_mask_key
from protocols.masking import RunningSum, mask
from protocols.messages import UnmaskingReply
from protocols.pads import Pad
from protocols.roster import IdentityKey, IdentitySeed
from protocols.sealing import seal_shares
from protocols.secret_values import (
    ChannelKey,
    MaskKey,
    MaskKeyShare,
    PairwiseSeed,
    SealingKey,
    SelfMaskSeed,
    SelfMaskShare,
)
from protocols.session import SessionKeys
from protocols.vectors import Aggregate, EncodedVector, MaskedVector

session = SessionKeys(bytes(32), bytes(32))
self_mask_share, mask_key_share = SelfMaskShare(bytes(36)), MaskKeyShare(bytes(36))
encoded = EncodedVector(np.zeros(3, np.uint32), 1)
aggregate = Aggregate(np.zeros(3, np.uint32), 8, 3)

self_mask_key(PairwiseSeed(bytes(32)), session, 1)  # reject: a pairwise seed is no self-mask seed
commit_to_seed(MaskKey(bytes(32)), bytes(32), 1)  # reject: a mask key is no self-mask seed
commit_to_share(SelfMaskSeed(bytes(32)), bytes(32), 1, 2)  # reject: a seed is no share
AgreementKey(SelfMaskSeed(bytes(32)))  # reject: a seed is no key pair
Pad(SelfMaskSeed(bytes(32)), negative=False)  # reject: a seed is no pad key
Pad(SealingKey(bytes(32)), negative=False)  # reject: a sealing key makes no pads
IdentityKey(ChannelKey(bytes(32)))  # reject: a round key is no identity
IdentityKey(bytes(32))  # reject: bytes are no secret
seal_shares(SealingKey(bytes(32)), (mask_key_share, self_mask_share), b"", 1, 2, lambda n: bytes(n))  # reject: order
seal_shares(PairwiseSeed(bytes(32)), (self_mask_share, mask_key_share), b"", 1, 2, lambda n: bytes(n))  # reject: role
UnmaskingReply({1: (self_mask_share, mask_key_share)})  # reject: both shares of one owner
UnmaskingReply({1: bytes(36)})  # reject: a share without a kind
encoded.encode()  # reject: an encoded vector has no wire format
aggregate.encode()  # reject: an aggregate is no masked vector
RunningSum(3, 8).add(encoded)  # reject: an encoded vector enters no sum
RunningSum(3, 8).add(aggregate)  # reject: an aggregate enters no sum
mask(MaskedVector(np.zeros(3, np.uint32), 8), [], 8)  # reject: masked twice
mask(encoded, [PairwiseSeed(bytes(32))], 8)  # reject: a seed without a sign is no pad
joined = IdentitySeed(bytes(32)) + b""  # reject: secrets are no bytes
