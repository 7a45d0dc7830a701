"""The list of resources that python-kustomize reads. `module:object` names an object in a module of this folder."""

kustomization = {
    "apiVersion": "kustomize.config.k8s.io/v1beta1",
    "kind": "Kustomization",
    "resources": ["loss_analysis:template"],
}
