{{/* What a schema cannot say; all mistakes at once. */}}
{{- define "kairos.validate" -}}
{{- $wrong := list -}}
{{- $v := .Values -}}
{{- if and (eq $v.parts "slot") (not $v.colour) }}{{ $wrong = append $wrong "parts=slot: set colour to blue or green" }}{{ end -}}
{{- if and (eq $v.parts "shared") $v.colour }}{{ $wrong = append $wrong "parts=shared has no workloads: set liveColour, not colour" }}{{ end -}}
{{- range $name, $_ := include "kairos.facts" . | fromYaml -}}
  {{- $service := include "kairos.service" (dict "root" $ "name" $name) | fromYaml -}}
  {{- $used := or (ne $v.parts "shared") (and (eq $name "risk-manager") $v.backup.enabled) (and (eq $name "api-gateway") $v.tests.enabled) -}}
  {{- if and $used (not $service.image.digest) (not $v.image.allowTags) -}}
    {{- $wrong = append $wrong (printf "services.%s.image.digest is not set; image.allowTags=true would take a tag, which may mean another image tomorrow" $name) -}}
  {{- end -}}
  {{- if and (eq $name "risk-manager") (gt (int $service.most) 1) (not $service.persistence.enabled) -}}
    {{- $wrong = append $wrong "services.risk-manager: more than one replica needs persistence, or each would count positions of its own" -}}
  {{- end -}}
  {{- if and $service.scales (gt (int $service.autoscaling.minReplicas) (int $service.autoscaling.maxReplicas)) -}}
    {{- $wrong = append $wrong (printf "services.%s.autoscaling: minReplicas is above maxReplicas" $name) -}}
  {{- end -}}
  {{- if and $service.scales (not $service.autoscaling.cpuPercent) (not $service.autoscaling.memoryPercent) (not $service.autoscaling.custom) -}}
    {{- $wrong = append $wrong (printf "services.%s.autoscaling has no metric: set cpuPercent, memoryPercent or custom" $name) -}}
  {{- end -}}
  {{- $drain := int ($service.env.DRAIN_GRACE_MS | default $v.config.DRAIN_GRACE_MS | default "10000") -}}
  {{- $lame := int ($service.env.LAME_DUCK_MS | default $v.config.LAME_DUCK_MS | default "0") -}}
  {{- $needed := add (mul 1000 (int $service.pod.preStopSeconds)) $drain $lame -}}
  {{- if lt (mul 1000 (int $service.pod.terminationGracePeriodSeconds)) $needed -}}
    {{- $wrong = append $wrong (printf "services.%s: terminationGracePeriodSeconds is %d, and preStopSeconds, LAME_DUCK_MS and DRAIN_GRACE_MS together are %d ms" $name (int $service.pod.terminationGracePeriodSeconds) $needed) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := $v.reloadable -}}
  {{- if get $v.config (upper $name) -}}
    {{- $wrong = append $wrong (printf "reloadable.%s: config.%s is set too, and would always win" $name (upper $name)) -}}
  {{- end -}}
{{- end -}}
{{- if and $v.backup.enabled (not (index $v.services "risk-manager").persistence.enabled) -}}
  {{- $wrong = append $wrong "backup: services.risk-manager.persistence is off, so there is nothing to back up" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}{{ $wrong = append $wrong "ingress.hosts is empty" }}{{ end -}}
{{- with $v.apiKey -}}
  {{- if and .externalSecret.enabled (not (and .secretName .externalSecret.store.name .externalSecret.remoteKey)) -}}
    {{- $wrong = append $wrong "apiKey.externalSecret needs apiKey.secretName, store.name and remoteKey" -}}
  {{- end -}}
{{- end -}}
{{- if and $v.priorityClass.create (not $v.priorityClass.name) }}{{ $wrong = append $wrong "priorityClass.create needs priorityClass.name" }}{{ end -}}
{{- range $name, $external := $v.externalServices -}}
  {{- if and $external.enabled (not (and $external.host $external.secretName)) -}}
    {{- $wrong = append $wrong (printf "externalServices.%s needs host and secretName" $name) -}}
  {{- end -}}
  {{- if and $external.enabled $v.networkPolicy.enabled (not $external.cidrs) -}}
    {{- $wrong = append $wrong (printf "externalServices.%s.cidrs is empty: the NetworkPolicy would keep services from it" $name) -}}
  {{- end -}}
{{- end -}}
{{- if $wrong }}{{ fail (printf "%d mistake(s) in the values:\n  %s" (len $wrong) (join "\n  " $wrong)) }}{{ end -}}
{{- end }}
