"""Making a study from choices, and saying in words what it means."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from audit import durable
from audit.roster import Roster
from clients.data.rows import composed
from clients.encoders import EncodeOptions, encode_classes, load_features
from securefed.compression_choice import upload_bytes
from securefed.config import RunConfig
from securefed.errors import ConfigError, RunFolderError
from securefed.privacy.bearing import too_few_rounds
from securefed.study.form import Study, new_study
from securefed.study.promise import privacy_in_words
from securefed.study.terms import noise_of, terms_of


def make_study(
    name: str, classes: Sequence[str], encoder: str, prompt: str | None, config: RunConfig, roster: Roster
) -> Study:
    """Return a study of these choices; the encoder is loaded for its digest and width.

    Args:
        name: What people call it.
        classes: Names of the classes, in the order of the outputs.
        encoder: Specification of the encoder.
        prompt: Prompt of a class with {class} in it; None takes that of the configuration.
        config: The configuration.
        roster: Keys of all parties.

    Raises:
        ConfigError: The choices contradict one another, protect nobody, or the noise bears fewer rounds.
        EncoderError: The encoder cannot be used.
    """
    classes = tuple(map(composed, classes))
    if encoder.startswith("features:"):
        bundle = load_features(Path(encoder.removeprefix("features:")))
        if tuple(classes) != bundle.classes:
            raise ConfigError("--class", f"the file of features has the classes {', '.join(bundle.classes)}")
        return _borne(
            new_study(name, classes, bundle.prompts, (encoder, bundle.encoder_digest, bundle.embed_dim), config, roster)
        )
    encoded = encode_classes(tuple(classes), encoder, EncodeOptions(templates=(prompt or config.encoder.prompt,)))
    description = (encoder, encoded.encoder_digest, encoded.text_features.shape[1])
    return _borne(new_study(name, classes, encoded.prompts, description, config, roster))


def _borne(study: Study) -> Study:
    """Return the study, unless no noise meets its target, or that ends it early: every hospital would refuse it."""
    if reason := too_few_rounds(study.config, noise_of(study)):
        raise ConfigError("privacy.noise_multiplier", reason)
    return study


def write_new(study: Study, path: Path) -> None:
    """Write a study file; raises RunFolderError where there is one already, as hospitals may have signed that."""
    try:
        durable.write_new(path, [study.encode()])
    except FileExistsError as error:
        raise RunFolderError(path, "exists already and a study is never overwritten; name a new file") from error
    except OSError as error:
        raise RunFolderError(path, f"cannot be written ({error.strerror}); name a writable place") from error


def in_words(study: Study) -> list[str]:
    """Return what a study means for a hospital, one sentence a line; every figure is computed from the study."""
    config, secure = study.config, study.config.secure_aggregation
    terms = terms_of(study)
    parameters, hospitals = terms.example, ", ".join(sorted(study.roster.hospitals))
    trained, encoder = config.federation.method, f"{study.encoder_digest[:16]}..., width {study.embed_dim}"
    lines = [
        f"{study.name}: {len(study.roster.hospitals)} hospitals ({hospitals}) train {trained} together.",
        f"{config.federation.rounds} rounds, {len(study.classes)} classes: {', '.join(study.classes)}.",
        f"The encoder is {study.encoder}, digest {encoder}; it is not trained.",
    ]
    if secure.enabled:
        lines.append(
            f"Updates are summed under masks against a server that "
            f"{'may lie' if secure.threat_model == 'active' else 'follows the protocol'}; {parameters.threshold} "
            f"hospitals are needed to open a sum, {parameters.corrupt} may collude, and no sum is opened over fewer "
            f"than {parameters.min_survivors}."
        )
    else:
        lines.append("UPDATES ARE SENT IN CLEAR: the server sees every hospital's update.")
    size = upload_bytes(parameters, in_clear=not secure.enabled)
    scheme = terms.compression.scheme
    how = "without compression" if scheme == "none" else f"{scheme} compression"
    lines.append(f"A hospital sends {size:,} bytes a round ({how}).")
    lines += privacy_in_words(study)
    stated = config.purpose.stated()
    lines += [f"{key.replace('_', ' ')}: {value}" for key, value in stated.items()]
    missing = [key.replace("_", " ") for key in asdict(config.purpose) if key not in stated]
    if missing:
        lines.append(f"Not stated: {', '.join(missing)}.")
    return lines
