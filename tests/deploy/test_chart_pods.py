"""The pods of the chart: Pod Security *restricted*, no token, no secret in plain text, each with what it needs."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import CHART, CI_FILES, RELEASE, USUAL, Object, Rendered, helm, refusal, render

pytestmark = pytest.mark.deploy

#: Volumes that the profile *restricted* allows.
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"),
    "secret",
}
OURS = {"serve", "worker", "migrate", "sweep", "audit-verify", "test"}
TEMPORARY = ("/tmp", "/dev/shm", "/var/run/postgresql", "/var/lib/memvault")


def containers(spec: Object) -> list[Object]:
    return [*spec["containers"], *spec.get("initContainers", [])]


def secret_files(spec: Object) -> dict[str, tuple[str, str]]:
    """The settings that a pod gets as files: secret and key."""
    (volume,) = [one for one in spec["volumes"] if one["name"] == "secrets"]
    sources = [source["secret"] for source in volume["projected"]["sources"]]
    return {item["path"]: (source["name"], item["key"]) for source in sources for item in source["items"]}


@pytest.mark.parametrize("ci", CI_FILES)
def test_every_pod_is_restricted(ci: str) -> None:
    """Rule by rule what Pod Security Standards say of *restricted*, and a root file system that stays as it is."""
    pods = render(ci).pods()
    assert {"serve", "test"} <= set(pods)
    for component, spec in pods.items():
        for forbidden in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
            assert not spec.get(forbidden), component
        own = spec["securityContext"]
        assert own["runAsNonRoot"] is True
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own.get("runAsUser") != 0
        assert "sysctls" not in own
        assert all(set(volume) - {"name"} <= VOLUMES for volume in spec["volumes"]), component
        for container in containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["runAsNonRoot"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not context.get("privileged")
            assert all("hostPort" not in port for port in container.get("ports", []))
            assert container["resources"]["limits"]["memory"], component
            assert container["resources"]["requests"]["cpu"], component


@pytest.mark.parametrize("ci", CI_FILES)
def test_no_pod_has_a_token_or_the_variables_of_other_services(ci: str) -> None:
    """A Service called memvault would give every pod variables MEMVAULT_PORT…, which are no settings."""
    rendered = render(ci)
    for spec in rendered.pods().values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
    assert all(one["automountServiceAccountToken"] is False for one in rendered.of("ServiceAccount").values())
    assert not [one for one in rendered.objects if "Role" in one["kind"]]


def test_our_pods_run_as_the_images_user_and_platforms_may_choose() -> None:
    for component in OURS:
        own = render("external").pods()[component]["securityContext"]
        assert (own["runAsUser"], own["runAsGroup"], own["fsGroup"]) == (10001, 10001, 10001)
        left = render("openshift").pods()[component]["securityContext"]
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(left)


@pytest.mark.parametrize("ci", CI_FILES)
def test_no_pod_needs_a_folder_that_belongs_to_the_images_user(ci: str) -> None:
    """The folder that the image starts in is its user's; whoever else a platform chooses may not go into it."""
    for component, spec in render(ci, "restored.enabled=true").pods().items():
        paths = [mount["mountPath"] for mount in containers(spec)[0]["volumeMounts"]]
        assert "/var/lib/memvault" in paths or component in {"postgresql", "qdrant"}, component


@pytest.mark.parametrize("ci", CI_FILES)
def test_no_secret_is_in_plain_text(ci: str) -> None:
    """Values of secrets stand in no object but a Secret, which there is only for what the chart makes itself."""
    rendered = render(ci)
    secrets = rendered.of("Secret")
    made = "try" in ci
    assert set(secrets) == ({"generated"} if made else set())
    values = [base64.b64decode(value).decode() for one in secrets.values() for value in one["data"].values()]
    assert all(len(value) >= 32 for value in values)
    others = yaml.safe_dump([one for one in rendered.objects if one["kind"] != "Secret"])
    assert not [value for value in values if value in others or base64.b64encode(value.encode()).decode() in others]
    for component, spec in rendered.pods().items():
        for variable in spec["containers"][0].get("env", []):
            secret = re.search(r"PASSWORD|TOKEN|_KEY$|__URL$|SECRET(?!S_DIR)", variable["name"])
            assert ("valueFrom" in variable) == bool(secret), f"{component}: {variable['name']}"
    assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", others), "a URL with a password"


