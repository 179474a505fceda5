"""Where an encoder's files are on this machine, and fetching them when they are not."""

import os
import socket
import urllib.parse
import urllib.request
from pathlib import Path

from clients.encoders.errors import InvalidEncoderError, WeightsMissingError
from clients.encoders.spec import EncoderSpec

_ANSWER_SECONDS = 10.0
_HUB_CONFIG = "open_clip_config.json"
_HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pth"})


def local_files(spec: EncoderSpec) -> tuple[Path, ...] | None:
    """Return the files that an encoder is loaded from, without network; None where they are not all here.

    Raises:
        InvalidEncoderError: A local folder has no weights.
    """
    if spec.path is not None:
        return _folder_files(spec)
    if spec.kind == "hub":
        config = _cached_on_hub(spec.model.removeprefix("hf-hub:"), (_HUB_CONFIG,))
        weights = _cached_on_hub(spec.model.removeprefix("hf-hub:"), _HUB_WEIGHTS)
        return None if config is None or weights is None else (config, weights)
    return _pretrained_files(spec)


def fetch_files(spec: EncoderSpec) -> None:
    """Make sure that an encoder's files are on this machine, downloading them where that is possible.

    Raises:
        WeightsMissingError: They are not here and cannot be downloaded; the message names the ways out.
    """
    if local_files(spec) is not None:
        return
    from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

    if not _network_answers(spec):
        raise WeightsMissingError(spec.text, "no network", _command(spec), _cache_folder(spec))
    try:
        if spec.kind == "hub":
            name = spec.model.removeprefix("hf-hub:")
            download_pretrained_from_hf(name, filename=_HUB_CONFIG)
            download_pretrained_from_hf(name)
        else:
            download_pretrained(tag_configuration(spec))
    except (OSError, RuntimeError, ValueError) as error:  # open_clip's own, urllib's and the hub's errors
        raise WeightsMissingError(spec.text, _short(error), _command(spec), _cache_folder(spec)) from error


def _folder_files(spec: EncoderSpec) -> tuple[Path, ...]:
    assert spec.path is not None  # noqa: S101 (narrows the type)
    files = tuple(sorted(path for path in spec.path.iterdir() if path.is_file()))
    if not any(path.suffix in _WEIGHT_SUFFIXES for path in files):
        raise InvalidEncoderError(spec.text, "the folder has no weights (.safetensors, .bin or .pth)")
    return files


def _pretrained_files(spec: EncoderSpec) -> tuple[Path, ...] | None:
    configuration = tag_configuration(spec)
    hub = str(configuration.get("hf_hub", ""))
    if hub:
        repository, filename = os.path.split(hub)
        names = (filename.rsplit(".", 1)[0] + ".safetensors", filename) if filename else _HUB_WEIGHTS[1:]
        found = _cached_on_hub(repository, names)
    else:
        found = Path.home() / ".cache" / "clip" / Path(str(configuration.get("url", ""))).name
        found = found if found.is_file() else None
    return None if found is None else (found,)


def _cached_on_hub(repository: str, names: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def tag_configuration(spec: EncoderSpec) -> dict[str, object]:
    """Return what open_clip knows about the weights of a tag: where they are, and mean, std and resizing of images."""
    from open_clip.pretrained import get_pretrained_cfg

    return dict(get_pretrained_cfg(spec.model, spec.pretrained))


def _network_answers(spec: EncoderSpec) -> bool:
    """Ask once, since the hub's client asks for most of a minute before it gives up. A proxy is left to that client."""
    from huggingface_hub import constants

    if urllib.request.getproxies() or constants.HF_HUB_OFFLINE:
        return True
    at_hub = spec.kind == "hub" or tag_configuration(spec).get("hf_hub")
    address = urllib.parse.urlsplit(str(constants.ENDPOINT if at_hub else tag_configuration(spec).get("url", "")))
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=_ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _command(spec: EncoderSpec) -> str:
    if spec.kind == "hub":
        return f"hf download {spec.model.removeprefix('hf-hub:')}"
    hub = str(tag_configuration(spec).get("hf_hub", ""))
    if hub:
        return f"hf download {os.path.split(hub)[0]}"
    return f"python -c \"import open_clip; open_clip.create_model('{spec.model}', pretrained='{spec.pretrained}')\""


def _cache_folder(spec: EncoderSpec) -> str:
    from huggingface_hub import constants

    if spec.kind == "pretrained" and not tag_configuration(spec).get("hf_hub"):
        return str(Path.home() / ".cache" / "clip")
    return str(constants.HF_HUB_CACHE)


def _short(error: BaseException) -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set"
    return " ".join(str(error).split())[:160] or type(error).__name__
