{{/* What all pods of Memvault have in common. */}}

{{- define "memvault.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .Values.podSecurity.runAsGroup }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- with .Values.podSecurity.fsGroup }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "memvault.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Head of a pod's spec: no token, and no variables of other services, which would look like settings. */}}
{{- define "memvault.podHead" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The container: (dict "root" $ "component" "serve" "args" (list …) "kind" "serve|worker|job|migrate" "resources" …). */}}
{{- define "memvault.container" -}}
{{- $v := .root.Values -}}
name: memvault
image: {{ include "memvault.image" (dict "registry" $v.image.registry "repository" $v.image.repository "tag" ($v.image.tag | default .root.Chart.AppVersion) "digest" $v.image.digest) }}
imagePullPolicy: {{ $v.image.pullPolicy }}
args: {{ toJson (concat .args (list "--config" (printf "/etc/memvault/config/%s.yaml" .kind))) }}
env:
  - {name: HOME, value: /tmp}
  - {name: MEMVAULT_SECRETS_DIR, value: /run/memvault/secrets}
  {{- with (get $v .component | default dict).extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- include "memvault.containerSecurity" .root | nindent 2 }}
{{- with .resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/memvault/config, readOnly: true}
  - {name: secrets, mountPath: /run/memvault/secrets, readOnly: true}
  - {name: data, mountPath: /var/lib/memvault}
  - {name: tmp, mountPath: /tmp}
  {{- if and (ne .component "migrate") $v.keyring.existingClaim }}
  - {name: keys, mountPath: /var/lib/memvault-keys}
  {{- end }}
  {{- if include "memvault.mountsSigning" . }}
  - {name: signing, mountPath: /run/memvault/signing, readOnly: true}
  {{- end }}
  {{- if and (ne .component "migrate") $v.audit.publicKeysConfigMap }}
  - {name: public, mountPath: /etc/memvault/public, readOnly: true}
  {{- end }}
  {{- if include "memvault.mountsCheckpoints" . }}
  - {name: checkpoints, mountPath: /var/lib/memvault-checkpoints{{ if eq .component "audit-verify" }}, readOnly: true{{ end }}}
  {{- end }}
  {{- if $v.caBundle.existingConfigMap }}
  - {name: ca, mountPath: /etc/memvault/ca, readOnly: true}
  {{- end }}
{{- end -}}

{{/* Who holds the private key: what runs the queue, what declares a restore, and the verification where no public keys are given. */}}
{{- define "memvault.mountsSigning" -}}
{{- $queue := or (has .component (list "worker" "restored")) (and (eq .component "serve") (include "memvault.inProcess" .root)) -}}
{{- if or $queue (and (eq .component "audit-verify") (not .root.Values.audit.publicKeysConfigMap)) }}true{{ end -}}
{{- end -}}

{{- define "memvault.mountsCheckpoints" -}}
{{- $queue := or (has .component (list "worker" "restored")) (and (eq .component "serve") (include "memvault.inProcess" .root)) -}}
{{- if and .root.Values.audit.checkpointsClaim (or $queue (eq .component "audit-verify")) }}true{{ end -}}
{{- end -}}

{{/* The volumes of a pod: (dict "root" $ "component" "serve" "size" "1Gi"). */}}
{{- define "memvault.volumes" -}}
{{- $v := .root.Values -}}
- name: config
  configMap:
    name: {{ include "memvault.fullname" .root }}{{ if has .component (list "migrate" "restored") }}-{{ .component }}{{ end }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- include "memvault.secrets" . | trim | nindent 6 }}
- name: data
  emptyDir: {sizeLimit: {{ .size | default "1Gi" }}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- if and (ne .component "migrate") $v.keyring.existingClaim }}
- name: keys
  persistentVolumeClaim: {claimName: {{ $v.keyring.existingClaim }}}
{{- end }}
{{- if include "memvault.mountsSigning" . }}
- name: signing
  secret:
    secretName: {{ $v.audit.existingSecret | default (include "memvault.generated" .root) }}
    defaultMode: 0440
    items:
      - {key: {{ ternary $v.audit.signingKeyKey "audit-signing.pem" (ne $v.audit.existingSecret "") }}, path: key.pem}
      {{- if and $v.audit.existingSecret $v.audit.previousSigningKeyKey }}
      - {key: {{ $v.audit.previousSigningKeyKey }}, path: previous.pem}
      {{- end }}
{{- end }}
{{- if and (ne .component "migrate") $v.audit.publicKeysConfigMap }}
- name: public
  configMap:
    name: {{ $v.audit.publicKeysConfigMap }}
    items:
      - {key: {{ $v.audit.publicKeysKey }}, path: keys.pem}
{{- end }}
{{- if include "memvault.mountsCheckpoints" . }}
- name: checkpoints
  persistentVolumeClaim: {claimName: {{ $v.audit.checkpointsClaim }}}
{{- end }}
{{- with $v.caBundle.existingConfigMap }}
- name: ca
  configMap: {name: {{ . }}}
{{- end }}
{{- end -}}

{{/* Where the pods of a Deployment run: (dict "root" $ "component" "serve"). */}}
{{- define "memvault.placement" -}}
{{- $own := get .root.Values .component -}}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels:
        {{- include "memvault.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
  {{- end }}
{{- end }}
{{- end -}}
