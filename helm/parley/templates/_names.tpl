{{/* Names and labels. A track's scope is (dict "root" $ "track" "stable"). */}}

{{- define "parley.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "parley" $name) -}}{{- $name = printf "%s-parley" $name -}}{{- end -}}
{{- /* A Service's name begins with a letter and has no dots; a release's may. */ -}}
{{- if regexMatch "^[0-9]" $name -}}{{- $name = printf "parley-%s" .Release.Name -}}{{- end -}}
{{- /* 49: with the longest ending, the check's Job has a name of 63, which is a label too. */ -}}
{{- .Values.fullnameOverride | default $name | replace "." "-" | trunc 49 | trimAll "-" -}}
{{- end -}}

{{- define "parley.serviceHost" -}}
{{ include "parley.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{- define "parley.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "parley.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* What selects the pods of both tracks. Never the version: a selector cannot change, and a release is no new workload. */}}
{{- define "parley.instanceLabels" -}}
app.kubernetes.io/name: parley
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* What selects all pods. Flagger gives the pods that serve another name (`parley-primary`). */}}
{{- define "parley.anyPodLabels" -}}
{{- if not (and .Values.canary.enabled (eq .Values.canary.owner "flagger")) -}}
app.kubernetes.io/name: parley
{{ end -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* What selects the pods of one track. */}}
{{- define "parley.trackLabels" -}}
{{ include "parley.instanceLabels" .root }}
track: {{ .track }}
{{- end -}}

{{- define "parley.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "parley.instanceLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A track's own `image` as JSON of a map, whether it is one or a reference such as `repository:tag` or `repository@digest`. */}}
{{- define "parley.ownImage" -}}
{{- $own := (index .root.Values .track).image -}}
{{- if kindIs "string" $own -}}
{{- $digest := regexFind "sha256:[0-9a-f]{64}$" $own -}}
{{- $named := $own | trimSuffix (printf "@%s" $digest) -}}
{{- $tag := regexFind ":[A-Za-z0-9_.-]+$" $named -}}
{{- dict "repository" ($named | trimSuffix $tag) "tag" ($tag | trimPrefix ":") "digest" $digest | toJson -}}
{{- else -}}
{{- $own | default dict | toJson -}}
{{- end -}}
{{- end -}}

{{/* The track's image, `repository@digest` or `repository:tag`. */}}
{{- define "parley.image" -}}
{{- $own := include "parley.ownImage" . | fromJson -}}
{{- $shared := .root.Values.image -}}
{{- $repository := $own.repository | default $shared.repository -}}
{{- /* A tag of the track's own is not hidden by a shared digest. */ -}}
{{- $digest := $own.digest | default (ternary "" $shared.digest (not (empty $own.tag))) -}}
{{- if $digest -}}
{{- printf "%s@%s" $repository $digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($own.tag | default $shared.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The version that a track says it is; a label too, which begins and ends with a letter or a digit. */}}
{{- define "parley.version" -}}
{{- $own := include "parley.ownImage" . | fromJson -}}
{{- $shared := .root.Values.image -}}
{{- $short := list -}}
{{- range $digest := list $own.digest $shared.digest -}}
{{- $short = append $short ($digest | default "" | trimPrefix "sha256:" | trunc 12) -}}
{{- end -}}
{{- coalesce (index .root.Values .track).version $own.tag (first $short) $shared.tag (last $short) .root.Chart.AppVersion | trunc 63 | trimAll "-_." -}}
{{- end -}}

{{/* Seconds that a pod needs to go: preStop, turns, streams, sidecar, and five for the kubelet. */}}
{{- define "parley.neededGraceSeconds" -}}
{{- $drain := .Values.drain -}}
{{- add $drain.preStopSeconds $drain.maxTurnSeconds $drain.closeSeconds (ternary $drain.sidecarFlushSeconds 0 .Values.sidecar.enabled) 5 -}}
{{- end -}}

{{/* Seconds between two pods that the autoscaler takes away. Kubernetes knows half an hour at most. */}}
{{- define "parley.scaleDownSeconds" -}}
{{- max 60 (int (include "parley.neededGraceSeconds" .)) | min 1800 -}}
{{- end -}}

{{/* "true" where the chart itself moves traffic to a canary Deployment of its own. */}}
{{- define "parley.ownCanary" -}}
{{- if and .Values.canary.enabled (eq .Values.canary.owner "helm") -}}true{{- end -}}
{{- end -}}

{{/* "true" where VirtualService and DestinationRule are the chart's. */}}
{{- define "parley.ownRouting" -}}
{{- if and .Values.istio.enabled (or (not .Values.canary.enabled) (eq .Values.canary.owner "helm")) -}}true{{- end -}}
{{- end -}}

{{/* "true" where the canary answers requests with the preview header. */}}
{{- define "parley.preview" -}}
{{- if and (include "parley.ownCanary" .) .Values.canary.preview.enabled (not .Values.canary.shadow.safe) -}}true{{- end -}}
{{- end -}}

{{/*
"true" where sessions go back to the version that began them. A canary that takes nobody, or that has been aborted, gets no old
sessions either: stable reads them.
*/}}
{{- define "parley.affinity" -}}
{{- $canaryServes := and (include "parley.ownCanary" .) (not .Values.canary.shadow.safe) (or (gt (int .Values.canary.weight) 0) (include "parley.preview" .)) -}}
{{- $stableVersion := include "parley.version" (dict "root" . "track" "stable") -}}
{{- $canaryVersion := include "parley.version" (dict "root" . "track" "canary") -}}
{{- if and .Values.traffic.affinity.enabled $canaryServes (ne $stableVersion $canaryVersion) -}}true{{- end -}}
{{- end -}}

{{/* What keeps the routing objects when the ownership of the weights goes to another controller. */}}
{{- define "parley.routingAnnotations" -}}
{{- if .Values.canary.enabled }}
annotations:
  # A later `canary.owner: flagger` or `argo` takes this object over; it must not be deleted in between.
  helm.sh/resource-policy: keep
{{- end }}
{{- end -}}

{{/* What an autoscaler scales: with Argo it is the Rollout that owns the pods. */}}
{{- define "parley.scaleTarget" -}}
{{- if and .Values.canary.enabled (eq .Values.canary.owner "argo") -}}
apiVersion: argoproj.io/v1alpha1
kind: Rollout
name: {{ include "parley.fullname" . }}
{{- else -}}
apiVersion: apps/v1
kind: Deployment
name: {{ include "parley.fullname" . }}-stable
{{- end -}}
{{- end -}}
