{{- define "nantian.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
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

{{- define "nantian.featureGates" -}}
{{- $gates := list -}}
{{- range $name, $open := .Values.featureGates -}}
{{- $gates = append $gates (printf "%s=%t" $name $open) -}}
{{- end -}}
{{- join "," $gates -}}
{{- end -}}
