"""`encode`: run the frozen encoder once, for the cache and for export."""

import json
from pathlib import Path
from typing import Any

import click

from securefed.commands.console import ConsoleObserver
from securefed.commands.options import (
    DATA_FLAGS,
    cache_option,
    config_option,
    data_options,
    json_option,
    resolve_config,
)
from securefed.commands.paths import PATH


@click.command("encode", short_help="Fill the feature cache and export features.")
@data_options
@click.option("--device", metavar="NAME", help="auto, cpu or cuda. [auto]")
@click.option("--export", type=PATH, metavar="FILE", help="Write features as .safetensors or .npz.")
@cache_option
@config_option
@click.option("--quiet", is_flag=True, help="No progress on stderr; warnings stay.")
@json_option
def command(
    *,
    export: Path | None,
    cache_dir: Path | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Compute the features of all images once and keep them in the cache; a later run encodes nothing.

    With --export the features also go to one file, which --encoder features:FILE reads.
    """
    from clients.encoders import export_features
    from securefed.preparation import encode_sites, load_sites, resolve_device

    names = {**DATA_FLAGS, "device": "federation.device"}
    config = resolve_config(flags, names, config_file, assignments)
    device = resolve_device(config.federation.device)
    with ConsoleObserver(quiet=quiet) as observer:
        dataset, warnings = load_sites(config.data, config.federation.seed)
        for warning in warnings:
            observer.warned(warning.in_full)
        bundle = encode_sites(config, dataset, device, cache_dir, observer)
    if export is not None:
        export_features(bundle, export)
    rate = bundle.images_encoded / bundle.encode_seconds if bundle.images_encoded and bundle.encode_seconds else None
    report = {
        "encoder": bundle.encoder_name,
        "encoder_digest": bundle.encoder_digest,
        "embed_dim": bundle.embed_dim,
        "classes": list(bundle.classes),
        "images_encoded": bundle.images_encoded,
        "cache_hits": bundle.cache_hits,
        "images_per_second": rate,
        "seconds": bundle.encode_seconds,
        "export": str(export) if export else None,
    }
    if as_json:
        click.echo(json.dumps(report))
        return
    speed = f" ({rate:.0f} images/s)" if rate else ""
    click.echo(f"{bundle.images_encoded} images encoded{speed}, {bundle.cache_hits} taken from the cache")
    if export is not None:
        click.echo(f"features: {export}")
