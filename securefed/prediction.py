"""What a finished run answers: predictions for single images, metrics on a split."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data import BrokenImageError
from clients.data.pixels import is_image
from clients.data.rows import composed
from clients.encoders import EncodeOptions, encode_images
from clients.method.layout import vector_layout
from clients.method.stored import predict_stored
from clients.method.threads import one_thread_each
from securefed.errors import ConfigError, RunFolderError
from securefed.evaluated_data import check_same_data, data_to_evaluate
from securefed.evaluation import at_held_out_site, evaluate_site, mean_over_sites, plain_metrics, worst_site
from securefed.model_file import SavedModel, load_model
from securefed.observer import Observer
from securefed.preparation import encode_sites, resolve_device
from securefed.run_folder import Arrays, RunFolder
from securefed.site.results import features_of, kept_settings

_EMPTY = "is empty; name one, or leave the option out"


@dataclass(frozen=True)
class Prediction:
    """Class probabilities of one image.

    Attributes:
        path: The image.
        probabilities: {part: {class: probability}}; the part `ensemble` is the answer.
    """

    path: str
    probabilities: dict[str, dict[str, float]]

    def ranked(self, part: str) -> list[tuple[str, float]]:
        """Return (class, probability), the most probable first."""
        return sorted(self.probabilities[part].items(), key=lambda item: -item[1])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"path": self.path, "class": self.ranked("ensemble")[0][0], "probabilities": self.probabilities}


def predict_images(
    run: Path,
    images: list[Path],
    *,
    site: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    observer: Observer | None = None,
) -> list[Prediction]:
    """Classify images with the models of a run; files and folders that cannot be read are reported and left out.

    Args:
        run: Folder of a finished run.
        images: Files, or folders in which all images are taken but hidden ones.
        site: Whose own model answers, beside the FAM where there is one; None for the FAM alone (for a run of
            `zero-shot`: the encoder).
        encoder: Where the run's encoder is on this machine; None takes the name in the run, or a hospital's own.
        device: `auto`, `cpu` or `cuda`.
        cache_dir: Folder of the feature cache; None takes the user's, for a hospital of a deployment the hospital's.
        observer: Who watches; told of every file and folder that is left out.

    Raises:
        ConfigError: The site or an image is not there, the encoder is not the run's or empty, or without a site a run
            that shares nothing, or a site without a model of its own.
        EncoderError: The encoder cannot be used.
        BrokenImageError: None of the images can be read.
        RunFolderError: The run is not complete.
    """
    if encoder == "":
        raise ConfigError("--encoder", _EMPTY)
    folder = RunFolder.open(run)
    model = load_model(folder)
    where = resolve_device(device)
    private = _private_state(folder, model, site)
    _check_answering(model, private, site)
    settings = kept_settings(folder)
    name = encoder or (settings.site.encoder if settings else "") or model.encoder
    files, closed = _files(images)
    given = {path.absolute(): path for path in files}
    options = EncodeOptions(cache_dir=cache_dir or features_of(folder), device=where)
    encoded = encode_images([path.absolute() for path in files], name, options, skip_broken=True)
    unread = [BrokenImageError(given[path], reason) for path, reason in encoded.broken]
    if not encoded.paths:
        raise unread[0]
    for text in (*closed, *map(str, unread)):
        (observer or Observer()).warned(text)
    _check_encoder(model, encoded.encoder_digest, name)
    parts = _predict(model, private, encoded.features, where)
    return [
        Prediction(
            str(given[path]),
            {
                part: {label: float(value) for label, value in zip(model.classes, rows[index], strict=True)}
                for part, rows in parts.items()
            },
        )
        for index, path in enumerate(encoded.paths)
    ]


def evaluate_run(
    run: Path,
    split: str,
    *,
    source: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Return {"split", "sites": {site: {part: metrics}}, "mean", "worst", "global_site", "warnings"} of a finished run.

    Args:
        run: Folder of a finished run, or of what a hospital of a deployment has kept of one.
        split: `train`, `val` or `test`.
        source: Other data with classes and sites of the run, of which some may be absent, or with one site where the
            run has dealt such data to clients (securefed.preparation.load_other_sites says to whom an image goes then);
            of a hospital of a deployment, its own site or the one that there is. None takes the run's own.
        encoder: Where the run's encoder is, or a file of its features; None takes the run's own.
        device: `auto`, `cpu` or `cuda`.
        cache_dir: Folder of the feature cache; None takes the user's, for a hospital of a deployment the hospital's.
        observer: Who watches; told of all findings about the data.

    Raises:
        ConfigError: Classes, sites or encoder differ from the run's; or, without `source`, anything of the data.
        DataError: The data cannot be used.
        RunFolderError: The run is not complete.
    """
    if source == "" or encoder == "":
        raise ConfigError("--data" if source == "" else "--encoder", _EMPTY)
    observer = observer or Observer()
    folder = RunFolder.open(run)
    model = load_model(folder)
    where = resolve_device(device)
    config, dataset, told = data_to_evaluate(folder, model, split, source, encoder)
    bundle = encode_sites(config, dataset, where, cache_dir or features_of(folder), observer)
    told += [warning.message for warning in bundle.warnings]
    for text in told:
        observer.warned(text)
    if not source:
        check_same_data(folder, config, bundle)
    _check_encoder(model, bundle.encoder_digest, bundle.encoder_name)
    evaluations = []
    for features in bundle.sites:
        rows = features.split(split)
        if rows.labels.size:
            private = _private_state(folder, model, features.site)
            parts = _predict(model, private, rows.features, where)
            evaluations.append(evaluate_site(features.site, parts, rows.labels))
    if not evaluations:
        raise ConfigError("--split", f"no site has {split} images")
    result: dict[str, Any] = {
        "split": split,
        "sites": {evaluation.site: plain_metrics(evaluation.metrics) for evaluation in evaluations},
        "mean": mean_over_sites(evaluations),
        "worst": worst_site(evaluations),
        "global_site": None,
        "warnings": told,
    }
    held_out = bundle.global_site
    if held_out is not None and split == "test":
        parts = _predict(model, {}, held_out.test.features, where)
        named = at_held_out_site(parts, model.method, shares=bool(model.vector.size))
        evaluation = evaluate_site(held_out.site, named, held_out.test.labels)
        result["global_site"] = {"site": held_out.site, **plain_metrics(evaluation.metrics)}
    return result


