{{/* Names, labels and images. */}}

{{/* At most 39 letters: a CronJob may have 52, and the longest is `-audit-verify`. */}}
{{- define "memvault.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 39 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 39 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 39 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "memvault.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The labels that the chart itself puts on every object. */}}
{{- define "memvault.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "memvault.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "memvault.labels" -}}
{{ include "memvault.ownLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of one component's object: (dict "root" $ "name" "serve" "component" "serve" "annotations" …). */}}
{{- define "memvault.metadata" -}}
name: {{ include "memvault.fullname" .root }}{{ with .name }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "memvault.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "memvault.image" -}}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end -}}
{{- end -}}

{{- define "memvault.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "memvault.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The secret that the chart makes itself. */}}
{{- define "memvault.generated" -}}
{{ include "memvault.fullname" . }}-generated
{{- end -}}

{{/* Names by which clients reach the service; what is no whole name the service does not compare with. */}}
{{- define "memvault.hosts" -}}
{{- $name := include "memvault.fullname" . -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) -}}
{{- $hosts = append $hosts (printf "%s.%s.svc.%s" $name .Release.Namespace .Values.clusterDomain) -}}
{{- if .Values.ingress.enabled }}{{ $hosts = concat $hosts .Values.ingress.hosts }}{{ end -}}
{{- if .Values.gateway.enabled }}{{ $hosts = concat $hosts .Values.gateway.hostnames }}{{ end -}}
{{- with .Values.publicUrl }}{{ $hosts = append $hosts (urlParse . | dig "hostname" "") }}{{ end -}}
{{- $whole := list -}}
{{- range $hosts }}{{ if not (contains "*" .) }}{{ $whole = append $whole . }}{{ end }}{{ end -}}
{{- toJson (uniq $whole) -}}
{{- end -}}
