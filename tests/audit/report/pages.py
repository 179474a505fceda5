"""Pages as a reader sees them, runs that record all that a run can, and what a report says of them."""

import json
import re
import shutil
from html.parser import HTMLParser

from audit.canonical import decode_canonical, encode_canonical
from tests.audit.runs import SITES, Run, rechained, round_fields, signed_again

VOID = {"meta", "line", "rect", "circle", "polyline", "br"}


class Page(HTMLParser):
    """Collects what a test asks of a page; refuses tags that do not nest."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.numbers, self.ids, self.links, self.headings, self.text = [], [], [], [], [], []
        self._open = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "data":
            self.numbers.append(float(given["value"]))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in given:
            self.ids.append(given["id"])
        if "href" in given:
            self.links.append(given["href"])

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def verdicts(report):
    return {line["subject"]: line["verdict"] for line in report["verdicts"]}


def edited(folder, kind, edit):
    lines = (folder / "audit.jsonl").read_bytes().splitlines()
    found = [decode_canonical(line) for line in lines]
    for event in found:
        if event["kind"] == kind:
            edit(event)
    for site in SITES:
        shutil.rmtree(folder / "sites" / site, ignore_errors=True)
    signed_again(folder, rechained([encode_canonical(event) for event in found]))


def append_events(run, *events):
    for kind, fields in events:
        run.log.append(kind, fields)


PROTOCOL = {"secure_aggregation": True, "clients": 3, "dimension": 1000, "threat_model": "active"}
PROTOCOL |= {"threshold": 3, "corrupt": 0}


def rich_run(tmp_path):
    """A run with everything that a report can show: purpose, data, protocol, losses, metrics, attacks, refusals."""
    run = Run(tmp_path / "rich", rounds=0, sites=(*SITES, "zenith"), masked=True)
    append_events(
        run,
        ("purpose", {"values": {"purpose": "tumour typing <b>", "necessity": "no other data", "grant": "X-1"}}),
        (
            "data_described",
            {
                "name": "scans",
                "fingerprint": "ab" * 32,
                "sites": [*SITES, "zenith", "east"],
                "held_out_site": "east",
                "classes": ["a", "b|c"],
                "warnings": ["unreadable: 2"],
            },
        ),
        ("encoder_described", {"name": "ViT & co", "digest": "cd" * 32, "embed_dim": 512}),
        ("protocol_described", {**PROTOCOL, "clients": 4, "ring_bits": 18, "values": {"neighbours": 2}}),
    )
    run.round(1)
    run.start(2)
    lost = {**round_fields(2, run.sites), "dropouts": {"west": "Unmasking"}}
    run.log.append("round_completed", lost)
    values = {site: {"ensemble": {"accuracy": 0.5 + 0.1 * place, "ece": 0.1}} for place, site in enumerate(SITES)}
    values["east"] = {"ensemble": {"accuracy": 0.125, "ece": 0.9}}
    append_events(
        run,
        ("evaluation", {"round": 2, "split": "test", "leaves_hospital": False, "values": values}),
        ("refused", {"what": "r3", "reason": "budget", "hospital": "north", "budget": 3}),
    )
    folder = run.complete(2)
    lines = (folder / "audit.jsonl").read_bytes().splitlines()
    moment = json.loads(lines[-1])["time"]
    attack = {"kind": "attack", "time": moment, "name": "inversion", "setting": "masked", "outcome": "PASS"}
    values = {"values": {"cosine": 0.01, "tried": 32}}
    lines = rechained([*lines, encode_canonical({**attack, **values})])
    (folder / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder
