"""When traces are made, and what keeps them from being sent."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from changesource import tracing
from devtools.node import PROJECT
from tests.harness.environment import blank_environment, process_environment

ENDPOINT = "http://127.0.0.1:9"
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@pytest.mark.parametrize(
    ("variables", "loaded"),
    [
        ({}, "[]"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_EXPORTER_OTLP_HEADERS": "a=b,authorization of-a-vendor"},
            "['opentelemetry.sdk.trace', 'opentelemetry.exporter']",
        ),
    ],
)
def test_off_nothing_is_loaded_that_makes_or_sends_spans(variables: dict[str, str], loaded: str) -> None:
    """redis-py looks for OpenTelemetry's metrics itself."""
    asked = "[name for name in ('opentelemetry.sdk.trace', 'opentelemetry.exporter') if name in sys.modules]"
    code = f"import django, sys; django.setup(); print({asked})"
    own = {"DJANGO_SETTINGS_MODULE": "zerosource_project.settings", "DATABASE_URL": "sqlite://", **variables}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env={**process_environment(), **blank_environment(), **own},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"{loaded}\n"
    # A header that is none is told, but not what it holds.
    assert ("Header format invalid" in done.stderr) == bool(variables)
    assert "of-a-vendor" not in done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_off(variables: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    tracing.start(variables)
    assert not tracing.enabled()
    assert not caplog.records
    with tracing.span("nothing") as noted:
        noted["zerosource.rows"] = 1
    with pytest.raises(RuntimeError, match="off"):
        tracing.tracer()


@pytest.mark.parametrize(
    ("variables", "missing", "why"),
    [
        ({}, [EXPORTER], "the packages of requirements-tracing.txt are not installed"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, [], "is 'grpc', and only http/protobuf is spoken"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, [], "a variable of OpenTelemetry is wrong"),
    ],
)
def test_what_keeps_traces_from_being_sent_is_told(
    variables: dict[str, str],
    missing: list[str],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)  # read by OpenTelemetry itself
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    tracing.start({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, **variables})
    assert not tracing.enabled()
    (record,) = [record for record in caplog.records if record.name == "changesource.tracing"]
    assert (record.levelname, record.getMessage()) == ("WARNING", "traces are not sent")
    assert why in vars(record)["why"]


@pytest.mark.parametrize(
    ("endpoint", "quoted"),
    [
        ("http://collector:9/v1/traces?key=hunter2", "Max retries exceeded with url: /v1/traces?key=hunter2"),
        ("http://me:hunter2@/v1", "Invalid URL 'http://me:hunter2@/v1': No host supplied"),
        ("me:hunter2@collector:9", "No connection adapters were found for 'me:hunter2@collector:9'"),
    ],
)
def test_the_log_has_nothing_secret_of_the_endpoint(
    endpoint: str, quoted: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = tracing._Once(tracing._secrets({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}))
    handler.handle(logging.LogRecord("opentelemetry", logging.WARNING, "", 0, "%s", (quoted,), None))
    (record,) = caplog.records
    assert "***" in vars(record)["what"]
    assert "hunter2" not in vars(record)["what"]
