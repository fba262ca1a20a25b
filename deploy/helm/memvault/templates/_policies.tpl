{{/* Peers inside the release, by component. */}}
{{- define "memvault.peers" -}}
{{- range .of }}
- podSelector:
    matchLabels:
      {{- include "memvault.selector" $.root | nindent 6 }}
      app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* One policy: (dict "root" $ "component" "serve" "rules" (egress by name) "from" (peers) "port" (by name)). `silent`: no name servers either. */}}
{{- define "memvault.policy" -}}
{{- $v := .root.Values -}}
{{- $name := include "memvault.fullname" .root -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "memvault.metadata" (dict "root" .root "name" .component "component" .component "annotations" .annotations) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "memvault.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  policyTypes: [Ingress, Egress]
  {{- with .from }}
  ingress:
    - from:
        {{- toYaml . | nindent 8 }}
      ports:
        - {protocol: TCP, port: {{ $.port }}}
        {{- with $.more }}
        - {protocol: TCP, port: {{ . }}}
        {{- end }}
  {{- end }}
  {{- if not .silent }}
  egress:
    {{- toYaml $v.egress.dns | nindent 4 }}
    {{- range .rules }}
    {{- $inside := dict }}
    {{- if and (has . (list "postgres" "keyring")) $v.postgresql.enabled }}{{ $inside = dict "of" "postgresql" "ports" (list 5432) }}{{ end }}
    {{- if and (eq . "qdrant") $v.qdrant.enabled }}{{ $inside = dict "of" "qdrant" "ports" (list 6333 6334) }}{{ end }}
    {{- if eq . "serve" }}{{ $inside = dict "of" "serve" "ports" (list $v.serve.port) }}{{ end }}
    {{- if and $inside (not (and (eq . "keyring") (has "postgres" $.rules))) }}
    - to:
        {{- include "memvault.peers" (dict "root" $.root "of" (list $inside.of)) | trim | nindent 8 }}
      ports:
        {{- range $inside.ports }}
        - {protocol: TCP, port: {{ . }}}
        {{- end }}
    {{- end }}
    {{- with get $v.egress . }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
  {{- end }}
{{- end -}}
