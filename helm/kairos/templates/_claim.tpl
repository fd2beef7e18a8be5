{{/* A claim that outlives the release: include "kairos.claim" (dict "root" $ "name" NAME "component" C "volume" VALUES) */}}
{{- define "kairos.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  labels:
    {{- include "kairos.labels" . | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: {{ toJson .volume.accessModes }}
  {{- if eq .volume.storageClass "-" }}
  storageClassName: ""
  {{- else if .volume.storageClass }}
  storageClassName: {{ .volume.storageClass }}
  {{- end }}
  resources:
    requests: {storage: {{ .volume.size }}}
{{- end }}
