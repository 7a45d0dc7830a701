"""The kustomization for python-kustomize. Each resource is an object of a module in this folder: `module:object`."""

kustomization = {
    "apiVersion": "kustomize.config.k8s.io/v1beta1",
    "kind": "Kustomization",
    "resources": ["analysis:template"],
}
