"""The Kubernetes manifests: valid, and right about each other and about the sidecar."""

import kubernetes_validate
import pytest

from ratelimit import Policy, __version__

from ..processes import run_ratelimit
from ..sidecars import run_sidecar
from .probes import run_probe
from .shipped import KUBERNETES, MIN_STOP, SETTINGS, find_manifest, read_manifests, read_seconds

OLDEST = "1.29"
"""The first Kubernetes whose sidecar containers are on by default; the README says so."""

MANIFESTS = [
    pytest.param(manifest, id=f"{file}:{manifest['kind']}:{manifest['metadata']['name']}")
    for file, manifest in read_manifests()
]
POLICY = "default_plan: free\nplans: {free: {limits: {requests: {rate: 100/second}}}}\n"


def limiter_of(deployment):
    """Return the container of the limiter, wherever it is in the pod."""
    pod = deployment["spec"]["template"]["spec"]
    containers = pod["containers"] + pod.get("initContainers", [])
    [found] = [container for container in containers if container["name"] == "ratelimit"]
    return found


def variables_of(container):
    return {variable["name"]: variable["value"] for variable in container["env"]}


def ports_of(container):
    return {port["name"]: port["containerPort"] for port in container["ports"]}


@pytest.fixture(params=["ratelimit", "gateway"])
def deployment(request):
    """Each Deployment: the service, and the gateway that has a sidecar."""
    return find_manifest("Deployment", request.param)


@pytest.fixture
def pod(deployment):
    return deployment["spec"]["template"]["spec"]


@pytest.fixture
def limiter(deployment):
    return limiter_of(deployment)


