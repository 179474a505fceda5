"""What the name of an encoder means."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clients.data.errors import from_here
from clients.encoders.errors import InvalidEncoderError, UnknownEncoderError

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_FORMS = "use MODEL/PRETRAINED (ViT-B-32/openai), hf-hub:ORG/NAME, local-dir:PATH, features:PATH or demo"


@dataclass(frozen=True)
class EncoderSpec:
    """Where an encoder is.

    Attributes:
        text: As the user wrote it.
        kind: `pretrained` (a model and tag of open_clip), `hub`, `folder` (open_clip's local layout) or `features`
            (a file of precomputed features).
        model: Name that open_clip understands; "" for `features`.
        pretrained: Tag of the weights, for `pretrained`.
        path: Folder or file, for `folder` and `features`.
    """

    text: str
    kind: Literal["pretrained", "hub", "folder", "features"]
    model: str
    pretrained: str | None = None
    path: Path | None = None


def parse_encoder(text: str) -> EncoderSpec:
    """Read the name of an encoder.

    Raises:
        UnknownEncoderError: There is no such model or tag; the message lists near matches.
        InvalidEncoderError: The name's form is right and what it points to is not there.
    """
    prefix, _, rest = text.partition(":")
    if text == "demo":
        return _folder(text, _demo_folder())
    if prefix == "local-dir" and rest:
        return _folder(text, Path(rest).expanduser())
    if prefix == "features" and rest:
        path = Path(rest).expanduser()
        if not path.is_file():
            raise InvalidEncoderError(text, f"there is no such file{from_here(path)}; check the path")
        return EncoderSpec(text, "features", "", path=path)
    if prefix == "hf-hub" and rest:
        if not _HUB_NAME.fullmatch(rest):
            raise UnknownEncoderError(text, "write hf-hub:ORG/NAME")
        return EncoderSpec(text, "hub", f"hf-hub:{rest}")
    return _pretrained(text)


def _folder(text: str, path: Path) -> EncoderSpec:
    if not path.is_dir():
        raise InvalidEncoderError(text, f"there is no such folder{from_here(path)}; check the path")
    if not (path / "open_clip_config.json").is_file():
        raise InvalidEncoderError(text, "the folder has no open_clip_config.json; it must be in open_clip's layout")
    return EncoderSpec(text, "folder", f"local-dir:{path}", path=path)


def _demo_folder() -> Path:
    from clients.demo import encoder_dir

    return encoder_dir()


def _pretrained(text: str) -> EncoderSpec:
    import open_clip

    model, separator, tag = text.rpartition("/")
    if not separator:
        model, tag = text, ""
    known = open_clip.list_models()
    if model not in known:
        by_lower_case = {name.lower(): name for name in known}
        close = difflib.get_close_matches(model.lower(), by_lower_case, n=4, cutoff=0.5)
        raise UnknownEncoderError(text, f"there is no such model; {_FORMS}", [by_lower_case[name] for name in close])
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tag:
        raise UnknownEncoderError(text, "name its weights too", [f"{model}/{name}" for name in tags[:6]])
    if tag not in tags:
        close = difflib.get_close_matches(tag, tags, n=4, cutoff=0.3) or tags[:6]
        raise UnknownEncoderError(text, f"{model} has no weights {tag!r}", [f"{model}/{name}" for name in close])
    return EncoderSpec(text, "pretrained", model, tag)
