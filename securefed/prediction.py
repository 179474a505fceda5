"""What a finished run answers: predictions for single images, metrics on a split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.encoders import EncodeOptions, encode_images
from clients.method.layout import vector_layout
from clients.method.stored import predict_stored
from clients.method.threads import one_thread_each
from securefed.config import load_config
from securefed.errors import ConfigError
from securefed.evaluation import evaluate_site, mean_over_sites, plain_metrics, worst_site
from securefed.model_file import SavedModel, load_model
from securefed.observer import Observer
from securefed.preparation import encode_sites, load_sites, resolve_device
from securefed.run_folder import Arrays, RunFolder

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".dcm")


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
) -> list[Prediction]:
    """Classify images with the models of a run.

    Args:
        run: Folder of a finished run.
        images: Files, or folders in which all images are taken.
        site: Whose MLP joins the FAM; None for the FAM alone.
        encoder: Where the run's encoder is on this machine; None takes the name in the run.
        device: `auto`, `cpu` or `cuda`.
        cache_dir: Folder of the feature cache; None takes the user's.

    Raises:
        ConfigError: The site or an image is not there, or the encoder is not the run's.
        EncoderError, DataError: The encoder or an image cannot be used.
        RunFolderError: The run is not complete.
    """
    folder = RunFolder.open(run)
    model = load_model(folder)
    where = resolve_device(device)
    private = _private_state(folder, model, site)
    name = encoder or model.encoder
    files = _files(images)
    encoded = encode_images([path.absolute() for path in files], name, EncodeOptions(cache_dir=cache_dir, device=where))
    _check_encoder(model, encoded.encoder_digest, name)
    parts = _predict(model, private, encoded.features, where)
    return [
        Prediction(
            str(path),
            {
                part: {label: float(value) for label, value in zip(model.classes, rows[index], strict=True)}
                for part, rows in parts.items()
            },
        )
        for index, path in enumerate(files)
    ]


def evaluate_run(
    run: Path,
    split: str,
    *,
    source: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Return {"split", "sites": {site: {part: metrics}}, "mean", "worst", "global_site"} of a finished run.

    Args:
        run: Folder of a finished run.
        split: `train`, `val` or `test`.
        source: Other data with the same sites and classes; None takes the run's own.
        device: `auto`, `cpu` or `cuda`.
        cache_dir: Folder of the feature cache; None takes the user's.
        observer: Who watches.

    Raises:
        ConfigError: Classes, sites or encoder differ from the run's.
        RunFolderError: The run is not complete.
    """
    folder = RunFolder.open(run)
    model = load_model(folder)
    config = load_config(folder.config, {"data.source": source} if source else None)
    where = resolve_device(device)
    dataset, _ = load_sites(config.data, config.federation.seed)
    if tuple(dataset.classes) != model.classes:
        raise ConfigError("--data", f"has the classes {', '.join(dataset.classes)}, not those of the run")
    unknown = [site for site in dataset.sites if site not in model.sites]
    if unknown:
        raise ConfigError(
            "--data" if source else "data.source",
            f"has the sites {', '.join(unknown)}, which are not in this run; its sites are {', '.join(model.sites)}",
        )
    bundle = encode_sites(config, dataset, where, cache_dir, observer or Observer())
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
    }
    held_out = bundle.global_site
    if held_out is not None and split == "test":
        evaluation = evaluate_site(
            held_out.site, _predict(model, {}, held_out.test.features, where), held_out.test.labels
        )
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
    if site not in model.sites:
        raise ConfigError("--site", f"there is no site {site!r} in this run; its sites are {', '.join(model.sites)}")
    path = folder.site(site) / "mlp.safetensors"
    if not path.exists():
        return {}
    return folder.read_arrays(path)


def _check_encoder(model: SavedModel, digest: str, name: str) -> None:
    if digest != model.encoder_digest:
        raise ConfigError(
            "--encoder",
            f"{name} has digest {digest[:12]}, the run was trained with {model.encoder_digest[:12]}; name that encoder",
        )


def _files(images: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in images:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise ConfigError("IMAGES", f"{path} has no image in it")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise ConfigError("IMAGES", f"{path}: no such file or folder; check the path")
    return files
