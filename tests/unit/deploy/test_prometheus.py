"""The alerts ask for metrics that there are, and fire when they should: Prometheus itself says so."""

import re
import subprocess
from pathlib import Path

from controller.metrics import Metrics
from controller.wakes import ALL

ALERTS = Path("deploy/prometheus/alerts.yml")
CASES = """\
rule_files: [{alerts}]
tests:
  - interval: 1m
    input_series:
      - {{series: 'mcp_snapshot_last_success_timestamp_seconds{{instance="a"}}', values: '0x1500'}}
      - {{series: 'mcp_snapshot_last_failure_timestamp_seconds{{instance="a"}}', values: '0x1199 72000x300'}}
    alert_rule_test:
      - {{eval_time: 13h, alertname: MCPSnapshotTooOld, exp_alerts: []}}
      - eval_time: 15h
        alertname: MCPSnapshotTooOld
        exp_alerts:
          - exp_labels: {{instance: a}}
            exp_annotations:
              summary: "Node a has no snapshot of the last 13 hours: systemctl status mcp-agent-snapshot"
      - {{eval_time: 15h, alertname: MCPSnapshotFailed, exp_alerts: []}}
      - eval_time: 22h
        alertname: MCPSnapshotFailed
        exp_alerts:
          - exp_labels: {{instance: a}}
            exp_annotations:
              summary: "The last snapshot of a failed: mcp doctor says why"
"""


def promtool(*arguments: str | Path) -> None:
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_takes_them_and_fires_those_about_snapshots(tmp_path: Path) -> None:
    promtool("check", "rules", ALERTS)
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.format(alerts=ALERTS.absolute()))
    promtool("test", "rules", cases)


def test_each_metric_that_they_ask_for_is_one_of_the_agents() -> None:
    metrics = Metrics(ALL)
    metrics.watch_services(lambda: ())
    known = {family.name for family in metrics.registry.collect()}
    asked = set(re.findall(r"\bmcp_\w+", ALERTS.read_text()))
    assert len(asked) > 4
    assert asked <= known
