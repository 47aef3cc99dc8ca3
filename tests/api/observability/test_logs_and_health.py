"""The dashboard, the alerts and the table in the docs use metrics that a scrape returns."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from api.observability.metrics import ProcessMetrics, build_metrics
from core.errors import PaymentRequired, Unavailable
from core.ids import uuid7
from core.settings import Settings, SettingsError
from metering.admission.admission import QuotaExceeded, TooLarge
from tests.api.conftest import Api
from tests.harness import ROOT

_NAME = re.compile(r"\bnaka_[a-z0-9_]+")
_ROW = re.compile(r"^\| `(naka_\w+)` \| (\w+) \| .* \| (process|system) \|$", re.MULTILINE)


@pytest.fixture
async def scraped(api: Api) -> dict[str, str]:
    """Returns each metric's type, after a reconciliation and a worker ran."""
    async with api.books.connection() as connection:
        await connection.execute("INSERT INTO reconciliations (id, drifts, report) VALUES ($1, 0, '{}')", uuid7())
        await connection.execute(
            "INSERT INTO pgqueuer.pgqueuer_schedules (expression, entrypoint, next_run)"
            " VALUES ('7 * * * *', 'partitions', now() - interval '90 s')"
        )
    text = (await api.http.get("/metrics")).text
    (waited,) = re.findall(r"^naka_worker_overdue_seconds (\S+)$", text, re.MULTILINE)
    assert 90 <= float(waited) < 100
    families = list(text_string_to_metric_families(text))
    return {f"{family.name}_total" if family.type == "counter" else family.name: family.type for family in families}


def _dashboard() -> dict[str, Any]:
    return dict(json.loads((ROOT / "deploy/grafana/naka.json").read_text()))


def _alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    return list(group["rules"])


async def test_docs_dashboard_and_alerts_name_what_is_there(scraped: dict[str, str]) -> None:
    docs = (ROOT / "docs/observability.md").read_text()
    assert {name: kind for name, kind, _ in _ROW.findall(docs)} == scraped

    histograms = {name for name, kind in scraped.items() if kind == "histogram"}
    known = set(scraped) | {f"{name}_bucket" for name in histograms}
    panels = [target["expr"] for panel in _dashboard()["panels"] for target in panel.get("targets", [])]
    for expr in (*panels, *(rule["expr"] for rule in _alerts())):
        assert set(_NAME.findall(expr)) <= known, expr
    shown = {name.removesuffix("_bucket") for expr in panels for name in _NAME.findall(expr)}
    assert shown == set(scraped), "each is on the dashboard"


def test_each_alert_is_explained_and_the_configuration_loads() -> None:
    docs = (ROOT / "docs/observability.md").read_text()
    explained = re.findall(r"^\| `(Naka\w+)` \|", docs, re.MULTILINE)
    assert explained == [rule["alert"] for rule in _alerts()]
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job["dns_sd_configs"][0]["names"] == ["api"]
    dashboard = _dashboard()
    assert [variable["type"] for variable in dashboard["templating"]["list"]] == ["datasource"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"] if "targets" in panel} == {"${datasource}"}
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic", "Money", "Limits", "Provider", "Health"]


def test_refusals_are_told_apart() -> None:
    metrics, registry = ProcessMetrics(None), CollectorRegistry()
    for error in (
        QuotaExceeded("m", code="too_many_at_once", retry_after_s=1, limit=None),
        TooLarge("m"),
        PaymentRequired("m", code="payment_required"),
        Unavailable("m"),
    ):
        metrics.refused(error)
    metrics.register(registry)
    for code in ("too_many_at_once", "too_large", "payment_required"):
        labels = {"code": code, "scope": "none", "window": "none"}
        assert registry.get_sample_value("naka_quota_refusals_total", labels) == 1
    assert registry.get_sample_value("naka_requests_turned_away_total", {"error": "Unavailable"}) == 1


def test_a_folder_that_prometheus_client_does_not_know_of_is_refused(settings: Settings, tmp_path: Path) -> None:
    assert settings.prometheus_multiproc_dir is None
    with pytest.raises(SettingsError, match="PROMETHEUS_MULTIPROC_DIR must be set in the environment itself"):
        build_metrics(settings.model_copy(update={"prometheus_multiproc_dir": tmp_path}))
