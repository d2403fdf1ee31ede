{{/*
Everything is named podfence whatever the release is called: there is one table on a node, so a second release in a
cluster has to fail.
*/}}

{{- define "podfence.selector" -}}
app.kubernetes.io/name: podfence
{{- end }}

{{- define "podfence.labels" -}}
{{ include "podfence.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The port of `listen`. */}}
{{- define "podfence.port" -}}
{{ regexFind "[0-9]+$" .Values.listen }}
{{- end }}

{{/* The address of `listen`, without the brackets of IPv6. */}}
{{- define "podfence.address" -}}
{{ regexReplaceAll ":[0-9]+$" .Values.listen "" | trimAll "[]" }}
{{- end }}

{{/* What a probe asks of kubelet. It asks the node's address unless the agent listens on another one alone. */}}
{{- define "podfence.probe" -}}
port: {{ include "podfence.port" . }}
{{- $address := include "podfence.address" . }}
{{- if not (has $address (list "0.0.0.0" "::")) }}
host: {{ $address | quote }}
{{- end }}
{{- end }}

{{- /* The node's folders that the agent writes to. What it tells the CNI plugin about them has to be true on the node. */}}
{{- define "podfence.folders" }}
{{- with .Values.stateFolder }}
- {name: state, path: {{ . | quote }}, type: DirectoryOrCreate}
{{- end }}
{{- if .Values.cni.enabled }}
- {name: run, path: /run/podfence, type: DirectoryOrCreate}
- {name: cni-configurations, path: {{ .Values.cni.configurations | quote }}, type: Directory}
- {name: cni-programs, path: {{ .Values.cni.programs | quote }}, type: Directory}
{{- end }}
{{- end }}