def test_the_kept_secret_loses_nothing_that_it_has(tmp_path: Path) -> None:
    """A copy of the chart finds the secret of an earlier upgrade, which only a cluster could hand to it."""
    keys = ("wrapping-key", "keyring-url", "audit-signing.pem", "bootstrap-key", "app-password", "url")
    kept = {key: base64.b64encode(f"\xff the {key}".encode("latin-1")).decode() for key in keys}
    chart = tmp_path / "memvault"
    shutil.copytree(CHART, chart)
    template = chart / "templates" / "secret.yaml"
    asked = 'lookup "v1" "Secret" .Release.Namespace $name'
    assert asked in template.read_text(encoding="utf-8")
    found = f"fromJson `{json.dumps({'data': kept})}`"
    template.write_text(template.read_text(encoding="utf-8").replace(asked, found), encoding="utf-8")
    own = 'keyring.existingSecret="k"', 'audit.existingSecret="a"', 'bootstrap.existingSecret="b"'
    for sets in ((), own, (*own, "generateSecrets=false"), ('keyring.existingClaim="keys"',)):
        more = [argument for one in (*sets, "networkPolicy.enabled=false") for argument in ("--set-json", one)]
        done = helm("template", "mem", str(chart), "--values", str(CHART / "ci" / "try-values.yaml"), *more)
        assert done.returncode == 0, done.stderr
        (secret,) = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Secret"]
        # The URL is the chart's to write; its password is the kept one.
        assert {key: secret["data"][key] for key in keys if not key.endswith("url")} == {
            key: value for key, value in kept.items() if not key.endswith("url")
        }, sets
        assert {"url", "keyring-url"} <= set(secret["data"])
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_key_before_a_rotation_comes_from_a_secret_of_ones_own() -> None:
    told = refusal("try", 'audit.previousSigningKeyKey="old.pem"')
    assert "audit.previousSigningKeyKey: needs audit.existingSecret" in told


@pytest.mark.parametrize("ci", CI_FILES)
def test_what_is_mounted_is_there_and_secrets_are_not_for_everyone(ci: str) -> None:
    for component, spec in render(ci).pods().items():
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = containers(spec)[0]["volumeMounts"]
        claimed = {"data"} if component in {"postgresql", "qdrant"} else set()
        assert {mount["name"] for mount in mounts} == set(volumes) | claimed, component
        for volume in volumes.values():
            for kind in ("secret", "projected"):
                if kind in volume:
                    assert volume[kind]["defaultMode"] & 0o007 == 0, f"{component}: {volume['name']}"
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], f"{component}: {volume['name']} may fill the node"
        for mount in mounts:
            writable = mount["mountPath"].startswith(TEMPORARY) or mount["mountPath"] == "/qdrant/storage"
            assert mount.get("readOnly", False) or writable or "postgresql" in mount["mountPath"], mount


def test_only_the_migration_gets_the_owners_url() -> None:
    for ci in ("external", "try", "checkpoints-folder"):
        pods = render(ci).pods()
        for component in OURS - {"test"}:
            files = secret_files(pods[component])
            assert "MEMVAULT_DATABASE__URL" in files
            assert ("MEMVAULT_DATABASE__OWNER_URL" in files) == (component == "migrate")
            assert "owner-url" not in [key for path, (_, key) in files.items() if "OWNER" not in path]


