"""Rounds against the reference implementation's own loop (github.com/AIPMLab/FedMedCLIP), one thread.

Its classes and functions are taken from a checkout as they are (training, masked layers, MLP, exchange in float16 and
zlib); around them stands only what replaces its data loading: cached features, or with --data decoding and encoding of
every image in every round, as published. Not counted for it: its validation. Counted for us: training, scoring,
validation, secure aggregation.

python benchmarks/speed_reference.py --checkout PATH [--data PATH --encoder NAME]
"""

import argparse
import ast
import copy
import io
import json
import math
import statistics
import struct
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from speed_cohort import cohort, federation, machine  # noqa: E402
from speed_report import add  # noqa: E402
from torch import nn  # noqa: E402

BATCH = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--images", type=int, nargs="+", default=[160, 640], help="training images a site")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--data")
    parser.add_argument("--encoder")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reference = borrowed(arguments.checkout)
    results = []
    for images in arguments.images:
        bundle = cohort([images] * arguments.sites, [64] * arguments.sites, [64] * arguments.sites)
        theirs = [Site(reference, site, bundle, number) for number, site in enumerate(bundle.sites)]
        their_round(reference, theirs)
        seconds = {name: in_turns(bundle, name, arguments.rounds, reference, theirs) for name in ("paper", "default")}
        results.append(
            {
                "machine": machine(),
                "sites": arguments.sites,
                "images": images,
                "reference_s": {name: statistics.median(t for t, _ in turns) for name, turns in seconds.items()},
                "ours_s": {name: statistics.median(o for _, o in turns) for name, turns in seconds.items()},
                "ratio": {name: statistics.median(t / o for t, o in turns) for name, turns in seconds.items()},
            }
        )
        print(json.dumps(results[-1]))
    result = results[-1]
    if arguments.data:
        result["encode_ms"] = encode_ms(arguments.data, arguments.encoder)
        result["data"], result["encoder"] = Path(arguments.data).name, arguments.encoder.rsplit("/", 1)[-1]
    add(arguments.output, {"reference": results}, "python benchmarks/speed_reference.py --checkout PATH ...")


def borrowed(checkout):
    """The reference's own code, without the modules that it imports for other methods."""
    names = {
        "nets/models.py": {"BinaryStep", "MaskedMLP", "MLP", "print_layer_keep_ratio"},
        "utils/clip_util.py": {
            "compress_model", "decompress_model", "crkd_loss", "AverageMeter", "LinearDiscriminantLoss",
        },
        "utils/training.py": {"train", "totrain", "totrainMLP", "calculate_entropy_single"},
    }  # fmt: skip
    space = {
        "torch": torch, "nn": nn, "F": F, "math": math, "io": io, "struct": struct, "zlib": zlib, "np": np,
        "copy": copy, "KLDivLoss": nn.KLDivLoss, "tqdm": lambda items: items, "print": lambda *_: None,
        "clu": SimpleNamespace(get_text_features_list=lambda _, model: model.text_features.clone()),
    }  # fmt: skip
    for path, wanted in names.items():
        tree = ast.parse((checkout / path).read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if getattr(node, "name", None) in wanted]
        missing = wanted - {node.name for node in tree.body}
        if missing:
            raise SystemExit(f"{path} of the checkout has no {', '.join(sorted(missing))}")
        exec(compile(tree, path, "exec"), space)
    return SimpleNamespace(**{name: space[name] for wanted in names.values() for name in wanted})


class Encoder(nn.Module):
    """Stands for CLIP: features are looked up."""

    def __init__(self, text_features, logit_scale):
        super().__init__()
        self.text_features = text_features
        self.logit_scale = nn.Parameter(torch.tensor(math.log(logit_scale)), requires_grad=False)

    def encode_image(self, image):
        return image

    def encode_text(self, text):
        return self.text_features[text]


class Site:
    """One client of the reference: encoder, attention (its FAM), MLP, loader."""

    def __init__(self, reference, site, bundle, seed):
        torch.manual_seed(seed)
        width, text = bundle.embed_dim, torch.from_numpy(bundle.text_features)
        self.model = SimpleNamespace(
            model=Encoder(text, bundle.logit_scale),
            labels=bundle.classes,
            fea_attn=nn.Sequential(
                reference.MaskedMLP(width, width), nn.InstanceNorm1d(width), nn.ReLU(),
                reference.MaskedMLP(width, width), nn.Softmax(dim=1),
            ),
        )  # fmt: skip
        self.template = copy.deepcopy(self.model)  # what the exchange is unpacked into, as there
        self.mlp = reference.MLP(input_size=width, hidden_size=512, num_classes=len(bundle.classes))
        x, y = torch.from_numpy(site.train.features), torch.from_numpy(site.train.labels)
        self.loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x, y, y), batch_size=BATCH, shuffle=True
        )


def their_round(reference, sites):
    """Processor seconds of a round of the reference: training, compression, exchange."""
    start = time.process_time()
    arguments = SimpleNamespace(method="attn_mlp", num_classes=len(sites[0].model.labels), step=0, index=0)
    for site in sites:
        groups = [
            {"params": site.model.fea_attn.parameters(), "lr": 5e-4},
            {"params": site.mlp.parameters(), "lr": 1e-4},
        ]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.02)
        reference.train(arguments, site.model, site.loader, optimizer, "cpu", site.loader, None, None, None, site.mlp)
    with torch.no_grad():
        sent = [reference.compress_model(site.model) for site in sites]
        received = [reference.decompress_model(data, site.template) for data, site in zip(sent, sites, strict=True)]
        states = [model.fea_attn.state_dict() for model in received]
        mean = {name: sum(state[name] for state in states) / len(states) for name in states[0]}
        for model in received:
            model.fea_attn.load_state_dict(mean)
        sent = [reference.compress_model(model) for model in received]
        for data, site in zip(sent, sites, strict=True):
            site.model = reference.decompress_model(data, site.template)
    return time.process_time() - start


def in_turns(bundle, profile, rounds, reference, theirs):
    """[(processor seconds of a round of the reference, of the round of ours before it)], without our first round."""
    from securefed.config import config_from_mapping

    turns = []
    began = time.process_time()

    def finished(_):
        nonlocal began
        ours = time.process_time() - began
        turns.append((their_round(reference, theirs), ours))
        began = time.process_time()

    config = config_from_mapping({"federation": {"rounds": rounds, "device": "cpu"}, "training": {"profile": profile}})
    federation(bundle, config, 1).run(rounds, finished)
    return turns[1:]


def encode_ms(source, encoder_name, images=64):
    """Processor milliseconds of reading, decoding and encoding one image in batches of 32."""
    from clients.data import DataOptions, load_dataset
    from clients.encoders import EncodeOptions
    from clients.encoders.decoding import decoded_batches
    from clients.encoders.session import EncoderSession
    from clients.encoders.spec import parse_encoder

    dataset, _ = load_dataset(source, DataOptions())
    encoder = EncoderSession(parse_encoder(encoder_name), EncodeOptions(device="cpu")).encoder
    paths = [record.path for record in dataset.records[:images]]
    encoder.encode_images(torch.zeros(BATCH, 224, 224, 3, dtype=torch.uint8))
    start = time.process_time()
    for batch in decoded_batches(dataset.source, paths, encoder.resize, BATCH, 0):
        encoder.encode_images(torch.from_numpy(batch.pixels))
    return 1000 * (time.process_time() - start) / images


if __name__ == "__main__":
    main()
