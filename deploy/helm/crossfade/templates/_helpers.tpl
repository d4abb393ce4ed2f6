{{- define "crossfade.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for what is put behind it: a Service's name has 63 characters at most. */}}
{{- define "crossfade.fullname" -}}
{{- $name := include "crossfade.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "crossfade.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "crossfade.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* What never changes in the life of a release, for selectors. */}}
{{- define "crossfade.selectorLabels" -}}
app.kubernetes.io/name: {{ include "crossfade.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "crossfade.gatewayLabels" -}}
{{ include "crossfade.selectorLabels" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "crossfade.labels" -}}
{{ include "crossfade.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "crossfade.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A section of the configuration in its long form: what has a short one may be a text. */}}
{{- define "crossfade.section" -}}
{{- if kindIs "map" .value }}
{{- toYaml .value }}
{{- else if .value }}
{{- toYaml (dict .key .value) }}
{{- else }}
{{- toYaml dict }}
{{- end }}
{{- end }}

{{/* crossfade.yaml: what the values say, and what the chart knows where they do not. */}}
{{- define "crossfade.config" -}}
{{- $c := deepCopy .Values.config }}
{{- $listen := include "crossfade.section" (dict "key" "address" "value" $c.listen) | fromYaml }}
{{- if not $listen.address }}{{ $_ := set $listen "address" ":8082" }}{{ end }}
{{- if and .Values.tls.existingSecret (not $listen.tls) }}
{{- $_ := set $listen "tls" (dict "cert" "/etc/crossfade/tls/tls.crt" "key" "/etc/crossfade/tls/tls.key") }}
{{- end }}
{{- $_ := set $c "listen" $listen }}
{{- $metrics := include "crossfade.section" (dict "key" "address" "value" $c.metrics) | fromYaml }}
{{- if not $metrics.address }}{{ $_ := set $metrics "address" ":9091" }}{{ end }}
{{- $_ := set $c "metrics" $metrics }}
{{- $admin := include "crossfade.section" (dict "key" "address" "value" $c.admin) | fromYaml }}
{{- if not $admin.address }}{{ $_ := set $admin "address" "off" }}{{ end }}
{{- if and .Values.adminTLS.existingSecret (not $admin.tls) (ne $admin.address "off") }}
{{- $_ := set $admin "tls" (dict "cert" "/etc/crossfade/admin-tls/tls.crt" "key" "/etc/crossfade/admin-tls/tls.key") }}
{{- end }}
{{- $_ := set $c "admin" $admin }}
{{- $_ := set $c "upstream" (include "crossfade.section" (dict "key" "url" "value" $c.upstream) | fromYaml) }}
{{- $redis := include "crossfade.section" (dict "key" "url" "value" $c.redis) | fromYaml }}
{{- if $redis }}{{ $_ := set $c "redis" $redis }}{{ else }}{{ $_ := unset $c "redis" }}{{ end }}
{{- range $name := list "principals" "roles" }}
{{- if and (get $.Values $name) (not (get $c $name)) }}{{ $_ := set $c $name (printf "%s.yaml" $name) }}{{ end }}
{{- end }}
{{- $rollout := $c.rollout | default dict }}
{{- if not $rollout.dir }}{{ $_ := set $rollout "dir" "/etc/crossfade/rollout.d" }}{{ end }}
{{- $_ := set $c "rollout" $rollout }}
{{- if not $c.state_dir }}{{ $_ := set $c "state_dir" "/var/lib/crossfade" }}{{ end }}
{{- toYaml $c }}
{{- end }}

{{/* Something, if a Redis is named, by the configuration or by what the process sees. */}}
{{- define "crossfade.redis" -}}
{{- $c := include "crossfade.config" . | fromYaml }}
{{- if or $c.redis .Values.extraEnvFrom }}named{{ end }}
{{- range .Values.extraEnv }}{{ if hasPrefix "CROSSFADE_REDIS" .name }}named{{ end }}{{ end }}
{{- end }}

{{/* What of it a running gateway does not take up: app.Reload says so of each. */}}
{{- define "crossfade.needsRestart" -}}
{{- $c := include "crossfade.config" . | fromYaml }}
{{- $of := pick $c "redis" "access_log" "audit" "shadow" "state_dir" "rollout" "metrics" }}
{{- $_ := set $of "listen" (dict "address" $c.listen.address "tls" (empty $c.listen.tls)) }}
{{- $_ := set $of "admin" (dict "address" $c.admin.address "tls" (empty $c.admin.tls)) }}
{{- $_ := set $of "upstream" (pick $c.upstream "profile" "timeout") }}
{{- toYaml $of }}
{{- end }}

{{- define "crossfade.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{/* The port of a URL, or the default one. */}}
{{- define "crossfade.urlPort" -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" (urlParse (.url | default "")).host) | default (.default | toString) }}
{{- end }}

{{/* A content that is a mapping, or a text as somebody wrote it. */}}
{{- define "crossfade.file" -}}
{{- if kindIs "string" . }}
{{- . | trimSuffix "\n" }}
{{- else }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Seconds of a duration like 90s or 1m30s, which dates can be moved by. */}}
{{- define "crossfade.seconds" -}}
{{- $then := toDate "2006-01-02" "2000-01-01" }}
{{- sub (mustDateModify . $then | unixEpoch | int64) (unixEpoch $then | int64) }}
{{- end }}

{{/* How long a pod may take to end. */}}
{{- define "crossfade.grace" -}}
{{- if not (kindIs "invalid" .Values.terminationGracePeriodSeconds) }}
{{- .Values.terminationGracePeriodSeconds }}
{{- else }}
{{- add (include "crossfade.seconds" (.Values.config.drain | default "30s") | int64) (.Values.preStopSeconds | int64) 10 }}
{{- end }}
{{- end }}

{{- define "crossfade.rolloutConfigMap" -}}
{{ include "crossfade.fullname" . }}-rollout
{{- end }}

{{/* What stands in the way of an installation that works, with what to do about it. */}}
{{- define "crossfade.check" -}}
{{- $c := include "crossfade.config" . | fromYaml }}
{{- $local := "^(127\\.|localhost:|\\[::1\\])" }}
{{- $wrong := list }}
{{- if not $c.upstream.url }}
{{- $wrong = append $wrong "config.upstream.url is missing: the service behind the gateway, like http://luigid:8082" }}
{{- else if not (regexMatch "^https?://[^/]" $c.upstream.url) }}
{{- $wrong = append $wrong (printf "config.upstream.url is %s, and has to be a URL like http://luigid:8082" $c.upstream.url) }}
{{- end }}
{{- if and (hasKey ($c.redis | default dict) "url") (not ($c.redis).url) }}
{{- $wrong = append $wrong "config.redis.url is empty: write redis://HOST:6379/0, or config.redis.url: null beside config.redis.url_file, or config.redis: null for none" }}
{{- end }}
{{- if and $c.drain (not (regexMatch "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$" ($c.drain | toString))) }}
{{- $wrong = append $wrong (printf "config.drain is %v, and has to be a duration like 30s or 1m30s" $c.drain) }}
{{- end }}
{{- if and (gt (int .Values.replicaCount) 1) (not (include "crossfade.redis" .)) }}
{{- $wrong = append $wrong (printf "replicaCount is %d, and config.redis names no Redis, so each gateway would have percentages and evidence of its own: set config.redis.url, or replicaCount: 1" (int .Values.replicaCount)) }}
{{- end }}
{{- if or ($c.redis).password (regexMatch "^[a-z]+://[^/]*:[^/]*@" (($c.redis).url | default "")) }}
{{- $wrong = append $wrong "config.redis holds a password, and a ConfigMap keeps no secret: make it a key of existingSecret, and write config.redis.password_file: /etc/crossfade/secrets/..." }}
{{- end }}
{{- if regexMatch $local $c.listen.address }}
{{- $wrong = append $wrong (printf "config.listen is %s, which nobody outside of the pod reaches: write \":8082\"" $c.listen.address) }}
{{- end }}
{{- if or (eq $c.metrics.address "off") (regexMatch $local $c.metrics.address) }}
{{- $wrong = append $wrong (printf "config.metrics is %s, and the kubelet's probes and Prometheus ask there: write \":9091\"" $c.metrics.address) }}
{{- end }}
{{- if and .Values.adminService.enabled (or (eq $c.admin.address "off") (regexMatch $local $c.admin.address)) }}
{{- $wrong = append $wrong (printf "adminService is enabled, and config.admin is %s, which nobody outside of the pod reaches: write config.admin.address: \":8081\", and who may do what in config.admin.viewers, leads and operators" $c.admin.address) }}
{{- end }}
{{- range $key, $of := dict "listen" $c.listen "metrics" $c.metrics "admin" $c.admin }}
{{- if and (ne $of.address "off") (not (regexMatch ":[1-9][0-9]*$" $of.address)) }}
{{- $wrong = append $wrong (printf "config.%s is %s, which names no port: write it like \":8082\"" $key $of.address) }}
{{- end }}
{{- end }}
{{- if and .Values.networkPolicy.upstream.isolate (not .Values.networkPolicy.upstream.podSelector) }}
{{- $wrong = append $wrong "networkPolicy.upstream.isolate needs networkPolicy.upstream.podSelector: without one the policy would select every pod of the namespace" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- $wrong = append $wrong "ingress is enabled and ingress.hosts names none: write - { host: luigi.example.com }" }}
{{- end }}
{{- if $wrong }}
{{- fail (printf "\n\n%s\n" (join "\n" $wrong)) }}
{{- end }}
{{- end }}

{{- define "crossfade.volumes" -}}
- name: config
  configMap:
    name: {{ include "crossfade.fullname" . }}
- name: rollout
  projected:
    sources:
      - configMap:
          name: {{ include "crossfade.rolloutConfigMap" . }}
      {{- range .Values.rollout.existingConfigMaps }}
      - configMap:
          name: {{ . }}
          optional: true
      {{- end }}
{{- with .Values.existingSecret }}
- name: secrets
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.adminTLS.existingSecret }}
- name: admin-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What a process of ours needs besides a place to write to: gateway and test alike. Whole
directories are mounted, because a file that is mounted alone (subPath) never changes. */}}
{{- define "crossfade.process" -}}
image: {{ include "crossfade.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: CROSSFADE_CONFIG
    value: /etc/crossfade/config/crossfade.yaml
  {{- if ((.Values.resources).limits).memory }}
  - name: GOMEMLIMIT
    valueFrom:
      resourceFieldRef:
        containerName: {{ .container }}
        resource: limits.memory
        divisor: "1"
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/crossfade/config
    readOnly: true
  - name: rollout
    mountPath: /etc/crossfade/rollout.d
    readOnly: true
  {{- if .Values.existingSecret }}
  - name: secrets
    mountPath: /etc/crossfade/secrets
    readOnly: true
  {{- end }}
  {{- if .Values.tls.existingSecret }}
  - name: tls
    mountPath: /etc/crossfade/tls
    readOnly: true
  {{- end }}
  {{- if .Values.adminTLS.existingSecret }}
  - name: admin-tls
    mountPath: /etc/crossfade/admin-tls
    readOnly: true
  {{- end }}
  - name: state
    mountPath: /var/lib/crossfade
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "crossfade.placement" -}}
{{- if .Values.affinity }}
affinity:
  {{- toYaml .Values.affinity | nindent 2 }}
{{- else if ne .Values.antiAffinity "none" }}
affinity:
  podAntiAffinity:
    {{- if eq .Values.antiAffinity "hard" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "crossfade.gatewayLabels" . | nindent 12 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "crossfade.gatewayLabels" . | nindent 14 }}
    {{- end }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
{{- $selector := dict "labelSelector" (dict "matchLabels" (include "crossfade.gatewayLabels" $ | fromYaml)) }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml (merge (deepCopy .) $selector) | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "crossfade.pod" -}}
{{- $c := include "crossfade.config" . | fromYaml }}
metadata:
  labels:
    {{- include "crossfade.gatewayLabels" . | nindent 4 }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: crossfade
    # Of the settings that need a new process. All others reach the running one.
    checksum/needs-restart: {{ include "crossfade.needsRestart" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "crossfade.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ include "crossfade.grace" . }}
  containers:
    - name: crossfade
      {{- include "crossfade.process" (dict "Values" .Values "Chart" .Chart "Release" .Release "container" "crossfade") | nindent 6 }}
      command: [crossfade, serve]
      ports:
        - name: http
          containerPort: {{ include "crossfade.port" $c.listen.address }}
        - name: metrics
          containerPort: {{ include "crossfade.port" $c.metrics.address }}
        {{- if .Values.adminService.enabled }}
        - name: admin
          containerPort: {{ include "crossfade.port" $c.admin.address }}
        {{- end }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .Values.preStopSeconds }}
      startupProbe:
        httpGet:
          path: /livez
          port: metrics
        {{- toYaml .Values.startupProbe | nindent 8 }}
      readinessProbe:
        httpGet:
          path: /readyz
          port: metrics
        {{- toYaml .Values.readinessProbe | nindent 8 }}
      livenessProbe:
        httpGet:
          path: /livez
          port: metrics
        {{- toYaml .Values.livenessProbe | nindent 8 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "crossfade.volumes" . | nindent 4 }}
    {{- if not .Values.persistence.enabled }}
    - name: state
      emptyDir:
        sizeLimit: {{ .Values.persistence.size }}
    {{- end }}
  {{- with include "crossfade.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
