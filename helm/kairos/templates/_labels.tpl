{{/* Labels of every object: include "kairos.labels" (dict "root" $ "name" NAME "component" COMPONENT) */}}
{{- define "kairos.labels" -}}
{{ include "kairos.identity" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Those that say who it is. Pods have these only: a version among them would restart pods whose image stays. */}}
{{- define "kairos.identity" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: kairos
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* What selects a service's pods. Not the instance: two slots may be two releases. */}}
{{- define "kairos.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: kairos
{{- end }}

{{/* The label of the rendered slot, if there is one. */}}
{{- define "kairos.slot" -}}
{{- with .Values.colour }}plimsoll.dev/slot: {{ . }}{{ end -}}
{{- end }}

{{/* An image by digest: include "kairos.image" (dict "root" $ "name" NAME "image" VALUES) */}}
{{- define "kairos.image" -}}
{{- $default := printf "%s/%s" (trimSuffix "/" .root.Values.image.registry) .name | trimPrefix "/" -}}
{{- $repository := .image.repository | default $default -}}
{{- if .image.digest }}{{ $repository }}@{{ .image.digest }}
{{- else }}{{ $repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}
