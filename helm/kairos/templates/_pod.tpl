{{/*
The pod template of a service, the same for Deployment and StatefulSet:
include "kairos.pod" (dict "root" $ "service" SERVICE)
*/}}
{{- define "kairos.pod" -}}
{{- $root := .root -}}
{{- $service := .service -}}
{{- $who := dict "root" $root "name" $service.name "component" $service.component -}}
metadata:
  labels:
    {{- include "kairos.identity" $who | nindent 4 }}
    {{- with include "kairos.slot" $root }}
    {{- . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ $service.name }}
    # Variables are read once, at the start: other ones, other pods.
    checksum/config: {{ include "kairos.config" $root | sha256sum }}
    {{- with $service.pod.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ $service.name }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $service.pod.terminationGracePeriodSeconds }}
  {{- with $root.Values.priorityClass.name }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with include "kairos.pullSecrets" $root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  securityContext:
    {{- include "kairos.podSecurity" $root | nindent 4 }}
  {{- with include "kairos.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ $service.name }}
      image: {{ include "kairos.image" (dict "root" $root "name" $service.name "image" $service.image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      ports:
        - {name: http, containerPort: 8080, protocol: TCP}
      envFrom:
        - configMapRef: {name: {{ include "kairos.configName" $root }}}
      env:
        {{- include "kairos.env" . | trim | nindent 8 }}
      resources:
        {{- toYaml $service.pod.resources | nindent 8 }}
      securityContext:
        {{- include "kairos.containerSecurity" $root | nindent 8 }}
      startupProbe:
        httpGet: {path: /health, port: http}
        {{- toYaml $service.pod.startupProbe | nindent 8 }}
      livenessProbe:
        httpGet: {path: /health, port: http}
        {{- toYaml $service.pod.livenessProbe | nindent 8 }}
      readinessProbe:
        httpGet: {path: /ready, port: http}
        {{- toYaml $service.pod.readinessProbe | nindent 8 }}
      {{- if $service.pod.preStopSeconds }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ $service.pod.preStopSeconds }}}
      {{- end }}
      {{- with include "kairos.mounts" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
  {{- with include "kairos.volumes" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "kairos.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
{{- end }}

{{- define "kairos.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ include "kairos.uid" . }}
runAsGroup: {{ include "kairos.uid" . }}
fsGroup: {{ include "kairos.uid" . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kairos.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Variables that only this pod has; nobody's `env` may replace them (see values.schema.json). */}}
{{- define "kairos.env" -}}
- {name: HOST, value: 0.0.0.0}
- {name: PORT, value: "8080"}
{{- range .service.dependsOn }}
- {name: {{ printf "%s_URL" . | upper | replace "-" "_" }}, value: "http://{{ . }}"}
{{- end }}
{{- with .root.Values.colour }}
- {name: SERVICE_SLOT, value: {{ . }}}
{{- end }}
{{- if .service.exclusive }}
- {name: ACTIVATION, value: {{ ternary "managed" "always" (ne .root.Values.colour "") }}}
{{- end }}
{{- if and .service.persistence .service.persistence.enabled }}
- {name: STATE_DIR, value: /var/lib/kairos}
{{- end }}
{{- if .root.Values.reloadable }}
- {name: KAIROS_CONFIG, value: /etc/kairos/reloadable/kairos.toml}
{{- end }}
{{- if and (eq .service.name "api-gateway") .root.Values.apiKey.secretName }}
- {name: KAIROS_API_KEY_FILE, value: /etc/kairos/api-key/{{ .root.Values.apiKey.secretKey }}}
{{- end }}
{{- range $name, $external := .root.Values.externalServices }}
{{- if and $external.enabled (has $.service.name $external.services) }}
- name: {{ upper $name }}_URL
  valueFrom: {secretKeyRef: {name: {{ $external.secretName }}, key: {{ $external.secretKey }}}}
{{- end }}
{{- end }}
{{- range $name, $value := .service.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* Directories and not single files: a file that is mounted by itself never changes. */}}
{{- define "kairos.mounts" -}}
{{- $state := and .service.persistence .service.persistence.enabled -}}
{{- $key := and (eq .service.name "api-gateway") .root.Values.apiKey.secretName -}}
{{- $file := .root.Values.reloadable -}}
{{- if or $state $key $file }}
volumeMounts:
  {{- if $state }}
  - {name: state, mountPath: /var/lib/kairos}
  {{- end }}
  {{- if $file }}
  - {name: reloadable, mountPath: /etc/kairos/reloadable, readOnly: true}
  {{- end }}
  {{- if $key }}
  - {name: api-key, mountPath: /etc/kairos/api-key, readOnly: true}
  {{- end }}
{{- end }}
{{- end }}

{{- define "kairos.volumes" -}}
{{- $state := and .service.persistence .service.persistence.enabled -}}
{{- $key := and (eq .service.name "api-gateway") .root.Values.apiKey.secretName -}}
{{- $file := .root.Values.reloadable -}}
{{- if or $state $key $file }}
volumes:
  {{- if $state }}
  - name: state
    persistentVolumeClaim: {claimName: {{ .service.persistence.existingClaim | default .service.name }}}
  {{- end }}
  {{- if $file }}
  - name: reloadable
    configMap: {name: {{ include "kairos.reloadableName" .root }}}
  {{- end }}
  {{- if $key }}
  - name: api-key
    secret: {secretName: {{ .root.Values.apiKey.secretName }}, defaultMode: 0440}
  {{- end }}
{{- end }}
{{- end }}
