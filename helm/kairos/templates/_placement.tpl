{{/* On which nodes: include "kairos.placement" (dict "root" $ "service" SERVICE) */}}
{{- define "kairos.placement" -}}
{{- $service := .service -}}
{{- $slot := include "kairos.slot" .root -}}
{{- with $service.pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $service.pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $together := include "kairos.oneNode" $service -}}
{{- $apart := and (not $service.exclusive) (not $together) (ne $service.pod.antiAffinity "none") -}}
{{- if or $together $apart }}
affinity:
  {{- if $together }}
  {{- $together | nindent 2 }}
  {{- else if eq $service.pod.antiAffinity "required" }}
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "kairos.selector" $service | nindent 12 }}
            {{- with $slot }}
            {{- . | nindent 12 }}
            {{- end }}
        # Else a rollout would wait for a node that has no pod of the revision before.
        matchLabelKeys: [pod-template-hash]
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "kairos.selector" $service | nindent 14 }}
              {{- with $slot }}
              {{- . | nindent 14 }}
              {{- end }}
  {{- end }}
{{- end }}
{{- if not (or $service.exclusive $together) }}
{{- with $service.pod.spreadOver }}
topologySpreadConstraints:
  {{- range . }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kairos.selector" $service | nindent 8 }}
        {{- with $slot }}
        {{- . | nindent 8 }}
        {{- end }}
    # Else the pods of the revision that goes would count as well.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
A volume of one node keeps all pods that use it on that node: both slots, the replica that follows another, the backup.
Empty if the volume can be on several. Its argument needs `name` and `persistence`.
*/}}
{{- define "kairos.oneNode" -}}
{{- if and .persistence .persistence.enabled (not (has "ReadWriteMany" .persistence.accessModes)) -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "kairos.selector" . | nindent 10 }}
{{- end -}}
{{- end }}
