"""The kustomization, as python-kustomize wants it: each resource is a module beside this one, and what it has."""

kustomization = {
    "apiVersion": "kustomize.config.k8s.io/v1beta1",
    "kind": "Kustomization",
    "resources": ["prometheus:alerts", "grafana:dashboard"],
}
