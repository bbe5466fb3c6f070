"""deploy/ by the linters of each kind of file, and by reading what no linter knows."""

import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import missing
from twin_scanner.settings import Settings

pytestmark = pytest.mark.system

UNITS = ("twin-scanner.service", "twin-scanner-backup.service", "twin-scanner-backup.timer")
KEYS = re.compile(r"TWIN_SCANNER__([A-Z]+)__([A-Z_]+)")


@pytest.fixture
def deploy(project: Path) -> Path:
    return project / "deploy"


@pytest.fixture
def tool() -> Callable[[str, str], str]:
    """A program of the extra `gate`, beside this Python; skips without it."""

    def find(program: str, module: str) -> str:
        path = shutil.which(program, path=str(Path(sys.executable).parent))
        if path is None or (module and importlib.util.find_spec(module) is None):
            missing(f"{program} (pip install -e '.[gate]')")
        assert path is not None
        return path

    return find


def output(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_hadolint_finds_nothing_in_the_containerfile(
    deploy: Path, tmp_path: Path, tool: Callable[[str, str], str]
) -> None:
    """A copy that runs as root at its end shows that the tool would complain."""
    hadolint, text = tool("hadolint", ""), (deploy / "Containerfile").read_text("utf-8")
    assert output([hadolint, str(deploy / "Containerfile")]) == (0, "")
    (tmp_path / "Containerfile").write_text(text.replace("USER 10001:10001", "USER root"), "utf-8")
    assert "DL3002" in output([hadolint, str(tmp_path / "Containerfile")])[1]


def test_the_compose_file_keeps_to_its_schema(deploy: Path, tmp_path: Path, tool: Callable[[str, str], str]) -> None:
    check = [tool("check-jsonschema", "check_jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    text = (deploy / "compose" / "compose.yaml").read_text("utf-8")
    assert output([*check, str(deploy / "compose" / "compose.yaml")])[0] == 0
    (tmp_path / "compose.yaml").write_text(text.replace("read_only:", "readonly:"), "utf-8")
    assert output([*check, str(tmp_path / "compose.yaml")])[0] == 1


def test_kubernetes_knows_every_field_of_the_manifests(deploy: Path, tool: Callable[[str, str], str]) -> None:
    files = [str(path) for path in (deploy / "kubernetes").glob("*.yaml") if path.stem != "kustomization"]
    code, text = output([tool("kubernetes-validate", "kubernetes_validate"), "--strict", *files])
    assert code == 0, text
    assert text.count("passed") == 7


def test_kustomize_builds_the_manifests(deploy: Path, peer: Callable[[str], str]) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    code, text = output([peer("kubectl"), "kustomize", str(deploy / "kubernetes")])
    assert code == 0, text
    assert {one["kind"] for one in yaml.safe_load_all(text)} >= {"StatefulSet", "Service", "NetworkPolicy", "CronJob"}


def test_no_container_runs_as_root_writes_its_root_or_has_a_capability(deploy: Path) -> None:
    pods = [
        one["spec"]["template"]["spec"] if one["kind"] == "StatefulSet" else cron_job_pod(one)
        for path in (deploy / "kubernetes").glob("*.yaml")
        for one in yaml.safe_load_all(path.read_text("utf-8"))
        if one["kind"] in ("StatefulSet", "CronJob")
    ]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}


def cron_job_pod(one: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def test_compose_has_no_password_and_every_secret_is_a_file_that_its_script_writes(deploy: Path) -> None:
    compose = yaml.safe_load((deploy / "compose" / "compose.yaml").read_text("utf-8"))
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name.upper() or str(value).startswith("/run/secrets/"), name
            assert not re.search(r"://\w+:\w+@", str(value)), name
    script = (deploy / "compose" / "make-secrets.sh").read_text("utf-8")
    for secret in compose["secrets"].values():
        assert Path(secret["file"]).name in script


def test_the_script_of_the_secrets_makes_new_ones_and_keeps_those_that_are_there(deploy: Path, tmp_path: Path) -> None:
    script = shutil.copy(deploy / "compose" / "make-secrets.sh", tmp_path)
    found = []
    for _ in range(2):
        subprocess.run(["sh", script], check=True, timeout=60)
        found.append({path.name: path.read_text("utf-8") for path in (tmp_path / "secrets").iterdir()})
    assert found[0] == found[1]
    assert all(len(text) >= 48 for text in found[0].values())
    assert len(set(found[0].values())) == 5, "only fhir-datasource-password repeats another one"
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "secrets").iterdir()} == {0}


@pytest.mark.parametrize("name", ["compose/twin-scanner.toml", "kubernetes/twin-scanner.toml"])
def test_the_configurations_are_understood(
    deploy: Path, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    from twin_scanner.settings import load_settings

    monkeypatch.chdir(tmp_path)
    assert load_settings(deploy / name).known_destinations


def test_every_variable_in_deploy_is_a_key_of_the_configuration(deploy: Path) -> None:
    used = {key for path in deploy.rglob("*") if path.is_file() for key in KEYS.findall(path.read_text("utf-8"))}
    assert ("STORAGE", "FOLDER") in used
    for section, key in sorted(used - {("SECTION", "KEY")}):
        model: Any = Settings.model_fields[section.lower()].annotation
        assert key.lower() in model.model_fields, f"{section}.{key}"


def test_systemd_finds_nothing_to_say_of_the_units_and_little_that_they_may_do(
    deploy: Path, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    program = peer("systemd-analyze")
    for name in UNITS:
        text = (deploy / name).read_text("utf-8").replace("/opt/twin-scanner/bin/twin-scanner", "/bin/true")
        (tmp_path / name).write_text(text, "utf-8")
    files = [str(tmp_path / name) for name in UNITS]
    assert output([program, "verify", "--man=no", *files]) == (0, "")
    for name in UNITS[:2]:
        text = output([program, "security", "--offline=true", "--no-pager", str(tmp_path / name)])[1]
        (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", text)
        assert float(exposure) <= 2.0, text


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_words: Any) -> None:
        pass


@pytest.mark.parametrize(("status", "path", "expected"), [(200, "healthz", 0), (503, "healthz", 1), (200, "other", 1)])
def test_the_check_of_health_says_what_the_node_says(deploy: Path, status: int, path: str, expected: int) -> None:
    handler = type("Answers", (Health,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{path}"
        code, _ = output([sys.executable, str(deploy / "healthcheck.py"), url])
        server.shutdown()
        thread.join()
    assert code == expected


def test_the_check_of_health_fails_where_nobody_answers(deploy: Path, free_port: Callable[[], int]) -> None:
    url = f"http://127.0.0.1:{free_port()}/healthz"
    code, text = output([sys.executable, str(deploy / "healthcheck.py"), url])
    assert code == 1
    assert "does not say that the node is well" in text