@pytest.fixture(scope="module")
def service():
    return find_manifest("Deployment", "ratelimit")


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_every_manifest_is_valid(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_not_valid():
    manifest = find_manifest("Service", "ratelimit")
    manifest["spec"]["selektor"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, OLDEST, strict=True)


def test_the_deployments_select_their_own_pods(deployment):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_everything_beside_the_service_selects_its_pods_and_no_gateway(service):
    labels = service["spec"]["template"]["metadata"]["labels"]
    gateway = find_manifest("Deployment", "gateway")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        find_manifest("Service", "ratelimit")["spec"]["selector"],
        find_manifest("PodDisruptionBudget", "ratelimit")["spec"]["selector"]["matchLabels"],
        find_manifest("NetworkPolicy", "ratelimit")["spec"]["podSelector"]["matchLabels"],
        *(
            constraint["labelSelector"]["matchLabels"]
            for constraint in service["spec"]["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert len(selectors) == 5
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
        assert not selector.items() <= gateway.items()


def test_the_service_has_several_pods_and_one_may_stop(service):
    assert service["spec"]["replicas"] >= 2
    assert find_manifest("PodDisruptionBudget", "ratelimit")["spec"]["maxUnavailable"] == 1
    assert service["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_all_ports_are_those_on_which_the_sidecar_listens(service):
    ports = ports_of(limiter_of(service))
    assert ports == {"http": 8080, "grpc": 8081}
    assert not {"RATELIMIT_PORT", "RATELIMIT_GRPC_PORT"} & variables_of(limiter_of(service)).keys()
    offered = find_manifest("Service", "ratelimit")["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in offered} == ports
    [rule] = find_manifest("NetworkPolicy", "ratelimit")["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == ports.keys()


def test_the_network_policy_lets_out_to_dns_and_the_store_only():
    spec = find_manifest("NetworkPolicy", "ratelimit")["spec"]
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    assert all(rule.get("from") for rule in spec["ingress"])
    assert all(rule.get("to") for rule in spec["egress"])
    assert sorted(port["port"] for rule in spec["egress"] for port in rule["ports"]) == [53, 53, 6379]


def test_the_policy_is_valid_and_safe_for_unknown_keys(tmp_path):
    [(name, text)] = find_manifest("ConfigMap", "ratelimit-policy")["data"].items()
    policy = Policy.from_text(text)
    assert policy.unknown_keys == "anonymous"
    for container in map(
        limiter_of, (find_manifest("Deployment", which) for which in ("ratelimit", "gateway"))
    ):
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert variables_of(container)["RATELIMIT_POLICY"] == f"{mounts['policy']['mountPath']}/{name}"
        assert "subPath" not in mounts["policy"]  # or a change of the ConfigMap would never arrive


def test_names_that_refer_to_other_objects_exist(pod, limiter):
    assert [source["secretRef"]["name"] for source in limiter["envFrom"]] == ["ratelimit"]
    assert find_manifest("Secret", "ratelimit")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"] + pod.get("initContainers", []):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
    assert find_manifest("ConfigMap", volumes["policy"]["configMap"]["name"])


def test_every_variable_is_a_setting(limiter):
    secrets = find_manifest("Secret", "ratelimit")["stringData"]
    assert (variables_of(limiter).keys() | secrets.keys()) <= SETTINGS
    assert not variables_of(limiter).keys() & secrets.keys()


def test_the_grace_period_is_longer_than_the_drain(pod, limiter):
    drain = read_seconds(variables_of(limiter)["RATELIMIT_DRAIN"])
    assert drain > 0
    assert pod["terminationGracePeriodSeconds"] > drain + MIN_STOP


def test_no_container_is_root_or_writes_anywhere_but_tmp(pod, limiter):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {**pod["securityContext"], **limiter["securityContext"]}["runAsUser"] > 0
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        for mount in container["volumeMounts"]:
            if not mount.get("readOnly"):
                assert (mount["mountPath"], "emptyDir" in volumes[mount["name"]]) == ("/tmp", True)  # noqa: S108 - in the container
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_an_outage_of_the_store_takes_no_pod_out_of_the_service(service):
    container = limiter_of(service)
    assert container["startupProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "http"}


def test_the_limiter_of_a_gateway_is_a_sidecar_container_on_loopback():
    container = limiter_of(find_manifest("Deployment", "gateway"))
    assert container["restartPolicy"] == "Always"
    assert variables_of(container)["RATELIMIT_HOST"] == "127.0.0.1"
    assert "readinessProbe" not in container
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"][0] == "python"  # the kubelet cannot connect to loopback


def test_a_service_of_this_name_would_set_a_variable_that_the_sidecar_refuses(pod, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    ended = run_ratelimit("serve", RATELIMIT_POLICY=str(policy), RATELIMIT_PORT="tcp://10.96.0.7:8080")
    assert ended.returncode == 2
    assert "RATELIMIT_PORT" in ended.stderr
    assert pod["enableServiceLinks"] is False


def test_the_sidecar_refuses_the_secret_until_every_value_is_filled_in(tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    secrets = find_manifest("Secret", "ratelimit")["stringData"]
    ended = run_ratelimit("serve", "--policy", str(policy), "--port", "0", **secrets)
    assert ended.returncode == 2
    for name in secrets:
        assert f"({name})" in ended.stderr


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
def test_the_probe_of_a_sidecar_container_tells_whether_it_is_alive(probe):
    container = limiter_of(find_manifest("Deployment", "gateway"))
    command = container[probe]["exec"]["command"]
    with run_sidecar(policy=POLICY) as sidecar:
        command = [part.replace(":8080/", f":{sidecar.port}/") for part in command]
        assert run_probe(command) == 0
        sidecar.kill()
        assert run_probe(command) != 0


def test_the_image_has_the_version_of_the_program(limiter):
    assert limiter["image"] == f"ratelimit:{__version__}"
    assert f"--tag {limiter['image']} " in (KUBERNETES.parent / "README.md").read_text()


def test_the_readme_applies_every_file():
    readme = (KUBERNETES.parent / "README.md").read_text()
    for file in KUBERNETES.glob("*.yaml"):
        assert f"-f {file.name}" in readme
    assert f"Kubernetes {OLDEST} or newer" in readme