def test_each_pod_gets_its_secrets_and_no_others() -> None:
    everything = render(
        "checkpoints-s3",
        'llm={"existingSecret": "memvault-llm"}',
        'metrics={"existingSecret": "memvault-metrics"}',
        'telemetry={"existingSecret": "memvault-otlp"}',
        'database.maintenanceUrlKey="maintenance-url"',
    ).pods()
    got = {
        component: {path.removeprefix("MEMVAULT_") for path in secret_files(everything[component])}
        for component in OURS - {"test"}
    }
    record = {"DATABASE__URL", "KEYRING__URL", "KEYRING__WRAPPING_KEY"}
    served = record | {"INDEX__API_KEY", "LLM__API_KEY", "METRICS__TOKEN", "TELEMETRY__HEADERS"}
    s3 = {"AUDIT__S3__ACCESS_KEY_ID", "AUDIT__S3__SECRET_ACCESS_KEY"}
    assert got == {
        "serve": served | {"BOOTSTRAP_KEY"},
        "worker": served | s3 | {"DATABASE__MAINTENANCE_URL"},
        "migrate": record | {"DATABASE__OWNER_URL"},
        "sweep": record,
        "audit-verify": record,
    }
    assert "secrets" not in [volume["name"] for volume in everything["test"]["volumes"]]


def signing(rendered: Rendered) -> set[str]:
    """The components that hold the private key of the trail."""
    return {
        component
        for component, spec in rendered.pods().items()
        if any(volume.get("secret", {}).get("secretName") == "memvault-audit" for volume in spec["volumes"])
    }


def test_the_signing_key_is_where_the_worker_runs() -> None:
    assert signing(render("external")) == {"worker", "audit-verify"}
    assert signing(render("checkpoints-s3")) == {"worker"}, "the verification has the public keys"
    assert signing(render("one-process")) == {"serve", "audit-verify"}
    (volume,) = [one for one in render("checkpoints-s3").pods()["worker"]["volumes"] if one["name"] == "signing"]
    keys = [("audit-signing.pem", "key.pem"), ("previous.pem", "previous.pem")]
    assert [(item["key"], item["path"]) for item in volume["secret"]["items"]] == keys


def test_the_checkpoints_are_written_by_the_worker_and_read_by_the_verification() -> None:
    mounts = {
        component: mount.get("readOnly", False)
        for component, spec in render("checkpoints-folder").pods().items()
        for mount in spec["containers"][0]["volumeMounts"]
        if mount["name"] == "checkpoints"
    }
    assert mounts == {"worker": False, "audit-verify": True}


@pytest.mark.parametrize("ci", CI_FILES)
def test_our_containers_need_no_shell(ci: str) -> None:
    """The image's command with arguments; probes by HTTP only."""
    for component, spec in render(ci).pods().items():
        if component not in OURS:
            continue
        (container,) = containers(spec)
        assert "command" not in container
        assert container["args"][0] in {"serve", "worker", "migrate", "retention", "audit", "health"}
        assert not {"lifecycle"} & set(container), "the service drains by itself"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert (probe in container) == (component in {"serve", "worker"})
            if probe in container:
                assert set(container[probe]) & {"httpGet", "exec", "tcpSocket", "grpc"} == {"httpGet"}


