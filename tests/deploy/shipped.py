"""The files of examples/deploy, read."""

from pathlib import Path

import yaml

from service.settings import Settings, parse_duration

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

MIN_STOP = 15
"""Seconds that a sidecar needs after its drain; docs/operations/running.md says so."""

SETTINGS = {f"RATELIMIT_{name.upper()}" for name in Settings.model_fields}


def read_manifests():
    """Return all Kubernetes objects as (file name, object)."""
    return [
        (file.name, manifest)
        for file in sorted(KUBERNETES.glob("*.yaml"))
        for manifest in yaml.safe_load_all(file.read_text())
    ]


def find_manifest(kind, name):
    """Return the only Kubernetes object of a kind and name."""
    [found] = [
        manifest
        for _, manifest in read_manifests()
        if manifest["kind"] == kind and manifest["metadata"]["name"] == name
    ]
    return found


def read_seconds(text):
    """Return a duration as the settings read it, in seconds."""
    return parse_duration(text)
