"""docs/deploy: what it names exists, and those who are to read it can.

Not built or started here: the image (that takes a registry) and the pods. The commands in them are run.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

import lookupd.options
import pynsqd.options
from pynsqd.runtime.duration import parse_duration
from pynsqd.runtime.flags import flags_of, parse_flags
from tests.support.daemons import Daemon

DEPLOY: Final = Path(__file__).parents[2] / "docs" / "deploy"
FILES: Final = sorted(path for path in DEPLOY.iterdir() if path.suffix != ".json")
UNITS: Final = sorted(DEPLOY.glob("*.service"))
OPTIONS: Final = {"pynsqd": pynsqd.options.Options, "pynsqlookupd": lookupd.options.Options}
PORTS: Final = {"pynsqd": {"tcp": 4150, "http": 4151}, "pynsqlookupd": {"tcp": 4160, "http": 4161}}
# Flags of useradd, pip, docker and podman in comments and RUN lines.
_FOREIGN: Final = {
    "build",
    "from",
    "health-cmd",
    "interval",
    "no-cache-dir",
    "no-create-home",
    "start-period",
    "system",
    "timeout",
    "uid",
    "yes",
}
_FLAG: Final = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]+)")


def check_command(words: list[str]) -> None:
    """Let the program that a command names read its flags."""
    program, *flags = words
    name = Path(program).name
    parse_flags(flags_of(OPTIONS[name]), flags)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_flag_exists(file: Path) -> None:
    known = {flag.name for options in OPTIONS.values() for flag in flags_of(options)}
    assert set(_FLAG.findall(file.read_text())) <= known | _FOREIGN


def test_every_file_is_named_in_a_page() -> None:
    pages = "".join(page.read_text() for page in DEPLOY.parent.glob("*.md"))
    assert [path.name for path in DEPLOY.iterdir() if f"deploy/{path.name}" not in pages] == []


# ---- systemd


def settings(unit: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.read_text().splitlines() if re.match(r"\w+=", line))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_start_what_there_is(unit: Path, tmp_path: Path) -> None:
    words = settings(unit)["ExecStart"].split()
    assert words[-1] == f"${unit.stem.upper()}_FLAGS"
    check_command(words[:-1])
    flags = [flag.replace("${STATE_DIRECTORY}", str(tmp_path)) for flag in words[1:-1]]
    server = {"pynsqd": "nsqd", "pynsqlookupd": "nsqlookupd"}[unit.stem]
    with Daemon(server, *flags, data_path=tmp_path) as daemon:
        assert daemon.stop() == 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_units(unit: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    here = tmp_path / unit.name
    here.write_text(re.sub(r"(?<=^ExecStart=)\S+", str(program), unit.read_text(), flags=re.MULTILINE))
    verify = ["systemd-analyze", "verify", "--man=no", str(here)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rate = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(here)]  # 2.0 of 10
    done = subprocess.run(rate, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout


def test_systemd_waits_for_the_drain() -> None:
    unit = settings(DEPLOY / "pynsqd.service")
    (timeout,) = re.findall(r"--drain-timeout=(\S+)", unit["ExecStart"])
    assert parse_duration(timeout) / 1e9 < int(unit["TimeoutStopSec"])
    assert unit["Restart"] == "on-failure"  # what ends by POST /drain stays down


# ---- the image


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_the_image_takes_what_there_is_and_runs_as_nobody_special() -> None:
    root = DEPLOY.parents[1]
    for verb, rest in instructions():
        words = rest.split()
        if verb == "COPY" and not words[0].startswith("--"):
            assert all((root / source).exists() for source in words[:-1]), rest
        if verb == "EXPOSE":
            assert {int(port) for port in words} == {port for ports in PORTS.values() for port in ports.values()}
    given = dict(instructions())
    check_command(json.loads(given["CMD"]))
    assert given["USER"] not in ("0", "root")
    assert given["STOPSIGNAL"] == "SIGTERM"


def test_what_the_image_copies_is_enough_to_install(tmp_path: Path) -> None:
    root = DEPLOY.parents[1]
    for verb, rest in instructions():
        *sources, target = rest.split()
        if verb == "COPY" and target.startswith("/src"):
            for source in sources:
                into = tmp_path / Path(target).relative_to("/src")
                if (root / source).is_dir():
                    shutil.copytree(root / source, into, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(root / source, into)
    code = "from hatchling.build import build_wheel; print(build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip().endswith(".whl"), done.stderr


def test_the_health_check(tmp_path: Path) -> None:
    with Daemon("nsqd", "--drain-timeout=10s", data_path=tmp_path) as node:
        assert ready(node.http[1]) == (0, "")
        (tmp_path / "pynsqd.probe").mkdir()
        until = time.monotonic() + 60
        while (answer := ready(node.http[1])) == (0, "") and time.monotonic() < until:
            time.sleep(0.1)  # an answer holds for a second
        assert (answer[0], answer[1][:12]) == (1, "NOK - write ")
        port = node.http[1]
        assert node.stop() == 0
    code, said = ready(port)
    assert (code, "refused" in said) == (1, True)


def ready(port: int) -> tuple[int, str]:
    check = [sys.executable, str(DEPLOY / "ready.py"), str(port)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, done.stderr


# ---- compose


def test_compose_is_valid() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*check, str(DEPLOY / "compose.yaml")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_runs_what_there_is() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        command = service["command"]
        check_command(command)
        assert f"--broadcast-address={name}" in command
        ports = PORTS[command[0]]
        assert all(int(port.rpartition(":")[2]) in ports.values() for port in service["ports"])
        for address in flag_values(command, "lookupd-tcp-address"):
            assert address == "lookupd:4160"
            assert "lookupd" in services
        for timeout in flag_values(command, "drain-timeout"):
            assert parse_duration(timeout) < parse_duration(service["stop_grace_period"])
        if "healthcheck" in service:
            assert service["healthcheck"]["test"][-1] == str(ports["http"])
    published = [port.rpartition(":")[0] for service in services.values() for port in service["ports"]]
    assert len(published) == len(set(published))


def flag_values(command: list[str], flag: str) -> list[str]:
    return [word.partition("=")[2] for word in command if word.startswith(f"--{flag}=")]


# ---- Kubernetes


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in documents() if one["kind"] == kind}


@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_kubernetes_takes_it(version: str) -> None:
    for document in documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_the_pods_run_what_there_is() -> None:
    sets, services, budgets = of_kind("StatefulSet"), of_kind("Service"), of_kind("PodDisruptionBudget")
    for name, one in sets.items():
        pod = one["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        command = container["args"]
        assert command[0] == name
        check_command([shlex.quote(word) if "$" in word else word for word in command])
        assert {port["name"]: port["containerPort"] for port in container["ports"]} == PORTS[name]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                assert container[probe]["httpGet"]["port"] == "http"
                assert container[probe]["timeoutSeconds"] > 2  # /readyz gives up after that
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"] == labels
        assert budgets[name]["spec"]["selector"]["matchLabels"] == labels
        headless = services[one["spec"]["serviceName"]]["spec"]
        assert (headless["clusterIP"], headless["publishNotReadyAddresses"]) == ("None", True)
        assert f"--broadcast-address=$(POD_NAME).{one['spec']['serviceName']}.$(POD_NAMESPACE).svc" in command
        annotated = one["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
        assert annotated == str(PORTS[name]["http"])
        for timeout in flag_values(command, "drain-timeout"):
            assert parse_duration(timeout) / 1e9 < pod["terminationGracePeriodSeconds"]
        for folder in flag_values(command, "data-path"):
            assert [mount["mountPath"] for mount in container["volumeMounts"]] == [folder]
        for address in flag_values(command, "lookupd-tcp-address"):
            found = re.fullmatch(r"(pynsqlookupd)-(\d)\.(\w+):4160", address)
            assert found and int(found[2]) < sets[found[1]]["spec"]["replicas"]
            assert found[3] == sets[found[1]]["spec"]["serviceName"]


def test_the_services_lead_to_the_pods() -> None:
    for service in of_kind("Service").values():
        (name,) = service["spec"]["selector"].values()
        for port in service["spec"]["ports"]:
            assert port["port"] == PORTS[name][port["targetPort"]]
