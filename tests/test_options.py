"""The options of the node: every flag of nsqd, its default, its key, /config, and the page made of them."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pynsqd.options import Options, TlsRequired, checked, expanded_statsd_prefix
from pynsqd.runtime.fields import check_limits, config_value, declared, idle_notice
from pynsqd.runtime.flags import build_options, flags_of, parse_flags, read_config_file
from pynsqd.runtime.kinds import LogLevel

ROOT = Path(__file__).parent.parent

# PROTOCOL 4.1: flag, config key, default as /config shows it (2.6).
NSQD = [
    ("log-level", "log_level", 2),
    ("log-prefix", "log_prefix", "[nsqd] "),
    ("tcp-address", "tcp_address", "0.0.0.0:4150"),
    ("http-address", "http_address", "0.0.0.0:4151"),
    ("https-address", "https_address", "0.0.0.0:4152"),
    ("broadcast-tcp-port", "broadcast_tcp_port", 0),
    ("broadcast-http-port", "broadcast_http_port", 0),
    ("lookupd-tcp-address", "nsqlookupd_tcp_addresses", []),
    ("auth-http-address", "auth_http_addresses", []),
    ("auth-http-request-method", "auth_http_request_method", "get"),
    ("http-client-connect-timeout", "http_client_connect_timeout", 2_000_000_000),
    ("http-client-request-timeout", "http_client_request_timeout", 5_000_000_000),
    ("topology-region", "topology_region", ""),
    ("topology-zone", "topology_zone", ""),
    ("enable-experiment", "enable_experiment", []),
    ("data-path", "data_path", ""),
    ("mem-queue-size", "mem_queue_size", 10000),
    ("max-bytes-per-file", "max_bytes_per_file", 104857600),
    ("sync-every", "sync_every", 2500),
    ("sync-timeout", "sync_timeout", 2_000_000_000),
    ("queue-scan-worker-pool-max", "queue_scan_worker_pool_max", 4),
    ("queue-scan-selection-count", "queue_scan_selection_count", 20),
    ("msg-timeout", "msg_timeout", 60_000_000_000),
    ("max-msg-timeout", "max_msg_timeout", 900_000_000_000),
    ("max-msg-size", "max_msg_size", 1048576),
    ("max-req-timeout", "max_req_timeout", 3_600_000_000_000),
    ("max-body-size", "max_body_size", 5242880),
    ("max-heartbeat-interval", "max_heartbeat_interval", 60_000_000_000),
    ("max-rdy-count", "max_rdy_count", 2500),
    ("max-output-buffer-size", "max_output_buffer_size", 65536),
    ("max-output-buffer-timeout", "max_output_buffer_timeout", 30_000_000_000),
    ("min-output-buffer-timeout", "min_output_buffer_timeout", 25_000_000),
    ("output-buffer-timeout", "output_buffer_timeout", 250_000_000),
    ("max-channel-consumers", "max_channel_consumers", 0),
    ("statsd-address", "statsd_address", ""),
    ("statsd-interval", "statsd_interval", 60_000_000_000),
    ("statsd-mem-stats", "statsd_mem_stats", True),
    ("statsd-prefix", "statsd_prefix", "nsq.%s"),
    ("statsd-udp-packet-size", "statsd_udp_packet_size", 508),
    ("statsd-exclude-ephemeral", "statsd_exclude_ephemeral", False),
    ("e2e-processing-latency-percentile", "e2e_processing_latency_percentiles", []),
    ("e2e-processing-latency-window-time", "e2e_processing_latency_window_time", 600_000_000_000),
    ("tls-cert", "tls_cert", ""),
    ("tls-key", "tls_key", ""),
    ("tls-client-auth-policy", "tls_client_auth_policy", ""),
    ("tls-root-ca-file", "tls_root_ca_file", ""),
    ("tls-required", "tls_required", 0),
    ("tls-min-version", "tls_min_version", 771),
    ("tls-security-level", "tls_security_level", 2),
    ("deflate", "deflate", True),
    ("max-deflate-level", "max_deflate_level", 6),
    ("snappy", "snappy", True),
]
WITHOUT_FIXED_DEFAULT = ["node-id", "broadcast-address"]
WITHOUT_KEY = ["verbose", "worker-id", "version", "config", "build-info"]


def options(*arguments: str) -> Options:
    return build_options(Options, parse_flags(flags_of(Options), arguments), {}, {})


@pytest.mark.parametrize(("flag", "key", "default"), NSQD)
def test_a_flag_of_nsqd_has_its_key_and_default(flag: str, key: str, default: object) -> None:
    (declaration,) = [each for each in flags_of(Options) if each.name == flag]
    assert declaration.key == key
    assert json.dumps(config_value(Options(), key)) == json.dumps(default)


def test_there_are_no_other_flags() -> None:
    ours = [
        "log-format",
        "durability",
        "checkpoint-interval",
        "mem-queue-bytes",
        "drain-timeout",
        "max-connections",
        "max-topics",
        "max-channels",
        "http-api-key-file",
    ]
    assert {each.name for each in flags_of(Options)} == {
        *(flag for flag, _, _ in NSQD),
        *WITHOUT_FIXED_DEFAULT,
        *WITHOUT_KEY,
        *ours,
    }


def test_fields_are_named_as_their_keys_and_times_carry_their_unit() -> None:
    for name, declaration in declared(Options):
        if declaration.key:
            assert name == declaration.key + ("_ns" if declaration.kind.word == "duration" else "")


@pytest.mark.parametrize("key", ["node_id", "lookupd_tcp_address", "verbose", "worker_id", "config", "version", "nope"])
def test_config_knows_no_other_keys(key: str) -> None:
    assert config_value(Options(), key) is None


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("--node-id=0x10", "id", 16),
        ("--log-level=Error", "log_level", 4),
        ("--lookupd-tcp-address=a:1", "nsqlookupd_tcp_addresses", ["a:1"]),
        ("--e2e-processing-latency-percentile=0.5,1", "e2e_processing_latency_percentiles", [1, 0.5]),
        ("--tls-required", "tls_required", 2),
        ("--tls-required=tRUE", "tls_required", 2),
        ("--tls-required=0", "tls_required", 0),
        ("--tls-required=TCP-https", "tls_required", 1),
        ("--tls-min-version=TLS1.3", "tls_min_version", 772),
        ("--tls-min-version=", "tls_min_version", 771),
        ("--deflate=false", "deflate", False),
        ("--sync-timeout=1m30s", "sync_timeout", 90_000_000_000),
        ("--log-prefix=", "log_prefix", ""),
        ("--auth-http-request-method=post", "auth_http_request_method", "post"),
        ("--log-format=json", "log_format", "json"),
    ],
)
def test_config_shows_what_was_given(argument: str, key: str, value: object) -> None:
    assert json.dumps(config_value(options(argument), key)) == json.dumps(value)


@pytest.mark.parametrize(
    "argument",
    [
        "--tls-min-version=ssl3.0",
        "--tls-required=maybe",
        "--auth-http-request-method=GET",
        "--log-format=text",
        "--worker-id=5",
        "--log-level=loud",
    ],
)
def test_a_bad_value_is_a_usage_error(argument: str) -> None:
    with pytest.raises(Exception, match=r"^invalid value "):
        options(argument)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("tls_required = true", "tls_required", TlsRequired.YES),
        ("tls_required = 1", "tls_required", TlsRequired.YES),
        ('tls_required = "tcp-https"', "tls_required", TlsRequired.TCP_HTTPS),
        ('tls_min_version = ""', "tls_min_version", 771),
        ('tls_min_version = "tls1.2"', "tls_min_version", 771),
        ('log_level = "debug"', "log_level", LogLevel.DEBUG),
        ("id = 7", "id", 7),
        ("e2e_processing_latency_percentiles = [0.5, 1]", "e2e_processing_latency_percentiles", (0.5, 1.0)),
        ("msg_timeout = 1500", "msg_timeout_ns", 1_500_000_000),
    ],
)
def test_the_config_file(tmp_path: Path, line: str, field: str, value: object) -> None:
    (tmp_path / "nsqd.toml").write_text(line)
    file = read_config_file(Options, str(tmp_path / "nsqd.toml"))
    assert getattr(build_options(Options, {}, file, {}), field) == value


BROKEN: list[tuple[dict[str, Any], str]] = [
    # nsqd refuses these (3.1)
    ({"max_deflate_level": 0}, "--max-deflate-level must be [1,9]"),
    ({"max_deflate_level": 10}, "--max-deflate-level must be [1,9]"),
    ({"id": -1}, "--node-id must be [0,1024)"),
    ({"id": 1024}, "--node-id must be [0,1024)"),
    # nsqd panics or goes wrong later with these (4.1)
    ({"output_buffer_timeout_ns": 0}, "--output-buffer-timeout must be more than 0"),
    ({"sync_timeout_ns": 0}, "--sync-timeout must be more than 0"),
    ({"mem_queue_size": -1}, "--mem-queue-size must be at least 0"),
    ({"queue_scan_selection_count": 0}, "--queue-scan-selection-count must be more than 0"),
    # a message that is due at once, for ever
    ({"msg_timeout_ns": 0}, "--msg-timeout must be more than 0"),
    ({"max_msg_size": 0}, "--max-msg-size must be more than 0"),
    ({"broadcast_tcp_port": 65536}, "--broadcast-tcp-port must be [0,65535]"),
]


@pytest.mark.parametrize(("values", "text"), BROKEN)
def test_a_value_that_cannot_work_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_limits(Options(**values))
    assert str(refused.value) == text


def test_the_edges_that_work_pass() -> None:
    check_limits(Options(max_deflate_level=9, id=1023, mem_queue_size=0, sync_every=0, max_channel_consumers=0))


CONTRADICTORY: list[tuple[dict[str, Any], str]] = [
    ({"tls_required": TlsRequired.YES}, "cannot require TLS client connections without TLS key and cert"),
    ({"tls_required": TlsRequired.TCP_HTTPS}, "cannot require TLS client connections without TLS key and cert"),
    ({"tls_client_auth_policy": "require"}, "cannot require TLS client connections without TLS key and cert"),
    ({"e2e_processing_latency_percentiles": (0.5, 99.0)}, "invalid E2E processing latency percentile: 99"),
    ({"e2e_processing_latency_percentiles": (0.0,)}, "invalid E2E processing latency percentile: 0"),
    ({"e2e_processing_latency_percentiles": (1.5,)}, "invalid E2E processing latency percentile: 1.5"),
    ({"e2e_processing_latency_percentiles": (float("nan"),)}, "invalid E2E processing latency percentile: nan"),
    ({"statsd_address": "h:1", "statsd_interval_ns": 1_000_000_000}, "--statsd-interval must be more than 1s"),
]


@pytest.mark.parametrize(("values", "text"), CONTRADICTORY)
def test_options_that_contradict_each_other_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as refused:
        checked(Options(**values))
    assert str(refused.value) == text


def test_options_that_fit_stay_as_they_are() -> None:
    fitting = Options(
        tls_required=TlsRequired.TCP_HTTPS,
        tls_cert="c",
        tls_client_auth_policy="require",
        e2e_processing_latency_percentiles=(1.0, 0.01),
        statsd_interval_ns=0,  # of no account without an address
    )
    assert checked(fitting) == fitting


def test_a_client_auth_policy_requires_tls() -> None:
    asked = Options(tls_client_auth_policy="require", tls_key="k")
    assert checked(asked) == replace(asked, tls_required=TlsRequired.YES)


def test_the_notice_names_flags_that_wait_for_their_part() -> None:
    given = options("--tls-cert=c", "--topology-zone=z", "--worker-id", "--msg-timeout=1s").given
    assert idle_notice(Options, given) == (
        "options that change nothing: --worker-id (no effect), --topology-zone (not yet)"
    )


@pytest.mark.parametrize(
    ("prefix", "host", "expanded"),
    [
        ("nsq.%s", "127.0.0.1", "nsq.127_0_0_1_4151."),
        ("nsq.%s.", "a.b", "nsq.a_b_4151."),
        ("%s-%s", "h", "h_4151-h_4151."),
        ("fixed", "h", "fixed."),
        ("", "h", ""),
        ("%s", "::1", "[__1]_4151."),
    ],
)
def test_the_statsd_prefix(prefix: str, host: str, expanded: str) -> None:
    assert expanded_statsd_prefix(prefix, host, 4151) == expanded


def test_the_configuration_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate_configuration", ROOT / "docs/generate_configuration.py")
    assert spec and spec.loader
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == generator.page(), "run python docs/generate_configuration.py"
