{{/* What the service is told: memvault.yaml for each kind of process, and the secrets as files. */}}

{{/* Whether `serve` runs the queue too. */}}
{{- define "memvault.inProcess" -}}
{{- if not .Values.worker.enabled }}true{{ end -}}
{{- end -}}

{{/* All settings together: the chart's defaults, `config` over them, and what only the chart knows over both. JSON. */}}
{{- define "memvault.settings" -}}
{{- $defaults := dict
  "log" (dict "format" "json")
  "server" (dict "drain_seconds" .Values.serve.drainSeconds)
  "database" (dict "app_role" "memvault_app")
-}}
{{- $own := dict
  "data_dir" "/var/lib/memvault"
  "server" (dict "host" "0.0.0.0" "port" .Values.serve.port)
  "queue" (dict "in_process" (not .Values.worker.enabled))
  "index" (dict "url" .Values.index.url)
  "audit" (dict "signing_key" "/run/memvault/signing/key.pem")
  "metrics" (dict "host" "0.0.0.0" "port" .Values.metrics.port)
-}}
{{- if .Values.qdrant.enabled -}}
{{- $_ := set $own "index" (dict "url" (printf "http://%s-qdrant:6333" (include "memvault.fullname" .)) "trusted_network" true) -}}
{{- end -}}
{{- with .Values.publicUrl }}{{ $_ := set $own.server "public_url" . }}{{ end -}}
{{- with .Values.keyring.existingClaim }}{{ $_ := set $own "keyring" (dict "folder" "/var/lib/memvault-keys") }}{{ end -}}
{{- with .Values.audit.previousSigningKeyKey -}}
{{- $_ := set $own.audit "previous_signing_key" "/run/memvault/signing/previous.pem" -}}
{{- end -}}
{{- if .Values.audit.publicKeysConfigMap -}}
{{- $_ := set $own.audit "public_keys" (list "/etc/memvault/public/keys.pem") -}}
{{- end -}}
{{- with .Values.audit.checkpointsClaim -}}
{{- $_ := set $own.audit "checkpoint_folder" "/var/lib/memvault-checkpoints" -}}
{{- end -}}
{{- $all := mergeOverwrite $defaults (deepCopy .Values.config) $own -}}
{{- $hosts := concat (include "memvault.hosts" . | fromJsonArray) (dig "server" "allowed_hosts" list .Values.config) -}}
{{- $_ := set $all.server "allowed_hosts" (uniq $hosts) -}}
{{- toJson $all -}}
{{- end -}}

{{/* memvault.yaml of one kind of process: (dict "root" $ "kind" "serve|worker|job|verify|restored"). Each gets what it needs. */}}
{{- define "memvault.yaml" -}}
{{- $all := include "memvault.settings" .root | fromJson -}}
{{- $signs := or (has .kind (list "worker" "restored")) (and (eq .kind "serve") (include "memvault.inProcess" .root)) -}}
{{- if not $signs -}}
{{- $keys := and (eq .kind "verify") (not .root.Values.audit.publicKeysConfigMap) -}}
{{- $away := ternary (list "s3") (list "s3" "signing_key" "previous_signing_key") $keys -}}
{{- if ne .kind "verify" }}{{ $away = append $away "checkpoint_folder" }}{{ end -}}
{{- range $away }}{{ $_ := unset $all.audit . }}{{ end -}}
{{- end -}}
{{- if ne .kind "worker" -}}
{{- $_ := set $all "metrics" (omit $all.metrics "host" "port") -}}
{{- end -}}
{{- if has .kind (list "job" "verify" "restored") -}}
{{- $all = omit $all "index" "llm" "embeddings" "metrics" "telemetry" -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* The secrets of one component as files named after their settings, for a projected volume: (dict "root" $ "component" "serve"). */}}
{{- define "memvault.secrets" -}}
{{- $v := .root.Values -}}
{{- $c := .component -}}
{{- $runsQueue := or (eq $c "worker") (and (eq $c "serve") (include "memvault.inProcess" .root)) -}}
{{- $files := list (list "DATABASE__URL" $v.database.existingSecret $v.database.urlKey "url") -}}
{{- if has $c (list "migrate" "restored") -}}
{{- $files = append $files (list "DATABASE__OWNER_URL" $v.database.existingSecret $v.database.ownerUrlKey "owner-url") -}}
{{- end -}}
{{- if not $v.keyring.existingClaim -}}
{{- $files = append $files (list "KEYRING__URL" $v.keyring.existingSecret $v.keyring.urlKey "keyring-url") -}}
{{- $files = append $files (list "KEYRING__WRAPPING_KEY" $v.keyring.existingSecret $v.keyring.wrappingKeyKey "wrapping-key") -}}
{{- if and $v.keyring.existingSecret $v.keyring.secondWrappingKeyKey -}}
{{- $files = append $files (list "KEYRING__SECOND_WRAPPING_KEY" $v.keyring.existingSecret $v.keyring.secondWrappingKeyKey) -}}
{{- end -}}
{{- end -}}
{{- if has $c (list "serve" "worker") -}}
{{- $files = append $files (list "INDEX__API_KEY" $v.index.existingSecret $v.index.apiKeyKey "qdrant-api-key") -}}
{{- with $v.llm.existingSecret }}{{ $files = append $files (list "LLM__API_KEY" . $v.llm.apiKeyKey) }}{{ end -}}
{{- with $v.telemetry.existingSecret }}{{ $files = append $files (list "TELEMETRY__HEADERS" . $v.telemetry.headersKey) }}{{ end -}}
{{- with $v.metrics.existingSecret }}{{ $files = append $files (list "METRICS__TOKEN" . $v.metrics.tokenKey) }}{{ end -}}
{{- end -}}
{{- if and (eq $c "serve") $v.bootstrap.enabled -}}
{{- $files = append $files (list "BOOTSTRAP_KEY" $v.bootstrap.existingSecret $v.bootstrap.key "bootstrap-key") -}}
{{- end -}}
{{- if $runsQueue -}}
{{- if and $v.database.existingSecret $v.database.maintenanceUrlKey -}}
{{- $files = append $files (list "DATABASE__MAINTENANCE_URL" $v.database.existingSecret $v.database.maintenanceUrlKey) -}}
{{- end -}}
{{- end -}}
{{- if and (or $runsQueue (eq $c "restored")) $v.audit.s3ExistingSecret -}}
{{- $files = append $files (list "AUDIT__S3__ACCESS_KEY_ID" $v.audit.s3ExistingSecret $v.audit.s3AccessKeyIdKey) -}}
{{- $files = append $files (list "AUDIT__S3__SECRET_ACCESS_KEY" $v.audit.s3ExistingSecret $v.audit.s3SecretAccessKeyKey) -}}
{{- end -}}
{{- range $files }}
- secret:
    {{- if index . 1 }}
    name: {{ index . 1 }}
    items: [{key: {{ index . 2 | quote }}, path: MEMVAULT_{{ index . 0 }}}]
    {{- else }}
    name: {{ include "memvault.generated" $.root }}
    items: [{key: {{ index . 3 }}, path: MEMVAULT_{{ index . 0 }}}]
    {{- end }}
{{- end }}
{{- end -}}
