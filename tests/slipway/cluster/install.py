"""Install a program in the cluster of KUBECONFIG: `make flux`, `make argocd`, `make rollouts` and `make kwok`.

Their manifests come from their Go modules, and are checked by hash.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.slipway.cluster.agents import ARGOCD, FLUX
from tests.slipway.conftest import ROOT


@dataclass(frozen=True)
class Module:
    """A Go module, its hash as in a go.sum, its folder of manifests, and the kustomizations in this folder.

    The first of them defines custom kinds, which the others can contain.
    """

    path: str
    checksum: str
    folder: str
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.partition("@")[0].removesuffix("/v3").rpartition("/")[2]


@dataclass(frozen=True)
class Program:
    """The modules of a program, its namespace, and more fields of the kustomization that installs it."""

    namespace: str
    modules: tuple[Module, ...]
    fields: dict[str, Any] = field(default_factory=dict)


CONTROLLER = ("crd", "rbac", "manager")
CERTIFICATE = "/certificate"
KWOK_OVER_TLS = [
    {"op": "add", "path": f"/spec/template/spec/{path}/-", "value": value}
    for path, value in (
        ("containers/0/args", f"--tls-cert-file={CERTIFICATE}/tls.crt"),
        ("containers/0/args", f"--tls-private-key-file={CERTIFICATE}/tls.key"),
        ("containers/0/volumeMounts", {"name": "certificate", "mountPath": CERTIFICATE, "readOnly": True}),
        ("volumes", {"name": "certificate", "secret": {"secretName": "kwok-certificate"}}),
    )
]
"""KWOK serves the metrics of its nodes. metrics-server reads them over TLS only."""
PROGRAMS = {
    "flux": Program(
        FLUX.namespace,
        (
            Module(
                "github.com/fluxcd/source-controller@v1.9.1",
                "h1:FF8XTxLND/pXzVtUESKURUDiItFJQDZBZkbHvZimN8s=",
                "config",
                CONTROLLER,
            ),
            Module(
                "github.com/fluxcd/kustomize-controller@v1.9.4",
                "h1:VBnBMhnemqnE5Zca2AoG2gC4472MoiTmk9rdqvLoMcY=",
                "config",
                CONTROLLER,
            ),
        ),
    ),
    "argocd": Program(
        ARGOCD.namespace,
        (
            Module(
                "github.com/argoproj/argo-cd/v3@v3.5.1",
                "h1:jtwPLEFX9mNj3jSq88ugFcScGnOZVs2DWaXFuZxrRT8=",
                "manifests",
                ("crds", "core-install"),
            ),
        ),
    ),
    "rollouts": Program(
        "argo-rollouts",
        (
            Module(
                "github.com/argoproj/argo-rollouts@v1.9.1",
                "h1:+oZciUkeJYVb1vPMOhat4JQlk525j/aT2yizEkVkjLs=",
                "manifests",
                ("crds", "cluster-install"),
            ),
        ),
        {"images": [{"name": "quay.io/argoproj/argo-rollouts", "newTag": "v1.9.1"}]},
    ),
    "kwok": Program(
        "kube-system",
        (
            Module(
                "sigs.k8s.io/kwok@v0.8.0",
                "h1:OTIOTwgROqPMovcTwxICx2eYQ4AwLpSx5EpjbDKF4SQ=",
                "kustomize",
                ("crd", "kwok", "stage/fast", "metrics/resource"),
            ),
        ),
        {
            "images": [{"name": "registry.k8s.io/kwok/kwok", "newTag": "v0.8.0"}],
            "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(KWOK_OVER_TLS)}],
            "secretGenerator": [{"name": "kwok-certificate", "files": ["tls.crt", "tls.key"]}],
        },
    ),
}


def main(name: str) -> None:
    program = PROGRAMS[name]
    folder = ROOT / "build" / name
    write(program, folder)
    if name == "kwok":
        write_certificate(folder)
    # Definitions of custom kinds are too large for the annotation of a client-side apply.
    for module in program.modules:
        kubectl("apply", "--server-side", f"--kustomize={folder / module.name / module.parts[0]}")
    kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=300s")
    kubectl("apply", "--server-side", f"--kustomize={folder}")
    found = kubectl("get", "deployments,statefulsets", "--output=name", f"--namespace={program.namespace}")
    for each in found.split():
        kubectl("rollout", "status", each, f"--namespace={program.namespace}", "--timeout=300s")


def write(program: Program, folder: Path) -> None:
    """Write a kustomization with the manifests of a program."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for module in program.modules:
        shutil.copytree(download(module) / module.folder, folder / module.name)
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)  # modules are read-only
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": program.namespace}}
    (folder / "namespace.yaml").write_text(json.dumps(namespace))
    resources = [
        "namespace.yaml",
        *(f"{module.name}/{part}" for module in program.modules for part in module.parts[1:]),
    ]
    kustomization = {"namespace": program.namespace, "resources": resources} | program.fields
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))


def write_certificate(folder: Path) -> None:
    """Write a certificate without a name, because metrics-server in kind does not check it."""
    files = ("-keyout", folder / "tls.key", "-out", folder / "tls.crt")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kwok", *files)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def download(module: Module) -> Path:
    """Return the folder of a Go module that has the right hash."""
    done = subprocess.run(["go", "mod", "download", "-json", module.path], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["Sum"] == module.checksum, f"{module.path} has the hash {found['Sum']}, not {module.checksum}"
    return Path(found["Dir"])


def kubectl(*arguments: str) -> str:
    return subprocess.run(["kubectl", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main(sys.argv[1])
