"""A deployment in memory, for tests: the real nodes over a transport that can drop, alter, repeat and restart."""

import dataclasses
import importlib.util
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.heads import Witness
from audit.roster import Roster, public_hex
from audit.verify import verify_run
from clients.data import DataOptions
from clients.encoders import export_features, load_features
from protocols.roster import IdentityKey, IdentitySeed
from securefed.config import config_from_mapping
from securefed.nodes.hospital import SiteHospital
from securefed.nodes.server import serve
from securefed.nodes.site import SiteNode
from securefed.nodes.site_run import Agreement, SiteRun
from securefed.nodes.start import StudyStart
from securefed.study import approve, new_study
from securefed.study.form import with_local
from securefed.sum_terms import SumTerms


def _features():
    """The small federation of tests/securefed, as it is when it has been through a file (rows by path)."""
    path = Path(__file__).parents[1] / "securefed" / "conftest.py"
    spec = importlib.util.spec_from_file_location("small_features", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "five.safetensors"
        export_features(module.bundle(), file)
        return load_features(file, DataOptions())


BUNDLE = _features()
SITES = tuple(site.site for site in BUNDLE.sites)


def key_of(name):
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))


class KilledError(Exception):
    """The process of a node is gone."""


class Wire:
    """A transport whose every request and reply passes `change`, a list of functions that tests append to.

    Each gets (way, stage, site, round_id, frame) and returns the frames that arrive instead; KilledError loses a site.
    """

    def __init__(self, deployment):
        self.deployment, self.change, self.log = deployment, [], []

    def nodes(self):
        return SITES

    def close(self):
        pass

    def exchange(self, stage, requests, *, round_id, patience):
        failures = {}
        return self._replies(stage, requests, round_id, failures), failures

    def _replies(self, stage, requests, round_id, failures):
        for site, request in requests.items():
            try:
                for delivered in self._through("down", stage, site, round_id, request):
                    answer = self.deployment.nodes[site].handle(stage, delivered)
                    for reply in self._through("up", stage, site, round_id, answer):
                        self.log.append((stage, site, round_id, request, reply))
                        yield site, reply
            except KilledError:
                failures[site] = "gone"

    def _through(self, way, stage, site, round_id, frame):
        frames = [frame]
        for change in self.change:
            frames = [passed for each in frames for passed in change(way, stage, site, round_id, each)]
        return frames


class Deployment:
    def __init__(self, tmp_path, name="run", **sections):
        tree = {"federation": {"rounds": 3, "device": "cpu"}}
        for section, values in sections.items():
            tree.setdefault(section, {}).update(values)
        self.config = config_from_mapping(tree)
        self.server_key = key_of("server")
        roster = Roster(public_hex(self.server_key), {site: public_hex(key_of(site)) for site in SITES})
        encoder = (BUNDLE.encoder_name, BUNDLE.encoder_digest, BUNDLE.embed_dim)
        self.study = new_study("trees", BUNDLE.classes, BUNDLE.prompts, encoder, self.config, roster)
        self.approvals = [approve(self.study, site, key_of(site)) for site in SITES]
        self.folder, self.run = tmp_path / name, tmp_path / name / "server"
        self.folder.mkdir()
        self.wire = Wire(self)
        self.terms = SumTerms(
            self.study.config, self.study.protocol_roster, BUNDLE.embed_dim, 3, bytes.fromhex(self.study.digest)
        )
        self.hospitals = {}
        self.nodes = {site: self.open_site(site) for site in SITES}

    def open_site(self, site, state=None, **changes):
        """Return a site's node as its process opens it."""
        folder = self.folder / site
        folder.mkdir(exist_ok=True)
        bundle = dataclasses.replace(BUNDLE, sites=tuple(s for s in BUNDLE.sites if s.site == site))
        hospital = SiteHospital(site, lambda: bundle, with_local(self.study.config, device="cpu"), folder)
        self.hospitals[site] = hospital
        agreement = Agreement(self.study.digest, self.study.roster.digest, "5" * 64)

        def witness(run_id):
            return Witness(site, key_of(site), self.study.roster.server, folder / f"heads-{run_id}.jsonl", run_id)

        def keep(run_id, vector, chosen):
            hospital.keep(run_id, vector, chosen, node.state_after(chosen))

        node = SiteNode(
            IdentityKey(IdentitySeed(key_of(site).private_bytes_raw())),
            self.terms,
            hospital,
            run=SiteRun(changes.get("agreement", agreement), witness, keep),
            private=hospital,
        )
        if state is not None:
            node.load(state)
        return node

    def serve(self, **more):
        return serve(StudyStart(self.study, self.approvals, self.server_key), self.run, self.wire, **more)


def verified(deployed):
    verification = verify_run(deployed.run)
    assert verification.is_verified, verification.failed
