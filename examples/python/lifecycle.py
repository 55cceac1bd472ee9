"""The life of an environment, as a provisioning service would manage it: added, waited for, its key rotated, removed.

The SDK keys come from the variables SDK_KEY and NEW_SDK_KEY. Everything may be run again: what is there already is taken
as it is.
"""

import argparse
import os
import sys
import time
import uuid

import grpc
from grpc_status import rpc_status
from google.rpc import error_details_pb2

from flotilla.v1 import environment_pb2 as api
from flotilla.v1 import environment_pb2_grpc as services

# For an answer; a watch has none.
REQUEST_SECONDS = 10
# What passes, such as a restart of control, is waited for.
RETRIES = 5


def reason(error):
    """Why control refused something: a word of docs/errors.md. None: it was not control that refused."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "flotilla":
            return info.reason
    return None


def passes(error):
    """Whether the same may succeed a little later."""
    is_lost = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return is_lost and reason(error) in (None, "SHUTTING_DOWN")


def call(method, request):
    """Makes a call, and makes it again when it may have been lost: with the same request_id it is done once."""
    if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
        request.request_id = str(uuid.uuid4())
    for attempt in range(RETRIES):
        try:
            return method(request, timeout=REQUEST_SECONDS)
        except grpc.RpcError as error:
            if not passes(error) or attempt + 1 == RETRIES:
                raise
            time.sleep(0.1 * 2**attempt)


def watch(environments, name, deadline):
    """Yields the environment as it is, and after every change; None when there is none. Goes on where a stream broke."""
    revision = ""
    while True:
        snapshot = None if revision else {}
        request = api.WatchEnvironmentsRequest(
            filter=api.EnvironmentFilter(names=[name]), resume_from_revision=revision
        )
        try:
            for message in environments.WatchEnvironments(request, timeout=max(deadline - time.monotonic(), 0)):
                event = message.WhichOneof("event")
                if event == "changed" and snapshot is not None:
                    snapshot[message.changed.name] = message.changed
                    continue
                revision = message.revision or revision
                if event == "changed":
                    yield message.changed
                elif event == "removed":
                    yield None
                elif snapshot is not None:
                    yield snapshot.get(name)
                    snapshot = None
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                # Control was started again, or that is too long ago: everything is told anew.
                revision = ""
            elif not passes(error) or time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def wait_until(environments, name, is_reached, seconds=60):
    """Waits until the environment is as wanted, and returns it."""
    for environment in watch(environments, name, time.monotonic() + seconds):
        if is_reached(environment):
            return environment


def is_current(environment):
    if environment is None:
        raise SystemExit("error: somebody removed it meanwhile")
    return environment.status.initialization == api.INITIALIZATION_CURRENT


def rotation(environment):
    """Condition KeyRotation: unknown while the new key is tried, then true or false. None: none is under way."""
    if environment is None:
        raise SystemExit("error: somebody removed it meanwhile")
    for condition in environment.status.conditions:
        if condition.type == "KeyRotation":
            return condition
    return None


def is_rotated(begun):
    def reached(environment):
        condition = rotation(environment)
        if condition is None:
            # It was the key in force already, or the new one has been put in force.
            return rotation(begun) is None or environment.generation > begun.generation
        if condition.status == api.CONDITION_STATUS_FALSE:
            raise SystemExit(f"error: the new key was refused ({condition.reason}): {condition.message}")
        return condition.status == api.CONDITION_STATUS_TRUE

    return reached


def add(environments, name, prefix, sdk_key):
    request = api.CreateEnvironmentRequest(
        name=name, spec=api.EnvironmentSpec(prefix=prefix, labels={"managed-by": "example"}), sdk_key=sdk_key
    )
    try:
        call(environments.CreateEnvironment, request)
        print(f"environment/{name} created")
    except grpc.RpcError as error:
        if reason(error) != "NAME_TAKEN":
            raise
        print(f"environment/{name} is there already")


def label(environments, name, key, value):
    """Changes only what was read: an etag keeps two writers from undoing each other."""
    for attempt in range(RETRIES):
        environment = call(environments.GetEnvironment, api.GetEnvironmentRequest(name=name)).environment
        environment.spec.labels[key] = value
        request = api.UpdateEnvironmentRequest(name=name, spec=environment.spec, etag=environment.etag)
        request.update_mask.paths.append("labels")
        try:
            call(environments.UpdateEnvironment, request)
            return
        except grpc.RpcError as error:
            if reason(error) != "ETAG_MISMATCH" or attempt + 1 == RETRIES:
                raise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", default="127.0.0.1:7400", help="HOST:PORT of control (default: %(default)s)")
    parser.add_argument("--name", default="example", help="name of the environment (default: %(default)s)")
    parser.add_argument("--prefix", default="ld:example", help="its prefix in Redis (default: %(default)s)")
    options = parser.parse_args()
    name = options.name
    with grpc.insecure_channel(options.control) as channel:
        environments = services.EnvironmentServiceStub(channel)
        add(environments, name, options.prefix, os.environ["SDK_KEY"])
        current = wait_until(environments, name, is_current)
        print(f"environment/{name} current: {current.status.flags} flags")
        label(environments, name, "team", "checkout")
        print(f"environment/{name} updated")
        request = api.RotateSdkKeyRequest(name=name, sdk_key=os.environ["NEW_SDK_KEY"])
        begun = call(environments.RotateSdkKey, request).environment
        wait_until(environments, name, is_rotated(begun))
        print(f"environment/{name} key rotated")
        call(environments.DeleteEnvironment, api.DeleteEnvironmentRequest(name=name, purge=True))
        wait_until(environments, name, lambda environment: environment is None)
        print(f"environment/{name} removed")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        # The message of a refusal is written for people, and never holds a key.
        sys.exit(f"error: {error.details()} ({reason(error) or error.code().name})")
