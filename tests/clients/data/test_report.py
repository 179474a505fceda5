"""What `inspect` counts."""

import json
import struct
import zlib

from clients.data import DataOptions, fingerprint, inspect, load_dataset

LAYOUT = {"north": {"benign": 6, "malignant": 4}, "south": {"benign": 3}}


def test_counts_sizes_and_findings(make_folder, write_csv, draw):
    root = make_folder(LAYOUT)
    draw(99, (20, 30)).save(root / "south" / "benign" / "large.png")
    rows = [
        (path.relative_to(root).as_posix(), f"p{i % 4}", "train") for i, path in enumerate(sorted(root.rglob("*.png")))
    ]
    write_csv(root / "metadata.csv", ("path", "patient", "split"), rows)
    dataset, warnings = load_dataset(str(root), DataOptions(global_site="south"))
    seen = []
    report = inspect(dataset, warnings, lambda done, total: seen.append((done, total)))
    assert report.images == 14
    assert report.image_sizes == {"12x10": 13, "20x30": 1}
    assert report.warnings == warnings
    assert seen[-1] == (14, 14)
    north, south = report.sites
    assert (north.site, north.held_out, north.patients) == ("north", False, 4)
    assert north.counts["train"] == {"benign": 6, "malignant": 4}
    assert south.held_out
    assert south.counts["test"] == {"benign": 4, "malignant": 0}
    assert south.fingerprint == fingerprint(dataset, "south")
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_an_image_that_breaks_only_when_decoded_is_found(make_folder, draw):
    root = make_folder(LAYOUT)
    path = root / "south" / "benign" / "cut.jpg"
    draw(5, (64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-300] + b"\xff\xd9")
    dataset, warnings = load_dataset(str(root))
    assert "broken_image" not in {warning.kind for warning in warnings}
    report = inspect(dataset, warnings)
    truncated = [warning for warning in report.warnings if warning.kind == "broken_image"]
    assert sum(report.image_sizes.values()) + sum(warning.count for warning in truncated) == 14
    assert report.sites[0].patients is None


def test_what_is_counted_is_what_a_run_would_have(make_folder):
    root = make_folder(LAYOUT)
    whole, _ = load_dataset(str(root))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", b"no pixels"), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    (root / "south" / "benign" / "late.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    dataset, warnings = load_dataset(str(root))
    assert len(dataset.records) == 14
    report = inspect(dataset, warnings)
    (broken,) = (warning for warning in report.warnings if warning.kind == "broken_image")
    assert (broken.count, broken.examples) == (1, ("south/benign/late.png",))
    assert "left out" in broken.message
    assert (report.images, report.fingerprint) == (13, fingerprint(whole))
    assert [site.images for site in report.sites] == [10, 3]