def test_probes_ask_the_port_that_is_listened_on() -> None:
    for ci in ("external", "one-process"):
        for component in set(render(ci).pods()) & {"serve", "worker"}:
            (container,) = render(ci).pods()[component]["containers"]
            config: Any = render(ci).config(component)
            (port,) = container["ports"]
            wanted = config["server"]["port"] if component == "serve" else config["metrics"]["port"]
            assert port["containerPort"] == wanted
            assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
            assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
            assert container["startupProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}


def test_no_pod_is_killed_before_it_has_drained() -> None:
    """Drain, requests under way and jobs, and ten seconds more; and readiness is seen to go before the drain ends."""
    usual = render("external").pods()
    assert usual["serve"]["terminationGracePeriodSeconds"] == 10 + 10 + 10 + 10
    assert usual["worker"]["terminationGracePeriodSeconds"] == 10 + 10
    longer = render(
        "external", 'config={"server": {"grace_seconds": 60}, "queue": {"stop_seconds": 90}}', "serve.drainSeconds=20"
    )
    assert longer.pods()["serve"]["terminationGracePeriodSeconds"] == 20 + 60 + 90 + 10
    assert longer.pods()["worker"]["terminationGracePeriodSeconds"] == 90 + 10
    assert longer.config("serve")["server"]["drain_seconds"] == 20
    probe, drain = usual["serve"]["containers"][0]["readinessProbe"], render("external").config("serve")["server"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < drain["drain_seconds"]


def test_a_changed_setting_makes_new_pods() -> None:
    def checksum(*sets: str) -> str:
        deployment = render("external", *sets).of("Deployment")["serve"]
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum() != checksum('config={"log": {"level": "debug"}}')
    assert checksum() == checksum("serve.replicas=5")


def test_the_image_is_one_and_can_come_from_a_mirror() -> None:
    digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    for component, spec in render("air-gapped").pods().items():
        assert spec["containers"][0]["image"] == f"mirror.example.com:5000/apps/memvault@{digest}", component
        assert spec["imagePullSecrets"] == [{"name": "mirror"}]
    assert render("external").pods()["serve"]["containers"][0]["image"] == "memvault:0.1.0"
    assert render("external", 'image.tag="0.2.0"').pods()["worker"]["containers"][0]["image"] == "memvault:0.2.0"
    qdrant = render("try-own-database").pods()["qdrant"]["containers"][0]["image"]
    assert qdrant.startswith("mirror.example.com:5000/qdrant/qdrant:")


def test_services_and_workers_are_spread_and_replaced_one_by_one() -> None:
    rendered = render("external")
    for name in ("serve", "worker"):
        spec = rendered.of("Deployment")[name]["spec"]
        assert spec["replicas"] == 2
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        spread = spec["template"]["spec"]["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        budget = rendered.of("PodDisruptionBudget")[name]["spec"]
        assert budget["maxUnavailable"] == 1
        for selector in (budget["selector"], *(one["labelSelector"] for one in spread)):
            assert selector["matchLabels"] == spec["selector"]["matchLabels"]


def test_autoscaling_takes_the_number_of_pods_over() -> None:
    rendered = render("autoscaling")
    for name in ("serve", "worker"):
        assert "replicas" not in rendered.of("Deployment")[name]["spec"]
        scaler = rendered.of("HorizontalPodAutoscaler")[name]["spec"]
        assert scaler["scaleTargetRef"] == {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": f"mem-memvault-{name}",
        }
        assert scaler["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    served = rendered.of("HorizontalPodAutoscaler")["serve"]["spec"]
    assert [one["type"] for one in served["metrics"]] == ["Resource", "Pods"]
    assert served["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert not render("external").of("HorizontalPodAutoscaler")


@pytest.mark.parametrize("component", ["serve", "worker"])
def test_autoscaling_has_something_to_go_by_and_room(component: str) -> None:
    by_load = f"{component}.autoscaling"
    nothing = (f"{by_load}.targetCPU=0", f"{by_load}.metrics=[]")
    assert f"{by_load}.metrics: is needed with targetCPU=0" in refusal("autoscaling", *nothing)
    assert f"{by_load}.minReplicas: is more than maxReplicas" in refusal("autoscaling", f"{by_load}.minReplicas=21")
    # Neither is looked at where it is off.
    assert not render("external", *nothing, f"{by_load}.minReplicas=21").of("HorizontalPodAutoscaler")
    own = (
        '[{"type": "Pods", "pods": {"metric": {"name": "x"}, "target": {"type": "AverageValue", "averageValue": "1"}}}]'
    )
    scalers = render("autoscaling", f"{by_load}.targetCPU=0", f"{by_load}.metrics={own}").of("HorizontalPodAutoscaler")
    assert [one["type"] for one in scalers[component]["spec"]["metrics"]] == ["Pods"]


@pytest.mark.parametrize("value", ["commonLabels", "serve.podLabels", "worker.podLabels"])
@pytest.mark.parametrize("label", ["app.kubernetes.io/name", "app.kubernetes.io/component", "helm.sh/chart"])
def test_labels_of_the_chart_are_not_set_twice(value: str, label: str) -> None:
    assert f"{value}: {label}: is a label that the chart sets" in refusal("external", f'{value}={{"{label}": "x"}}')


def test_labels_of_pods_go_before_those_of_all() -> None:
    """Each stands there once: of a key that is twice in an object, readers of YAML take one or refuse both."""
    sets = ("--set-json", 'commonLabels={"team": "all"}', "--set-json", 'serve.podLabels={"team": "own", "tier": "1"}')
    values = str(CHART / "ci" / "external-values.yaml")
    done = helm("template", RELEASE, str(CHART), "--kube-version", USUAL, "--values", values, *sets).stdout
    (serve,) = [
        one for one in done.split("\n---\n") if "kind: Deployment" in one and f"name: {RELEASE}-memvault-serve" in one
    ]
    labels = yaml.safe_load(serve)["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["tier"], labels["app.kubernetes.io/instance"]) == ("own", "1", "mem")
    assert re.findall(r"team: (\w+)", serve) == ["all", "own"]


def test_pods_are_placed_as_asked() -> None:
    for name in ("serve", "worker"):
        spec = render("air-gapped").pods()[name]
        assert spec["nodeSelector"] == {"pool": "memory"}
        assert spec["tolerations"][0]["value"] == "memory"
        assert spec["priorityClassName"] == "business"
        assert spec["affinity"]["nodeAffinity"]
    assert render("air-gapped").of("Service")[""]["metadata"]["labels"]["team"] == "platform"


def test_the_migration_is_a_hook_with_all_that_it_needs_before_it() -> None:
    """At a first install nothing else of the release is there yet."""
    rendered = render("external")
    job = rendered.of("Job")["migrate"]
    mine = [
        one for one in rendered.objects if one["metadata"]["labels"].get("app.kubernetes.io/component") == "migrate"
    ]
    assert {one["kind"] for one in mine} == {"Job", "ConfigMap", "ServiceAccount", "NetworkPolicy"}
    for one in mine:
        notes = one["metadata"]["annotations"]
        assert notes["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        assert int(notes["helm.sh/hook-weight"]) < 0 or one is job
    spec = job["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "mem-memvault-migrate"
    assert spec["containers"][0]["args"] == ["migrate", "--config", "/etc/memvault/config/migrate.yaml"]
    assert [one["configMap"]["name"] for one in spec["volumes"] if "configMap" in one] == ["mem-memvault-migrate"]
    hooks = [one["kind"] for one in rendered.objects if "helm.sh/hook" in one["metadata"].get("annotations", {})]
    assert sorted(hooks) == ["ConfigMap", "Job", "NetworkPolicy", "Pod", "ServiceAccount"], (
        "what a hook leaves is not removed"
    )


def test_a_restore_is_declared_by_a_job_that_is_off() -> None:
    """With the owner's URL, the signing key, the keyring and the checkpoints, between the migration and the rest."""
    assert "restored" not in render("external").pods()
    rendered = render("checkpoints-folder", "restored.enabled=true")
    job = rendered.of("Job")["restored"]
    mine = [
        one for one in rendered.objects if one["metadata"]["labels"].get("app.kubernetes.io/component") == "restored"
    ]
    assert {one["kind"] for one in mine} == {"Job", "ConfigMap", "NetworkPolicy"}
    weights = []
    for one in mine:
        notes = one["metadata"]["annotations"]
        assert notes["helm.sh/hook"] == "pre-upgrade"
        assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        weights.append((int(notes["helm.sh/hook-weight"]), one is job))
    assert min(weights)[0] > int(rendered.of("Job")["migrate"]["metadata"]["annotations"]["helm.sh/hook-weight"])
    assert max(weights)[1], "after what it needs"
    spec = rendered.pods()["restored"]
    assert spec["containers"][0]["args"] == ["audit", "restored", "--config", "/etc/memvault/config/restored.yaml"]
    assert {path.removeprefix("MEMVAULT_") for path in secret_files(spec)} == {"DATABASE__URL", "DATABASE__OWNER_URL"}
    assert {"keys", "checkpoints", "signing"} <= {volume["name"] for volume in spec["volumes"]}
    stored = render("checkpoints-s3", "restored.enabled=true").pods()["restored"]
    s3 = {"MEMVAULT_AUDIT__S3__ACCESS_KEY_ID", "MEMVAULT_AUDIT__S3__SECRET_ACCESS_KEY"}
    assert s3 <= set(secret_files(stored))


def test_the_migration_runs_beside_a_postgresql_of_the_release() -> None:
    """A hook would wait for a database that comes after it, and with `--wait` pods for a hook that comes after them."""
    (name,) = render("try").of("Job")
    job = render("try").of("Job")[name]
    assert name == "migrate-1", "by revision: a job cannot be changed"
    assert "annotations" not in job["metadata"]
    assert job["spec"]["backoffLimit"] == 30


def test_cron_jobs_sweep_and_verify() -> None:
    jobs = render("checkpoints-folder").of("CronJob")
    arguments = {
        name: one["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
        for name, one in jobs.items()
    }
    verify = ["--config", "/etc/memvault/config/verify.yaml"]
    assert arguments == {
        "sweep": ["retention", "run", "--config", "/etc/memvault/config/job.yaml"],
        "audit-verify": ["audit", "verify", *verify],
    }
    public = render("checkpoints-s3").pods()["audit-verify"]["containers"][0]["args"]
    assert public == ["audit", "verify", "--public-key", "/etc/memvault/public/keys.pem", *verify]
    assert all(one["spec"]["concurrencyPolicy"] == "Forbid" for one in jobs.values())
    assert set(render("one-process").of("CronJob")) == {"audit-verify"}


def test_helm_test_asks_the_service() -> None:
    pod = render("external").of("Pod")["test"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["containers"][0]["args"] == ["health", "--host", "mem-memvault", "--port", "8080"]
    service = render("external").of("Service")[""]
    assert service["metadata"]["name"] == "mem-memvault"
    selected = service["spec"]["selector"].items()
    assert [name for name, spec in render("external").pods().items() if selected <= spec["labels"].items()] == ["serve"]


def test_the_stores_of_the_release_keep_telemetry_off_and_need_a_key() -> None:
    env = {one["name"]: one for one in render("try").pods()["qdrant"]["containers"][0]["env"]}
    assert env["QDRANT__TELEMETRY_DISABLED"]["value"] == "true"
    assert env["QDRANT__SERVICE__API_KEY"]["valueFrom"]["secretKeyRef"]["key"] == "qdrant-api-key"
    env = {one["name"]: one for one in render("try").pods()["postgresql"]["containers"][0]["env"]}
    assert "--auth-host=scram-sha-256" in env["POSTGRES_INITDB_ARGS"]["value"]
    for name in ("postgresql", "qdrant"):
        stateful = render("try").of("StatefulSet")[name]["spec"]
        assert stateful["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert not render("external").of("StatefulSet")


def test_what_the_chart_made_is_kept_by_upgrades_and_removals() -> None:
    secret = render("try").of("Secret")["generated"]
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    wanted = {
        *("postgres-password", "owner-password", "app-password", "keys-password", "url", "owner-url", "keyring-url"),
        *("wrapping-key", "qdrant-api-key", "bootstrap-key", "audit-signing.pem"),
    }
    assert set(secret["data"]) == wanted
    assert len(base64.b64decode(base64.b64decode(secret["data"]["wrapping-key"]))) == 32
    assert set(render("try-own-database").of("Secret")["generated"]["data"]) == {"qdrant-api-key"}


def test_the_longest_name_fits_what_kubernetes_allows() -> None:
    """52 letters for a CronJob, whose jobs get a suffix, and 63 for whatever becomes a label or a host name."""
    longest = "m" * 39
    made = render("external", f'fullnameOverride="{longest}"').objects
    cron = [one["metadata"]["name"] for one in made if one["kind"] == "CronJob"]
    assert f"{longest}-audit-verify" in cron
    assert all(len(name) <= 52 for name in cron)
    assert all(len(one["metadata"]["name"]) <= 63 for one in made)
    assert "fullnameOverride" in refusal("external", f'fullnameOverride="{longest}m"')
