"""Four hospitals with folders of their own, and what reaches them."""

import dataclasses

from click.testing import CliRunner
from deployed import BUNDLE, Wire

from audit.signing_key import load_key
from cli import cli
from clients.encoders import export_features
from securefed.nodes.server import serve
from securefed.nodes.start import StudyStart
from securefed.site.opening import open_site
from securefed.study import read_approval, read_study

NAMES = ("north", "south", "east", "west")


def call(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=True)
    raised = getattr(result.exception, "exit_code", result.exit_code)
    assert raised == code, (result.output, result.exception)
    return result


def feature_file(folder, site, **changes):
    """The features of one hospital alone: no file holds those of two."""
    own = next(s for s in BUNDLE.sites if s.site == site)
    path = folder / f"{site}.safetensors"
    export_features(dataclasses.replace(BUNDLE, sites=(own,), **changes), path)
    return path


class Trial:
    classes, encoder = BUNDLE.classes, ""

    def __init__(self, root, **settings):
        self.root = root
        call("keys", "new", "server", "--folder", root)
        for name in NAMES:
            call("site", "init", self.path(name), "--name", name, "--device", "cpu", *self.place(name))
        publics = [self.path(name) / "identity.pub" for name in NAMES]
        call("keys", "roster", root / "roster.json", "--server", root / "server.pub", *publics)
        self.digest = self.new_study("study.toml", **settings)
        for name in NAMES:
            self.approve(name)
        self.study = read_study(root / "study.toml")
        self.approvals = [read_approval(root / f"{name}.approval.json") for name in NAMES]

    def path(self, name):
        return self.root / "hospitals" / name

    def place(self, name):
        """Return what a hospital types of its data and encoder: features of a site that its data call otherwise."""
        file = feature_file(self.root, f"site{NAMES.index(name)}")
        return "--data", f"features:{file}", "--encoder", f"features:{file}"

    def new_study(self, file, rounds=2, **settings):
        classes = [argument for label in self.classes for argument in ("--class", label)]
        encoder = self.encoder or f"features:{self.root / 'site0.safetensors'}"
        values = [word for key, value in settings.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
        result = call("study", "init", self.root / file, "--roster", self.root / "roster.json", "--name", "trees",
                      *classes, "--encoder", encoder, "--rounds", rounds, *values)  # fmt: skip
        return result.stdout.strip().splitlines()[-1]

    def approve(self, name, file="study.toml", digest=None, code=0):
        output = self.root / f"{name}.approval.json"
        return call("site", "approve", self.path(name), self.root / file, "--digest", digest or self.digest,
                    "--output", output, code=code)  # fmt: skip

    def serve(self, run, wire, study=None):
        key = load_key(self.root / "server.key")
        return serve(StudyStart(study or self.study, self.approvals, key), self.root / run, wire)


class Folders:
    """What a wire reaches: the nodes of the hospitals' folders, opened where they are asked."""

    def __init__(self, trial):
        self.trial, self.nodes = trial, {name: open_site(trial.path(name)) for name in NAMES}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes.values():
            node.close()


class FolderWire(Wire):
    def nodes(self):
        return NAMES
