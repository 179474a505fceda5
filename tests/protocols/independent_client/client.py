"""A second client, written from protocols/SPEC.md alone: complete graph, active adversary, pure Python, slow.

It imports nothing of this project. It checks what it needs to take part and stops where something is wrong; it is no
replacement for the real client.
"""

import hashlib
import hmac
import itertools
import os
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

P = 2**31 - 1


def label(use):
    text = b"securefed/secagg/v1/" + use.encode("ascii")
    return bytes([len(text)]) + text


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def u16(value):
    return value.to_bytes(2, "little")


def u32(value):
    return value.to_bytes(4, "little")


def hkdf(ikm, salt, info):
    """RFC 5869 with SHA-256 and one block of output."""
    extracted = hmac.new(salt, ikm, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


class Body:
    """Reads from front to back."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        assert self.at + length <= len(self.data), "truncated"
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "little")

    def positions(self):
        found = [self.number(2) for _ in range(self.number(2))]
        assert all(a < b for a, b in itertools.pairwise(found)), "not ascending"
        return found

    def end(self):
        assert self.at == len(self.data), "left over"


class Parameters:
    """Section 4."""

    def __init__(self, data):
        body = Body(data)
        self.threat_model, self.round = body.number(1), body.number(4)
        self.neighbours, self.threshold = body.number(2), body.number(2)
        self.corrupt, self.min_survivors = body.number(2), body.number(2)
        self.ring_bits, self.length = body.number(1), body.number(4)
        self.max_coordinate, self.noise_tail = body.number(8), body.number(8)
        self.roster, self.config, self.encoding = body.take(32), body.take(32), body.take(32)
        self.cohort = body.positions()
        body.end()
        n = len(self.cohort)
        assert self.threat_model == 1, "active only"
        assert self.neighbours == n - 1, "complete graphs only"
        assert 3 <= self.threshold <= n
        assert 2 * self.threshold > n + self.corrupt
        assert self.corrupt >= n // 5
        assert max(self.corrupt + 3, self.threshold) <= self.min_survivors <= n
        assert n * self.max_coordinate + 2 * self.noise_tail < 2**self.ring_bits


class IndependentClient:
    """One client over several rounds.

    Args:
        name: Its name in the roster.
        identity: 32 bytes, its Ed25519 private key.
        roster: {name: 32-byte public key}.
        vector: round number -> list of integers, the encoded contribution.
    """

    def __init__(self, name, identity, roster, vector):
        self.identity = Ed25519PrivateKey.from_private_bytes(identity)
        self.names = sorted(roster)
        self.keys = [roster[member] for member in self.names]
        self.place = self.names.index(name)
        self.vector = vector
        self.last_round = -1
        self.roster_digest = sha256(
            label("roster"),
            u32(len(roster)),
            *(bytes([len(m.encode())]) + m.encode() + roster[m] for m in self.names),
        )

    def answer(self, stage, data):
        magic, version, kind, number, session, length = struct.unpack("<2sBBI32sI", data[:44])
        assert (magic, version, length) == (b"SF", 1, len(data) - 44)
        body = Body(data[44:])
        handler, expected = {
            "AdvertiseKeys": (self.advertise, 1),
            "ShareKeys": (self.share, 5),
            "MaskedInputCollection": (self.mask, 7),
            "ConsistencyCheck": (self.sign, 9),
            "Unmasking": (self.unmask, 11),
        }[stage]
        assert kind == expected
        if kind != 1:
            assert (number, session) == (self.parameters.round, self.session)
        reply = handler(body, number, session) if kind == 1 else handler(body)
        body.end()
        return b"SF" + bytes([1, kind + 1]) + u32(number) + self.session + u32(len(reply)) + reply

    def advertise(self, body, number, claimed):
        encoded = body.take(body.number(4))
        payload = body.take(body.number(4))
        parameters = Parameters(encoded)
        assert parameters.round == number > self.last_round
        assert parameters.roster == self.roster_digest
        model = sha256(label("payload"), payload)
        self.session = sha256(label("session"), u32(len(encoded)), encoded, model)
        assert self.session == claimed
        self.last_round, self.parameters = number, parameters
        self.me = parameters.cohort.index(self.place)
        self.channel_private, self.mask_private, self.seed = (os.urandom(32) for _ in range(3))
        channel, mask = self.public(self.channel_private), self.public(self.mask_private)
        signature = self.identity.sign(self.advertised(self.me, channel, mask))
        self.own = b"\x01" + channel + mask + signature
        return self.own

    def advertised(self, position, channel, mask):
        return label("advertisement") + self.session + u16(position) + channel + mask

    def share(self, body):
        self.shown = {}
        count, last = body.number(2), -1
        for _ in range(count):
            position = body.number(2)
            assert last < position < len(self.parameters.cohort)
            last = position
            entry = body.take(129)
            assert entry[0] == 1
            key = self.keys[self.parameters.cohort[position]]
            Ed25519PublicKey.from_public_bytes(key).verify(
                entry[65:], self.advertised(position, entry[1:33], entry[33:65])
            )
            self.shown[position] = entry
        assert body.number(2) == 0, "no nonces on a complete graph"
        assert self.shown[self.me] == self.own
        assert len(self.shown) >= self.parameters.min_survivors
        publics = [half for entry in self.shown.values() for half in (entry[1:33], entry[33:65])]
        assert len(set(publics)) == len(publics)
        listed = (u16(p) + u16(len(entry)) + entry for p, entry in sorted(self.shown.items()))
        self.keys_digest = sha256(label("keys"), self.session, u16(len(self.shown)), *listed)
        holders = sorted(self.shown)
        seed_shares, key_shares = self.split(self.seed, holders), self.split(self.mask_private, holders)
        self.own_share = seed_shares[self.me]
        entries = []
        for holder in holders:
            sealed = b""
            if holder != self.me:
                nonce = os.urandom(12)
                plain = seed_shares[holder] + key_shares[holder]
                sealed = nonce + AESGCM(self.channel_key(self.me, holder)).encrypt(
                    nonce, plain, self.associated(self.me, holder)
                )
            commitments = self.committed(self.me, holder, seed_shares[holder], key_shares[holder])
            entries.append(u16(holder) + commitments + bytes([len(sealed)]) + sealed)
        commitment = sha256(label("self-mask-seed"), self.session, u16(self.me), self.seed)
        return commitment + u16(len(entries)) + b"".join(entries)

    def mask(self, body):
        self.shares, self.dealers, unusable = {self.me: (self.own_share, None)}, [], []
        for _ in range(body.number(2)):
            dealer = body.number(2)
            assert dealer in self.shown
            assert dealer not in (self.me, *self.dealers)
            self.dealers.append(dealer)
            commitments = body.take(32)
            sealed = body.take(body.number(1))
            assert len(sealed) == 100
            key = self.channel_key(dealer, self.me)
            plain = AESGCM(key).decrypt(sealed[:12], sealed[12:], self.associated(dealer, self.me))
            shares = plain[:36], plain[36:]
            if self.committed(dealer, self.me, *shares) == commitments:
                self.shares[dealer] = shares
            else:
                unusable.append(dealer)
        assert len(self.dealers) + 1 >= self.parameters.threshold
        bits, length = self.parameters.ring_bits, self.parameters.length
        values = self.vector(self.parameters.round)
        assert len(values) == length
        assert all(0 <= value <= self.parameters.max_coordinate for value in values)
        own_key = hkdf(self.seed, self.keys_digest, label("self-mask") + self.session + u16(self.me))
        total = [value + pad for value, pad in zip(values, self.pad(own_key), strict=True)]
        for peer in self.dealers:
            sign = 1 if peer > self.me else -1
            total = [value + sign * pad for value, pad in zip(total, self.pad(self.pairwise_key(peer)), strict=True)]
        self.seed = self.mask_private = None
        packed = sum((value % 2**bits) << (i * bits) for i, value in enumerate(total))
        vector = packed.to_bytes((length * bits + 7) // 8, "little")
        complaints = u16(len(unusable)) + b"".join(map(u16, unusable))
        return complaints + bytes([bits]) + u32(length) + vector

    def sign(self, body):
        self.survivor_set, self.survivors = self.read_set(body)
        assert self.me in self.survivors
        assert self.survivors <= {self.me, *self.dealers}
        assert len(self.survivors) >= max(self.parameters.min_survivors, self.parameters.threshold)
        return self.identity.sign(self.signed())

    def unmask(self, body):
        again, _ = self.read_set(body)
        assert again == self.survivor_set
        signers = set()
        for _ in range(body.number(2)):
            position = body.number(2)
            assert position in self.survivors
            key = self.keys[self.parameters.cohort[position]]
            Ed25519PublicKey.from_public_bytes(key).verify(body.take(64), self.signed())
            signers.add(position)
        assert len(signers) >= self.parameters.threshold
        chosen = {
            owner: (b"\x01" + pair[0] if owner in self.survivors else b"\x02" + pair[1])
            for owner, pair in self.shares.items()
        }
        self.shares = {}
        return u16(len(chosen)) + b"".join(u16(owner) + chosen[owner] for owner in sorted(chosen))

    def signed(self):
        return label("survivors") + self.session + self.keys_digest + self.survivor_set

    def read_set(self, body):
        n = body.number(2)
        assert n == len(self.parameters.cohort)
        bits = body.take((n + 7) // 8)
        value = int.from_bytes(bits, "little")
        assert value >> n == 0
        return u16(n) + bits, {i for i in range(n) if value >> i & 1}

    def public(self, private):
        return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()

    def agree(self, private, public):
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))

    def channel_key(self, source, destination):
        other = destination if source == self.me else source
        secret = self.agree(self.channel_private, self.shown[other][1:33])
        pair = u16(source) + u16(destination) + self.shown[source][1:33] + self.shown[destination][1:33]
        return hkdf(secret, self.keys_digest, label("channel") + self.session + pair)

    def pairwise_key(self, peer):
        secret = self.agree(self.mask_private, self.shown[peer][33:65])
        low, high = sorted((self.me, peer))
        pair = u16(low) + u16(high) + self.shown[low][33:65] + self.shown[high][33:65]
        return hkdf(secret, self.keys_digest, label("pairwise-mask") + self.session + pair)

    def associated(self, owner, holder):
        return label("sealed-shares") + self.session + u16(owner) + u16(holder)

    def committed(self, owner, holder, seed_share, key_share):
        place = self.session + u16(owner) + u16(holder)
        first = sha256(label("self-mask-share"), place, seed_share)[:16]
        return first + sha256(label("mask-key-share"), place, key_share)[:16]

    def pad(self, key):
        bits, length = self.parameters.ring_bits, self.parameters.length
        lane = 2 if bits <= 16 else 4 if bits <= 32 else 8
        stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(lane * length))
        return [int.from_bytes(stream[i : i + lane], "little") for i in range(0, len(stream), lane)]

    def split(self, secret, holders):
        value = int.from_bytes(secret, "little")
        polynomials = []
        for i in range(9):
            limb = value >> (30 * i) & (2**30 - 1)
            polynomials.append([limb, *(self.element() for _ in range(self.parameters.threshold - 1))])
        return {
            holder: b"".join(
                u32(sum(c * pow(holder + 1, power, P) for power, c in enumerate(polynomial)) % P)
                for polynomial in polynomials
            )
            for holder in holders
        }

    def element(self):
        while True:
            drawn = int.from_bytes(os.urandom(4), "little") & P
            if drawn != P:
                return drawn
