"""Install the controllers of Flux that kustomize/agents/flux needs in the cluster of KUBECONFIG: `make flux`.

Their manifests come from their Go modules, and are checked by hash.
"""

import json
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.slipway.cluster.flux import NAMESPACE
from tests.slipway.conftest import ROOT

MODULES = {
    "source-controller": ("v1.9.1", "h1:FF8XTxLND/pXzVtUESKURUDiItFJQDZBZkbHvZimN8s="),
    "kustomize-controller": ("v1.9.4", "h1:VBnBMhnemqnE5Zca2AoG2gC4472MoiTmk9rdqvLoMcY="),
}
"""The version of each controller, and the hash of its module as in a go.sum."""
PARTS = ("crd", "rbac", "manager")


def main() -> None:
    folder = ROOT / "build/flux"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (version, checksum) in MODULES.items():
        shutil.copytree(download(f"github.com/fluxcd/{name}@{version}", checksum) / "config", folder / name)
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)  # modules are read-only
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    (folder / "namespace.yaml").write_text(json.dumps(namespace))
    resources = ["namespace.yaml", *(f"{name}/{part}" for name in MODULES for part in PARTS)]
    kustomization = {"namespace": NAMESPACE, "resources": resources}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    # Definitions of custom kinds are too large for the annotation of a client-side apply.
    subprocess.run(["kubectl", "apply", "--server-side", "--kustomize", folder], check=True)
    for name in MODULES:
        wait = ("rollout", "status", f"deployment/{name}", f"--namespace={NAMESPACE}", "--timeout=300s")
        subprocess.run(["kubectl", *wait], check=True)


def download(module: str, checksum: str) -> Path:
    """Return the folder of a Go module with this hash."""
    done = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["Sum"] == checksum, f"{module} has the hash {found['Sum']}, not {checksum}"
    return Path(found["Dir"])


if __name__ == "__main__":
    main()
