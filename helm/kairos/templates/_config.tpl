{{- define "kairos.configName" -}}kairos-config{{ include "kairos.suffix" . }}{{- end }}

{{- define "kairos.reloadableName" -}}kairos-reloadable{{ include "kairos.suffix" . }}{{- end }}

{{/* Variables of every service; an empty one counts as absent, so it is left out. */}}
{{- define "kairos.config" -}}
{{- range $name, $value := .Values.config }}
{{- if $value }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}
