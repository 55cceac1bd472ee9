"""Evaluates the cases of a file with the LaunchDarkly SDK for Python; see ../README.md for the interface."""

import argparse
import json
import logging
import sys
from urllib.parse import urlencode

import ldclient
from ldclient.config import Config
from ldclient.feature_store import CacheConfig
from ldclient.integrations import Redis

INITIALIZATION_SECONDS = 10


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["daemon", "direct"], required=True)
    parser.add_argument("--redis-url")
    parser.add_argument("--prefix")
    parser.add_argument("--tls-ca")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--base")
    parser.add_argument("--stream")
    parser.add_argument("--sdk-key", default="sdk-reader")
    parser.add_argument("--cases", required=True)
    parser.add_argument("--interactive", action="store_true")
    return parser.parse_args()


def redis_url_of(chosen):
    """In redis-py's words: its URLs name sockets and the files of TLS otherwise."""
    if chosen.redis_url.startswith("redis+unix://"):
        return chosen.redis_url.removeprefix("redis+")
    files = {"ssl_ca_certs": chosen.tls_ca, "ssl_certfile": chosen.tls_cert, "ssl_keyfile": chosen.tls_key}
    query = urlencode({name: file for name, file in files.items() if file})
    return f"{chosen.redis_url}?{query}" if query else chosen.redis_url


def client_of(chosen):
    quiet = {"send_events": False, "diagnostic_opt_out": True}
    if chosen.mode == "daemon":
        store = Redis.new_feature_store(
            url=redis_url_of(chosen), prefix=chosen.prefix, caching=CacheConfig.disabled()
        )
        config = Config(chosen.sdk_key, feature_store=store, use_ldd=True, **quiet)
    else:
        config = Config(chosen.sdk_key, base_uri=chosen.base, stream_uri=chosen.stream, **quiet)
    return ldclient.LDClient(config=config, start_wait=INITIALIZATION_SECONDS)


def evaluated(client, case):
    context = ldclient.Context.from_dict(case["context"])
    detail = client.variation_detail(case["flag"], context, case["default"])
    reason = detail.reason["kind"]
    if reason == "ERROR":
        reason += ":" + detail.reason["errorKind"]
    return {
        "flag": case["flag"],
        "value": detail.value,
        "variation": detail.variation_index,
        "reason": reason,
    }


def evaluation(client, fixture):
    state = client.all_flags_state(ldclient.Context.from_dict(fixture["allFlagsContext"]))
    return {
        "cases": [evaluated(client, case) for case in fixture["cases"]],
        "allFlags": {"valid": state.valid, "values": state.to_values_map()},
    }


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    chosen = options()
    with open(chosen.cases, encoding="utf-8") as file:
        fixture = json.load(file)
    client = client_of(chosen)
    for _ in sys.stdin if chosen.interactive else [None]:
        print(json.dumps(evaluation(client, fixture)), flush=True)
    client.close()


main()
