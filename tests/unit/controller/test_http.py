"""Metrics and health checks over real HTTP, judged by Prometheus' own tools."""

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from api.conditions import ConditionType, Status
from api.errors import Refused
from api.service import Service
from controller.http import HttpServer
from controller.metrics import RESULTS, Metrics
from controller.wakes import ALL
from stack.web import free_port
from tests.unit.api.test_wire import full_service

DECLARED = {
    "mcp_reconcile_total",
    "mcp_reconcile_duration_seconds",
    "mcp_reconcile_active_workers",
    "mcp_actions_total",
    "mcp_drift_found_total",
    "mcp_flapping_total",
    "mcp_alerts_total",
    "mcp_drift_corrected_total",
    "mcp_drift_correction_seconds",
    "mcp_workqueue_depth",
    "mcp_workqueue_adds_total",
    "mcp_workqueue_retries_total",
    "mcp_workqueue_queue_duration_seconds",
    "mcp_apply_to_ready_seconds",
    "mcp_services",
    "mcp_services_suspended",
    "mcp_snapshot_last_success_timestamp_seconds",
    "mcp_snapshot_last_failure_timestamp_seconds",
    "mcp_api_certificate_expiry_timestamp_seconds",
    "mcp_certificate_expiry_timestamp_seconds",
}


class Served:
    """An agent's HTTP server whose readiness and services a test decides."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.services: tuple[Service, ...] | None = (full_service(),)
        self.metrics = Metrics(ALL)
        self.metrics.watch_services(lambda: self.services)
        self.listen = f"127.0.0.1:{free_port()}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def families(self) -> dict[str, Metric]:
        return {family.name: family for family in text_string_to_metric_families(self.get("/metrics")[1])}


@pytest.fixture
def served() -> Iterator[Served]:
    parts = Served()
    with HttpServer(parts.listen, parts.metrics.app(), lambda: parts.problem):
        yield parts


def test_promtool_finds_nothing_to_complain_about(served: Served) -> None:
    status, text = served.get("/metrics")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (status, done.returncode, done.stdout + done.stderr) == (200, 0, "")


def test_every_metric_is_there_from_the_start(served: Served) -> None:
    names = {f"{name}_total" if family.type == "counter" else name for name, family in served.families().items()}
    assert {name for name in names if name.startswith("mcp_")} == DECLARED
    assert "process_cpu_seconds_total" in names


def test_every_series_is_zero_from_the_start(served: Served) -> None:
    served.services = ()
    samples = [sample for name, family in served.families().items() for sample in family.samples if "mcp_" in name]
    assert {sample.value for sample in samples} == {0}
    results = {(s.labels["reconciler"], s.labels["result"]) for s in samples if s.name == "mcp_reconcile_total"}
    assert results == {(name, result) for name in ALL for result in RESULTS}
    conditions = {(s.labels["condition"], s.labels["status"]) for s in samples if s.name == "mcp_services"}
    assert conditions == {(kind, status) for kind in ConditionType for status in Status}


def test_services_are_counted_when_they_are_scraped(served: Served) -> None:
    service = full_service()
    (certificate,) = service.certificates
    samples = [sample for family in served.families().values() for sample in family.samples]
    assert sum(sample.value for sample in samples if sample.name == "mcp_services") == len(ConditionType)
    (expiry,) = (sample for sample in samples if sample.name == "mcp_certificate_expiry_timestamp_seconds")
    assert expiry.labels == {"service": service.name, "hostname": certificate.hostname}
    assert expiry.value == certificate.not_after.timestamp()


def test_a_registry_that_is_away_costs_the_counts_of_services_and_nothing_else(served: Served) -> None:
    served.services = None
    names = served.families().keys()
    assert "mcp_services" not in names
    assert "mcp_workqueue_depth" in names


def test_healthz_says_that_the_process_lives(served: Served) -> None:
    served.problem = "podman: gone"
    assert served.get("/healthz") == (200, "ok\n")


def test_readyz_says_what_is_in_the_way(served: Served) -> None:
    assert served.get("/readyz") == (200, "ok\n")
    served.problem = "podman: podman cannot be asked: gone"
    assert served.get("/readyz") == (503, "podman: podman cannot be asked: gone\n")


def test_what_is_not_there_says_what_is(served: Served) -> None:
    assert served.get("/") == (404, "there are /metrics, /healthz and /readyz\n")


def test_an_address_that_is_taken_is_one_sentence(served: Served) -> None:
    with pytest.raises(Refused, match=f"metrics.listen: {served.listen} cannot be listened on .*: choose another port"):
        HttpServer(served.listen, served.metrics.app(), lambda: None)


def test_a_host_that_nobody_knows_is_one_sentence(served: Served) -> None:
    with pytest.raises(Refused, match=r"metrics.listen: no.such.host.invalid:1 cannot be listened on"):
        HttpServer("no.such.host.invalid:1", served.metrics.app(), lambda: None)
