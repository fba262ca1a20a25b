{{/* What stops the rendering, each with the name of the value and what to do. */}}

{{- define "memvault.checks" -}}
{{- $v := .Values -}}
{{- $settings := include "memvault.settings" . | fromJson -}}

{{- /* Whatever is secret comes from a secret, and what the chart sets is not set twice. */ -}}
{{- $secret := "is a secret, which does not belong in config; name a secret in" -}}
{{- $secrets := dict
  "bootstrap_key" "bootstrap.existingSecret"
  "database.url" "database.existingSecret"
  "database.owner_url" "database.existingSecret"
  "database.maintenance_url" "database.existingSecret and database.maintenanceUrlKey"
  "database.backup_url" "a job of yours: the pods of this chart do not need it"
  "keyring.url" "keyring.existingSecret"
  "keyring.wrapping_key" "keyring.existingSecret"
  "keyring.second_wrapping_key" "keyring.existingSecret and keyring.secondWrappingKeyKey"
  "index.api_key" "index.existingSecret"
  "llm.api_key" "llm.existingSecret"
  "audit.s3.access_key_id" "audit.s3ExistingSecret"
  "audit.s3.secret_access_key" "audit.s3ExistingSecret"
  "metrics.token" "metrics.existingSecret"
  "telemetry.headers" "telemetry.existingSecret"
-}}
{{- $own := dict
  "data_dir" "it is an emptyDir at /var/lib/memvault"
  "server.host" "the probes need it"
  "server.port" "set serve.port"
  "server.public_url" "set publicUrl"
  "queue.in_process" "set worker.enabled"
  "index.url" "set index.url outside of config, or qdrant.enabled"
  "keyring.folder" "set keyring.existingClaim"
  "audit.signing_key" "set audit.existingSecret"
  "audit.previous_signing_key" "set audit.previousSigningKeyKey"
  "audit.public_keys" "set audit.publicKeysConfigMap"
  "audit.checkpoint_folder" "set audit.checkpointsClaim"
  "metrics.host" "the probes need it"
  "metrics.port" "set metrics.port outside of config"
  "database.embedded_template" "there is no embedded PostgreSQL in a cluster"
-}}
{{- range $name, $instead := merge (dict) $secrets $own -}}
{{- $here := $v.config -}}
{{- $found := true -}}
{{- range splitList "." $name -}}
{{- if and $found (kindIs "map" $here) (hasKey $here .) }}{{ $here = get $here . }}{{ else }}{{ $found = false }}{{ end -}}
{{- end -}}
{{- if $found -}}
{{- if hasKey $secrets $name -}}
{{- fail (printf "config.%s: %s %s" $name $secret $instead) -}}
{{- else -}}
{{- fail (printf "config.%s: is set by the chart: %s" $name $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $section := list "llm" "embeddings" -}}
{{- $found := regexFind "(?i)\"[a-z_]*(api_?key|secret|password|credential|token|access_key)s?\":" (dig $section "config" dict $v.config | toJson) | trimSuffix ":" | trimAll "\"" -}}
{{- if and $found (not (regexMatch "(?i)tokens$" $found)) -}}
{{- fail (printf "config.%s.config.%s: %s serve.extraEnv and worker.extraEnv, as MEMVAULT_%s__CONFIG__%s" $section $found $secret (upper $section) (upper $found)) -}}
{{- end -}}
{{- end -}}
{{- range $component := list "serve" "worker" -}}
{{- range (get $v $component).extraEnv -}}
{{- if hasPrefix "MEMVAULT_" (upper .name) -}}
{{- if not (regexMatch "^MEMVAULT_(LLM|EMBEDDINGS)__CONFIG__" .name) -}}
{{- fail (printf "%s.extraEnv: %s: a setting belongs in config, a secret into the value for it" $component .name) -}}
{{- end -}}
{{- if not .valueFrom -}}
{{- fail (printf "%s.extraEnv: %s: give it by valueFrom.secretKeyRef; what is no secret belongs in config" $component .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What is needed. */ -}}
{{- if not (or $v.database.existingSecret $v.postgresql.enabled) -}}
{{- fail "database.existingSecret: is needed: a secret with the URLs of PostgreSQL; postgresql.enabled=true runs a small one for trying it out" -}}
{{- end -}}
{{- if and $v.database.existingSecret $v.postgresql.enabled -}}
{{- fail "postgresql.enabled: cannot be used together with database.existingSecret" -}}
{{- end -}}
{{- if $v.qdrant.enabled -}}
{{- if or $v.index.url $v.index.existingSecret }}{{ fail "qdrant.enabled: cannot be used together with index.url and index.existingSecret" }}{{ end -}}
{{- else -}}
{{- if not $v.index.url }}{{ fail "index.url: is needed: the URL of a Qdrant server; qdrant.enabled=true runs a small one for trying it out" }}{{ end -}}
{{- if not $v.index.existingSecret }}{{ fail "index.existingSecret: is needed: a secret with the key of the Qdrant server" }}{{ end -}}
{{- end -}}
{{- if and $v.keyring.existingSecret $v.keyring.existingClaim -}}
{{- fail "keyring.existingClaim: cannot be used together with keyring.existingSecret: the keyring is in one place" -}}
{{- end -}}
{{- if not (or $v.keyring.existingSecret $v.keyring.existingClaim) -}}
{{- if not (and $v.generateSecrets $v.postgresql.enabled) -}}
{{- fail "keyring.existingSecret: is needed: a secret with the URL of the keyring's database and the wrapping key; or keyring.existingClaim" -}}
{{- end -}}
{{- end -}}
{{- if not (or $v.audit.existingSecret $v.generateSecrets) -}}
{{- fail "audit.existingSecret: is needed: a secret with the key that signs the audit trail (openssl genpkey -algorithm ed25519)" -}}
{{- end -}}
{{- if and $v.audit.previousSigningKeyKey (not $v.audit.existingSecret) -}}
{{- fail "audit.previousSigningKeyKey: needs audit.existingSecret: a secret with the signing key and the one before it" -}}
{{- end -}}
{{- if and (dig "audit" "retention_days" "" $v.config) (not $v.database.maintenanceUrlKey) -}}
{{- fail "database.maintenanceUrlKey: is needed: config.audit.retention_days is set, and only the maintenance role may drop old parts of the trail" -}}
{{- end -}}
{{- if and $v.bootstrap.enabled (not (or $v.bootstrap.existingSecret $v.generateSecrets)) -}}
{{- fail "bootstrap.existingSecret: is needed: a secret with the first admin key, or it would be made and written to the log; bootstrap.enabled=false once there are other keys" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}{{ fail "ingress.hosts: is needed with ingress.enabled" }}{{ end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) }}{{ fail "gateway.parentRefs: is needed with gateway.enabled" }}{{ end -}}
{{- range $name, $hosts := dict "ingress.hosts" (ternary $v.ingress.hosts list $v.ingress.enabled) "gateway.hostnames" (ternary $v.gateway.hostnames list $v.gateway.enabled) -}}
{{- range $hosts -}}
{{- if and (contains "*" .) (not (or $v.publicUrl (dig "server" "allowed_hosts" list $v.config))) -}}
{{- fail (printf "%s: %s: MCP answers to whole names only; name them in publicUrl or config.server.allowed_hosts" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* How many there are, and what they are called. */ -}}
{{- range $component := list "serve" "worker" -}}
{{- $own := get $v $component -}}
{{- if $own.autoscaling.enabled -}}
{{- if gt (int $own.autoscaling.minReplicas) (int $own.autoscaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas: is more than maxReplicas, which is %d" $component (int $own.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if not (or $own.autoscaling.targetCPU $own.autoscaling.metrics) -}}
{{- fail (printf "%s.autoscaling.metrics: is needed with targetCPU=0: there is nothing to scale by" $component) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $chart := keys (include "memvault.ownLabels" . | fromYaml) -}}
{{- range $name, $labels := dict "commonLabels" $v.commonLabels "serve.podLabels" $v.serve.podLabels "worker.podLabels" $v.worker.podLabels -}}
{{- range $label, $_ := $labels -}}
{{- if has $label (append $chart "app.kubernetes.io/component") -}}
{{- fail (printf "%s: %s: is a label that the chart sets" $name $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What may leave, and who may come in. */ -}}
{{- if $v.networkPolicy.enabled -}}
{{- range $feature := include "memvault.features" . | fromJsonArray -}}
{{- if not (get $v.egress $feature.rule) -}}
{{- fail (printf "egress.%s: is needed: %s is set, and the network policy would deny its traffic" $feature.rule $feature.by) -}}
{{- end -}}
{{- end -}}
{{- if not $v.egress.dns }}{{ fail "egress.dns: is needed: without name servers no other rule can be used" }}{{ end -}}
{{- if and (or $v.ingress.enabled $v.gateway.enabled) (not $v.networkPolicy.gateways) -}}
{{- fail "networkPolicy.gateways: is needed with ingress.enabled and gateway.enabled: the pods that requests from outside come through" -}}
{{- end -}}
{{- if and $v.serviceMonitor.enabled (not $v.networkPolicy.monitoring) -}}
{{- fail "networkPolicy.monitoring: is needed with serviceMonitor.enabled: the pods that scrape" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The features that are on and call somebody: which egress rule each needs, and which setting turned it on. JSON. */}}
{{- define "memvault.features" -}}
{{- $v := .Values -}}
{{- $settings := include "memvault.settings" . | fromJson -}}
{{- $on := list -}}
{{- if not $v.postgresql.enabled }}{{ $on = append $on (dict "rule" "postgres" "by" "database.existingSecret") }}{{ end -}}
{{- if not $v.qdrant.enabled }}{{ $on = append $on (dict "rule" "qdrant" "by" "index.url") }}{{ end -}}
{{- if $v.keyring.existingSecret }}{{ $on = append $on (dict "rule" "keyring" "by" "keyring.existingSecret") }}{{ end -}}
{{- range list
  (list "llm" (dig "llm" "provider" "" $settings) "llm.provider")
  (list "embeddings" (dig "embeddings" "provider" "minilm" $settings | eq "minilm" | ternary "" "other") "embeddings.provider")
  (list "oidc" (dig "auth" "oidc" "issuer" "" $settings) "auth.oidc.issuer")
  (list "checkpoints" (dig "audit" "s3" "bucket" "" $settings) "audit.s3.bucket")
  (list "otlp" (dig "telemetry" "otlp_endpoint" "" $settings) "telemetry.otlp_endpoint")
  (list "syslog" (dig "audit" "syslog" "address" "" $settings) "audit.syslog.address")
  (list "webhooks" (dig "webhooks" "allowed_hosts" list $settings) "webhooks.allowed_hosts")
-}}
{{- if index . 1 }}{{ $on = append $on (dict "rule" (index . 0) "by" (index . 2)) }}{{ end -}}
{{- end -}}
{{- toJson $on -}}
{{- end -}}
