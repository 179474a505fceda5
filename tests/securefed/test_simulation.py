"""The main job on features: what it writes, that it is the same with and without masks, that it can be interrupted."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from audit.heads import read_heads
from audit.log import read_events
from clients.encoders import InvalidEncoderError, UnknownEncoderError, export_features, load_features
from securefed import prediction
from securefed.attacks.run import attack_run
from securefed.config import STAGES
from securefed.errors import ConfigError, RoundAbortedError, RunFolderError
from securefed.federation import Federation
from securefed.hospitals import Hospitals
from securefed.model_file import load_model, vector_digest
from securefed.observer import Observer
from securefed.run_folder import RunFolder, read_byte_rows, read_metric_rows
from securefed.simulation import resume_run, simulate

SITES = tuple(f"site{number}" for number in range(5))


def run(config, tmp_path, name="run", **more):
    return simulate(config, output=tmp_path / name, cache_dir=tmp_path / "cache", **more)


@pytest.mark.draws
def test_the_folder_holds_everything_that_is_promised(small_run, tmp_path):
    result = run(small_run(), tmp_path)
    names = {str(path.relative_to(result.folder.path)) for path in result.folder.path.rglob("*") if path.is_file()}
    expected = {"config.toml", "audit.jsonl", "metrics.csv", "bytes.csv", "summary.json", "evaluation.json"}
    expected |= {"fam.safetensors", *(f"sites/{site}/mlp.safetensors" for site in SITES)}
    plots = ("accuracy", "bytes", "keep_ratios", "reliability", "confusion")
    expected |= {f"plots/{plot}.{kind}" for plot in plots for kind in ("svg", "png")}
    assert expected <= names
    summary = json.loads(result.folder.summary.read_text())
    assert summary == result.summary
    for site in SITES:
        parts = summary["sites"][site]["test"]
        assert set(parts) == {"ensemble", "fam", "mlp"}
        assert set(parts["fam"]) >= {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece"}
    assert summary["rounds_completed"] == 3
    assert 1 <= summary["chosen_round"] <= 3
    assert summary["secure_aggregation"]["threshold"] == 4  # 5 hospitals, 1 corrupt: floor((5 + 1) / 2) + 1
    assert summary["privacy"]["epsilon"] is None
    assert summary["privacy"]["claim"].startswith("NOT CLAIMED")
    assert summary["fam_sha256"] == vector_digest(load_model(result.folder).vector)
    assert {"encode_s", "train_s", "aggregate_s", "total_s"} <= set(summary["timing"])
    mean = np.mean([summary["sites"][site]["test"]["fam"]["accuracy"] for site in SITES])
    assert summary["mean"]["fam"]["accuracy"] == pytest.approx(mean)


@pytest.mark.draws
def test_of_layers_that_learn_no_thresholds_no_kept_rows_are_drawn(small_run, tmp_path):
    config = small_run(federation={"rounds": 1}, training={"learn_thresholds": False})
    names = {path.name for path in run(config, tmp_path).folder.plots.iterdir()}
    assert "accuracy.png" in names
    assert not {"keep_ratios.png", "keep_ratios.svg"} & names


def test_test_images_are_evaluated_in_one_thread_on_every_machine(small_run, tmp_path, monkeypatch):
    threads = {"run": [], "evaluate": []}

    def seen(where, function):
        def counted(*arguments):
            threads[where].append(torch.get_num_threads())
            return function(*arguments)

        return counted

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(Hospitals, "predict", seen("run", Hospitals.predict))
        monkeypatch.setattr(prediction, "predict_stored", seen("evaluate", prediction.predict_stored))
        result = run(small_run(), tmp_path)
        again = prediction.evaluate_run(result.folder.path, "test", cache_dir=tmp_path / "cache")
    finally:
        torch.set_num_threads(before)
    assert threads == {"run": [1] * 5, "evaluate": [1] * 5}
    assert again["mean"]["fam"] == result.summary["mean"]["fam"]


def test_the_log_verifies_and_its_bytes_are_those_of_the_table(small_run, tmp_path):
    result = run(small_run(), tmp_path)
    events = read_events(result.folder.log)
    assert [event.kind for event in events[:2]] == ["run_started", "config"]
    assert events[-1].kind == "run_completed"
    logged = sum(
        size
        for event in events
        if event.kind == "round_completed"
        for ways in event.fields["bytes"].values()
        for stages in ways.values()
        for kinds in stages.values()
        for size in kinds.values()
    )
    rows = read_byte_rows(result.folder.bytes)
    assert logged == sum(row.bytes for row in rows) > 0
    communication = result.summary["communication"]
    assert communication["upload_bytes"] + communication["download_bytes"] == logged
    training = [row for row in rows if row.direction == "upload" and row.round <= 3]
    assert communication["upload_bytes_per_client_round"] == sum(row.bytes for row in training) / 15
    assert {row.stage for row in rows} == set(STAGES)


@pytest.mark.parametrize("stage", [None, *STAGES])
def test_masks_change_nothing_whoever_is_lost(small_run, tmp_path, stage):
    simulation = {"drop": [f"site2@2:{stage}"]} if stage else {}
    results = [
        run(small_run(simulation=simulation, secure_aggregation={"enabled": enabled}), tmp_path, str(enabled))
        for enabled in (True, False)
    ]
    masked, plain = (result.summary for result in results)
    assert masked["fam_sha256"] == plain["fam_sha256"]
    assert masked["mean"] == plain["mean"]
    assert masked["secure_aggregation"]["dropouts"] == plain["secure_aggregation"]["dropouts"]
    if stage:
        assert masked["secure_aggregation"]["dropouts"][stage] == 1
    rounds = [[e.fields for e in read_events(r.folder.log) if e.kind == "round_completed"] for r in results]
    assert len(rounds[0]) >= 3
    for left, right in zip(*rounds, strict=True):
        assert left["survivors"] == right["survivors"]
        assert left["aggregate_digest"] == right["aggregate_digest"]


def test_the_opened_mean_is_the_mean_of_the_survivors_encoded_updates(small_run, tmp_path, monkeypatch):
    contributed, opened = {}, {}
    original = Federation._open_round

    def spy(self, number):
        train = self._hospitals.train

        def keep(site, received, round_number):
            update = train(site, received, round_number)
            contributed[round_number, site] = update
            return update

        monkeypatch.setattr(self._hospitals, "train", keep)
        opened[number] = original(self, number)
        monkeypatch.setattr(self._hospitals, "train", train)
        return opened[number]

    monkeypatch.setattr(Federation, "_open_round", spy)
    config = small_run(simulation={"drop": ["site1@2:MaskedInputCollection", "site4@3:Unmasking"]})
    run(config, tmp_path)
    grid = 2 * config.secure_aggregation.update_range / (2**config.secure_aggregation.value_bits - 2)
    for number, lost in ((1, ()), (2, ("site1",)), (3, ())):
        survivors = [site for site in SITES if site not in lost]
        assert opened[number].survivors == tuple(survivors)
        mean = np.mean([contributed[number, site].astype(np.float64) for site in survivors], axis=0)
        assert np.abs(opened[number].mean_update - mean).max() < grid


def test_nothing_that_leaves_a_hospital_holds_its_mlp_or_its_data(small_run, tmp_path, monkeypatch):
    """Every byte of every reply is searched for the little-endian bytes of MLP parameters, features and labels."""
    from protocols.client.machine import ClientMachine
    from protocols.plain import PlainClient
    from securefed.hospitals import Hospitals

    sent, held = [], []
    for machine in (ClientMachine, PlainClient):
        answer = machine.answer

        def spy(self, stage, data, answer=answer):
            reply = answer(self, stage, data)
            sent.append(bytes(reply))
            return reply

        monkeypatch.setattr(machine, "answer", spy)
    train = Hospitals.train

    def keep(self, site, received, number):
        update = train(self, site, received, number)
        hospital = self._hospitals[site]
        held.extend(array for array in hospital.private_state().values() if array.size >= 4)
        held.append(hospital.site.train.features)
        held.append(hospital.site.train.labels)
        if secure:
            held.append(update)
        return update

    monkeypatch.setattr(Hospitals, "train", keep)
    for secure in (True, False):
        sent.clear()
        held.clear()
        run(small_run(secure_aggregation={"enabled": secure}, federation={"rounds": 1}), tmp_path, str(secure))
        everything = b"".join(sent)
        assert len(sent) >= 5
        checked = 0
        for array in held:
            for dtype in {array.dtype.newbyteorder("<"), np.dtype("<f4"), np.dtype("<f2")}:
                raw = np.ascontiguousarray(array.ravel()[:6], dtype=dtype).tobytes()
                if len(set(raw)) > 4:  # constants such as zeros say nothing
                    assert raw not in everything
                    checked += 1
        assert checked > 20


def test_the_number_of_bytes_that_leave_does_not_depend_on_the_mlp(small_run, tmp_path):
    sizes = {
        width: run(small_run(training={"mlp_width": width}), tmp_path, str(width)).summary["communication"][
            "upload_bytes"
        ]
        for width in (8, 32)
    }
    assert sizes[8] == sizes[32]


def test_too_few_survivors_end_the_run_with_the_named_error_and_reveal_nothing(small_run, tmp_path):
    config = small_run(simulation={"drop": ["site1@2:ConsistencyCheck", "site2@2:ShareKeys"]})
    with pytest.raises(RoundAbortedError, match="round 2 was aborted and nothing was revealed") as caught:
        run(config, tmp_path)
    assert caught.value.exit_code == 1
    assert "start a new run that loses fewer in this round" in str(caught.value)
    assert "bring the lost sites back" not in str(caught.value)
    folder = RunFolder.open(tmp_path / "run")
    assert read_events(folder.log)[-1].kind == "round_aborted"
    assert not folder.summary.exists()
    assert {row.round for row in read_byte_rows(folder.bytes)} == {1, 2}


class InterruptAfter(Observer):
    def __init__(self, number):
        self.number = number

    def round_finished(self, view):
        if view.number == self.number:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("method", "training"),
    [("fedmedclip", {}), ("fedclip", {}), ("fedavg-mlp", {}), ("fedavg-mlp", {"mlp_norm": "batch"})],
)
def test_an_interrupted_run_resumes_to_the_same_model(small_run, tmp_path, method, training, number):
    config = small_run(federation={"method": method}, training=training, simulation={"drop": ["site3@2:Unmasking"]})
    whole = run(config, tmp_path, "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, "cut", observer=InterruptAfter(number))
    resumed = resume_run(tmp_path / "cut", cache_dir=tmp_path / "cache")
    for key in ("fam_sha256", "mean", "sites", "chosen_round", "config_digest"):
        assert resumed.summary[key] == whole.summary[key], key
    assert resumed.summary["secure_aggregation"] == whole.summary["secure_aggregation"]
    assert resumed.summary["communication"] == whole.summary["communication"]
    assert read_metric_rows(resumed.folder.metrics) == read_metric_rows(whole.folder.metrics)
    events = list(read_events(resumed.folder.log))
    kinds = [event.kind for event in events]
    assert kinds.count("interrupted") == kinds.count("resumed") == 1
    signed = {head.head.size for head in read_heads(resumed.folder.path / "heads.jsonl")}
    assert kinds.index("resumed") + 1 in signed  # so that no kill leaves two rounds without a head
    assert not resumed.folder.checkpoint.exists()


@pytest.mark.parametrize("private", [False, True])
def test_a_file_whose_features_changed_is_not_what_the_run_was_made_with(small_run, tmp_path, features_file, private):
    file = tmp_path / "f.npz"
    export_features(load_features(features_file), file)
    config = small_run(
        data={"source": f"features:{file}"},
        encoder={"name": f"features:{file}"},
        **({"privacy": {"mode": "local", "epsilon": 8.0}} if private else {}),
    )
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, "cut", observer=InterruptAfter(1))
    whole = run(config, tmp_path, "whole")
    digest = load_features(file).features_digest
    assert (digest in whole.folder.log.read_text()) is not private
    assert prediction.evaluate_run(whole.folder.path, "test")["mean"] == whole.summary["mean"]
    same = load_features(file)
    export_features(replace(same, text_features=-same.text_features), file)
    with pytest.raises(ConfigError, match="features of encoder differs from the run's"):
        resume_run(tmp_path / "cut", cache_dir=tmp_path / "cache")
    with pytest.raises(ConfigError, match="other features of the same images"):
        prediction.evaluate_run(whole.folder.path, "test")
    with pytest.raises(ConfigError, match="the file of features is not that of the run any more"):
        attack_run(whole.folder.path, attacks=["members"])


def test_a_finished_run_is_not_resumed(small_run, tmp_path):
    run(small_run(), tmp_path)
    with pytest.raises(RunFolderError, match="ended already"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")


def test_the_same_seed_gives_the_same_model_and_another_seed_another(small_run, tmp_path):
    digests = [
        run(small_run(federation={"seed": seed}), tmp_path, f"{index}").summary["fam_sha256"]
        for index, seed in enumerate((0, 0, 1))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("method", ["fedmedclip", "fedavg-mlp", "local"])
def test_the_result_does_not_depend_on_how_many_hospitals_work_at_once(small_run, tmp_path, method):
    config = small_run(federation={"method": method})
    one, three = (run(config, tmp_path, f"{number}", workers=number) for number in (1, 3))
    assert one.summary["fam_sha256"] == three.summary["fam_sha256"]
    assert one.summary["sites"] == three.summary["sites"]
    assert read_metric_rows(one.folder.metrics) == read_metric_rows(three.folder.metrics)
    assert one.summary["privacy"] == three.summary["privacy"]


@pytest.mark.parametrize("method", ["local", "zero-shot", "linear-probe"])
def test_methods_that_share_nothing_send_nothing(small_run, tmp_path, method):
    result = run(small_run(federation={"method": method}), tmp_path)
    summary, report = result.summary, json.loads((result.folder.path / "report.json").read_text())
    assert report["claim"]["reason"] == summary["privacy"]["claim"]
    assert report["trust"] == []
    assert summary["fam_sha256"] is None
    assert summary["communication"]["upload_bytes"] == 0
    assert summary["secure_aggregation"]["enabled"] is False
    assert 0 < summary["mean"]["ensemble"]["accuracy"] <= 1


def test_training_together_beats_the_encoder_alone(small_run, tmp_path):
    accuracy = {
        method: run(small_run(federation={"method": method, "rounds": 10}), tmp_path, method).summary["mean"]
        for method in ("zero-shot", "fedmedclip")
    }
    assert accuracy["fedmedclip"]["ensemble"]["accuracy"] > accuracy["zero-shot"]["ensemble"]["accuracy"]


def test_the_best_round_is_chosen_by_the_mean_validation_score(small_run, tmp_path):
    result = run(small_run(federation={"rounds": 6}), tmp_path)
    means = {}
    for row in read_metric_rows(result.folder.metrics):
        if (row.split, row.part, row.metric) == ("val", "ensemble", "accuracy"):
            means.setdefault(row.round, []).append(row.value)
    means = {number: np.mean(values) for number, values in means.items()}
    best = max(means.values())
    assert means[result.summary["chosen_round"]] == pytest.approx(best, abs=1e-4)


def test_the_last_round_is_kept_where_asked_and_nothing_is_scored(small_run, tmp_path):
    result = run(small_run(federation={"select": "last"}), tmp_path)
    assert result.summary["chosen_round"] == 3
    assert max(row.round for row in read_byte_rows(result.folder.bytes)) == 3


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"secure_aggregation": {"threshold": 2}}, "use 4 to 5"),
        ({"secure_aggregation": {"corrupt": 3}}, "use at most 2"),
        ({"secure_aggregation": {"enabled": False, "threshold": 1}}, "secure_aggregation.threshold: 1 is not safe"),
        ({"secure_aggregation": {"enabled": False, "corrupt": 3}}, "secure_aggregation.corrupt: 3 of 5"),
        ({"privacy": {"mode": "distributed", "noise_multiplier": 2, "max_colluders": 4}}, "4 of the 4 hospitals"),
        ({"simulation": {"drop": ["nowhere@1:Unmasking"]}}, "no site"),
    ],
)
def test_what_cannot_protect_is_refused_before_a_folder_exists(small_run, tmp_path, sections, says):
    with pytest.raises(ConfigError, match=says):
        run(small_run(**sections), tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_misspelt_encoder_leaves_no_folder_behind(small_run, tmp_path):
    for name, error in (("ViT-B-23/openai", UnknownEncoderError), (f"local-dir:{tmp_path}/gone", InvalidEncoderError)):
        with pytest.raises(error):
            run(small_run(encoder={"name": name}), tmp_path)
        assert not (tmp_path / "run").exists()
