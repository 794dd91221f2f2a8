{{- define "nantian.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Of what is in no namespace: releases of the same name in several namespaces share none of it. */ -}}
{{- define "nantian.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "nantian.name" .) -}}
{{- end -}}

{{- define "nantian.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nantian.labels" -}}
{{ include "nantian.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "nantian.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "nantian.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- /* The Lease by which replicas choose, as the program names it after its controller. */ -}}
{{- define "nantian.lease" -}}
{{- if eq .Values.controllerName "gateway.nantian.dev/gateway-controller" -}}
nantian-gateway
{{- else -}}
{{- regexReplaceAll "[^a-z0-9]" (lower .Values.controllerName) "-" | trimAll "-" -}}
{{- end -}}
{{- end -}}

{{- /* The seconds of a duration of the Gateway API (GEP-2257), rounded up. */ -}}
{{- define "nantian.seconds" -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+(h|ms|m|s)" . -1 -}}
{{- $unit := get (dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1) (regexFind "[a-z]+" .) -}}
{{- $milliseconds = add $milliseconds (mul (atoi (regexFind "[0-9]+" .)) $unit) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{- /* AllAlpha comes first, for the program lets later ones win. */ -}}
{{- define "nantian.featureGates" -}}
{{- $gates := list -}}
{{- range $name, $open := .Values.featureGates -}}
{{- $gate := printf "%s=%t" $name $open -}}
{{- $gates = ternary (prepend $gates $gate) (append $gates $gate) (eq $name "AllAlpha") -}}
{{- end -}}
{{- join "," $gates -}}
{{- end -}}

{{- /* Pods in the network of their machine, or of each machine, are as many as there are machines for them. */ -}}
{{- define "nantian.isScaled" -}}
{{- if and .Values.autoscaling.enabled (not .Values.hostNetwork) (eq .Values.kind "Deployment") }}true{{ end -}}
{{- end -}}

{{- /* The rights to what has a namespace. */ -}}
{{- define "nantian.rules" -}}
- apiGroups: [""]
  resources: [services, secrets, configmaps]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- if .Values.addresses.service }}
# The Services in front of Gateways, and where they lead.
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [create, patch]
# What OpenShift asks for besides, where they lead to addresses of the cluster's own network.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices/restricted]
  verbs: [create]
{{- end }}
- apiGroups: [gateway.networking.k8s.io]
  resources:
    - gateways
    - listenersets
    - httproutes
    - grpcroutes
    - tlsroutes
    - tcproutes
    - udproutes
    - referencegrants
    - backendlbpolicies
    - backendtlspolicies
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources:
    - gateways/status
    - listenersets/status
    - httproutes/status
    - grpcroutes/status
    - tlsroutes/status
    - tcproutes/status
    - udproutes/status
    - backendlbpolicies/status
    - backendtlspolicies/status
  verbs: [patch]
- apiGroups: [gateway.nantian.dev]
  resources: [aiservices, tokenpolicies, wasmplugins]
  verbs: [list, watch]
- apiGroups: [gateway.nantian.dev]
  resources: [aiservices/status, tokenpolicies/status, wasmplugins/status]
  verbs: [patch]
{{- end -}}
