{{/*
What is true of each service whatever the values say; plimsoll.toml says the same. `dependsOn` gives a service the
URLs of others and leave of the NetworkPolicy to call them.
*/}}
{{- define "kairos.facts" -}}
market-data-ingestor:
  component: ingestor
  kind: StatefulSet
  exclusive: true
  dependsOn: []
risk-manager:
  component: risk
  kind: Deployment
  exclusive: false
  dependsOn: [market-data-ingestor]
strategy-orchestrator:
  component: strategy
  kind: Deployment
  exclusive: true
  dependsOn: [market-data-ingestor, risk-manager]
api-gateway:
  component: gateway
  kind: Deployment
  exclusive: false
  dependsOn: [market-data-ingestor, risk-manager, strategy-orchestrator]
{{- end }}

{{/* The user that the images run as. */}}
{{- define "kairos.uid" -}}65532{{- end }}

{{/* Whether a part is rendered: include "kairos.renders" (dict "root" $ "part" "shared") */}}
{{- define "kairos.renders" -}}
{{- if or (eq .root.Values.parts "all") (eq .root.Values.parts .part) }}yes{{ end -}}
{{- end }}

{{/* What stands behind the names of a slot's objects. */}}
{{- define "kairos.suffix" -}}
{{- with .Values.colour }}-{{ . }}{{ end -}}
{{- end }}

{{/* A service as the templates below want it: include "kairos.service" (dict "root" $ "name" NAME) | fromYaml */}}
{{- define "kairos.service" -}}
{{- $facts := index (include "kairos.facts" .root | fromYaml) .name -}}
{{- $values := index .root.Values.services .name -}}
{{- $scales := and (not $facts.exclusive) $values.autoscaling.enabled -}}
{{- $pod := mergeOverwrite (deepCopy .root.Values.pod) $values.pod -}}
{{- $most := 1 -}}
{{- if not $facts.exclusive }}{{ $most = ternary $values.autoscaling.maxReplicas $values.replicas $scales }}{{ end -}}
{{- $own := dict "name" .name "scales" $scales "most" $most "pod" $pod
      "workload" (printf "%s%s" .name (include "kairos.suffix" .root)) -}}
{{- merge $own $facts (omit $values "pod") | toYaml -}}
{{- end }}
