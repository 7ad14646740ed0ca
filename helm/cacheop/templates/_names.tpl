{{/* Names are fixed: one CSI driver cacheop.io, so one installation in a cluster. */}}

{{/* The labels of an object. Call with (list $ "component"). */}}
{{- define "cacheop.labels" -}}
{{- $root := index . 0 -}}
{{ include "cacheop.selector" . }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The operator finds node plugins by these. */}}
{{- define "cacheop.selector" -}}
app.kubernetes.io/name: cacheop
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* An image's full name. Call with (list $ .Values.image). */}}
{{- define "cacheop.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- with $root.Values.registry | default $image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "cacheop.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where pods go. Call with the values of a component. */}}
{{- define "cacheop.placing" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end }}

{{/* Call with (list $ "what the values say"). Not system-cluster-critical: GKE refuses that outside
     kube-system. */}}
{{- define "cacheop.priority" -}}
{{- $root := index . 0 -}}
{{- with index . 1 | default (ternary "cacheop-system" "" $root.Values.priorityClasses.create) }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "cacheop.workerPriorityClass" -}}
{{- $own := ternary "cacheop-worker" "" .Values.priorityClasses.create -}}
{{- .Values.worker.priorityClassName | default $own -}}
{{- end }}

{{/* What PodSecurity `restricted` asks of a pod, and of a container. */}}
{{- define "cacheop.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "cacheop.restrictedContainer" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{- define "cacheop.redisUrl" -}}
{{- if .Values.redis.enabled -}}
redis://{{ .Values.redis.clusterIP | default (printf "cacheop-redis.%s.svc" .Release.Namespace) }}:6379/0
{{- else -}}
{{- .Values.redis.external.url -}}
{{- end -}}
{{- end }}

{{- define "cacheop.masterSecret" -}}
{{- .Values.masterKey.existingSecret | default "cacheop-master" -}}
{{- end }}

{{- define "cacheop.redisSecret" -}}
{{- .Values.redis.existingSecret | default "cacheop-redis" -}}
{{- end }}

{{/* Secret and key of the password with which the operator makes users in Redis, or nothing. */}}
{{- define "cacheop.redisPassword" -}}
{{- if .Values.redis.enabled -}}
{name: {{ include "cacheop.redisSecret" . }}, key: password}
{{- else if .Values.redis.external.passwordSecret.name -}}
{{ toJson .Values.redis.external.passwordSecret }}
{{- end -}}
{{- end }}

{{/* What cacheop/operator/settings.py reads of CACHEOP_WORKER. */}}
{{- define "cacheop.workerDefaults" -}}
{{- $worker := .Values.worker -}}
{{- dict "labels" $worker.podLabels "annotations" $worker.podAnnotations "pullSecrets" $worker.imagePullSecrets "priorityClass" (include "cacheop.workerPriorityClass" .) "tolerations" $worker.tolerations "cpu" $worker.cpu "memory" $worker.memory | toJson -}}
{{- end }}

{{/* Names of the ConfigMaps that the list of Datasets fills, one after the other. */}}
{{- define "cacheop.shards" -}}
{{- $names := list "cacheop-datasets" -}}
{{- range untilStep 1 16 1 }}{{ $names = append $names (printf "cacheop-datasets-%d" .) }}{{ end -}}
{{- toJson $names -}}
{{- end }}
