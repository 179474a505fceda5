"""What a site's FLARE may do, whatever the kit of the lead says."""

import json

from securefed.deploy.flare_policy import CONTROLLER, EXECUTOR, harden_server, harden_site


def kit(folder, resources):
    (folder / "local").mkdir()
    (folder / "local" / "resources.json.default").write_text(json.dumps(resources))
    (folder / "local" / "resources.json").write_text('{"class_allow_list": ["everything."]}')
    (folder / "local" / "authorization.json").write_text('{"permissions": {"project_admin": "any"}}')
    return folder


def read(folder, name):
    path = folder / "local" / name
    assert path.stat().st_mode & 0o077 == 0
    return json.loads(path.read_text())


def test_a_site_takes_no_code_two_classes_and_streams_no_log(tmp_path):
    harden_site(kit(tmp_path, {}), "package.Site")
    rights = read(tmp_path, "authorization.json")["permissions"]
    assert {role: right["byoc"] for role, right in rights.items()} == dict.fromkeys(rights, "none")
    assert {role for role, right in rights.items() if right["submit_job"] != "none"} == {"lead"}
    assert {right["shell_commands"] for right in rights.values()} == {"none"}
    resources = read(tmp_path, "resources.json")
    assert resources["class_allow_list"] == [EXECUTOR, "package.Site"]
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert resources["allow_log_streaming"] is False
    assert not any("log" in part["path"] for part in resources["components"])


def test_a_server_keeps_its_jobs_in_its_own_folder(tmp_path):
    default = {
        "servers": [{"heart_beat_timeout": 600}],
        "snapshot_persistor": {"args": {"storage": {"args": {"root_dir": "/tmp/nvflare"}}}},
        "components": [
            {"id": "job_manager", "path": "m", "args": {"uri_root": "/tmp/nvflare/jobs"}},
            {"id": "log_receiver", "path": "l", "args": {}},
        ],
    }
    harden_server(kit(tmp_path, default), tmp_path / "storage", "package.Server")
    resources = read(tmp_path, "resources.json")
    assert "/tmp/nvflare" not in json.dumps(resources)
    assert resources["class_allow_list"] == [CONTROLLER, "package.Server"]
    assert [part["id"] for part in resources["components"]] == ["job_manager"]