def _predict(
    model: SavedModel, private: Arrays, features: NDArray[np.float32], device: str
) -> dict[str, NDArray[np.float32]]:
    vector, method = model.vector, model.method
    if not private and vector.size:
        layout = vector_layout(model.text_features.shape[1], model.settings, "fedclip")
        vector, method = vector[: sum(int(np.prod(shape)) for _, shape in layout)], "fedclip"
    with one_thread_each():
        return predict_stored(
            vector, private, features, model.text_features, model.logit_scale, model.settings, method, device
        )


def _private_state(folder: RunFolder, model: SavedModel, site: str | None) -> Arrays:
    if site is None:
        return {}
    site = site if site in model.sites else composed(site)
    if site not in model.sites:
        raise ConfigError("--site", f"there is no site {site!r} in this run; its sites are {', '.join(model.sites)}")
    path = folder.site(site) / "mlp.safetensors"
    try:
        path.stat()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunFolderError(path, f"cannot be read ({error.strerror}); get access for this user") from error
    return folder.read_arrays(path)


def _check_answering(model: SavedModel, private: Arrays, site: str | None) -> None:
    """Refuse to give out the bare encoder's answers as those of a run that has trained."""
    if private or model.vector.size or model.method == "zero-shot":
        return
    if site is None:
        raise ConfigError(
            "--site", f"hospitals of {model.method} share no model; name whose answers: {', '.join(model.sites)}"
        )
    raise ConfigError("--site", f"{site} has no model of its own in this run (mlp.safetensors); name another site")


def _check_encoder(model: SavedModel, digest: str, name: str) -> None:
    if digest == model.encoder_digest:
        return
    told = f"{name} has digest {digest[:12]}, the run was trained with {model.encoder_digest[:12]}; name that encoder"
    if model.encoder.startswith("features:"):
        told += (
            f". The digest is from {model.encoder}: if nobody wrote an encoder_digest into that file, the run cannot "
            "predict images; evaluate it with --data features:FILE, or write the digest (encode --json) and train anew"
        )
    raise ConfigError("--encoder", told)


def _files(images: list[Path]) -> tuple[list[Path], list[str]]:
    """Return the files, those of folders included, and of every folder that cannot be read a line that says so."""
    files: list[Path] = []
    closed: list[str] = []
    for path in images:
        if os.path.isdir(path):  # noqa: PTH112 (false also where the system refuses to say)
            found, refused = _images_below(path)
            closed += [f"{error.filename}: the folder cannot be read ({error.strerror})" for error in refused]
            if not found:
                raise ConfigError("IMAGES", f"{path} has no image in it{' that can be read' if refused else ''}")
            files += found
        elif os.path.isfile(path):  # noqa: PTH113
            files.append(path)
        else:
            raise ConfigError("IMAGES", f"{path}: no such file or folder; check the path")
    return files, closed


def _images_below(folder: Path) -> tuple[list[Path], list[OSError]]:
    """Return what is an image and neither hidden nor in a hidden folder, and what could not be listed."""
    found: list[Path] = []
    refused: list[OSError] = []
    for where, folders, names in os.walk(folder, onerror=refused.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [Path(where) / name for name in names if not name.startswith(".")]
        found += [file for file in files if is_image(file)]
    return sorted(found), refused
