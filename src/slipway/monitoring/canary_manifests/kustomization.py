"""The kustomization, in the form of python-kustomize: each resource is `module:object`, in this folder."""

kustomization = {
    "apiVersion": "kustomize.config.k8s.io/v1beta1",
    "kind": "Kustomization",
    "resources": ["analysis:template"],
}
