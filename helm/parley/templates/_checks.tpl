{{/* What values say to each other. Each wrong combination fails the render with a sentence that says what to do. */}}
{{- define "parley.checks" -}}
{{- $canary := .Values.canary -}}
{{- $weight := int $canary.weight -}}
{{- $mirror := int $canary.mirror.percent -}}
{{- $stableScope := dict "root" . "track" "stable" -}}
{{- $canaryScope := dict "root" . "track" "canary" -}}

{{- if and (gt $weight 0) (not $canary.enabled) -}}
{{- fail (printf "canary.weight is %d, but canary.enabled is false: there are no canary pods to send to. Set canary.enabled to true, or canary.weight to 0." $weight) -}}
{{- end -}}
{{- if and (gt $weight 0) (ne $canary.owner "helm") -}}
{{- fail (printf "canary.owner is %s and canary.weight is %d: only one may write weights. Set canary.weight to 0, or canary.owner to helm." $canary.owner $weight) -}}
{{- end -}}
{{- if and (ne $canary.owner "helm") (not $canary.enabled) -}}
{{- fail (printf "canary.owner is %s, but canary.enabled is false: the chart would write the routes that %s writes. Set canary.enabled to true, or canary.owner to helm." $canary.owner $canary.owner) -}}
{{- end -}}
{{- if and (ne $canary.owner "helm") (not .Values.autoscaling.enabled) -}}
{{- fail (printf "canary.owner is %s and autoscaling.enabled is false: the chart and %s would both write the Deployment's replicas. Set autoscaling.enabled to true; for a fixed number set autoscaling.minReplicas and maxReplicas to it." $canary.owner $canary.owner) -}}
{{- end -}}
{{- if and (gt $mirror 0) (not $canary.enabled) -}}
{{- fail (printf "canary.mirror.percent is %d, but canary.enabled is false: there are no pods to mirror to. Set canary.enabled to true, or canary.mirror.percent to 0." $mirror) -}}
{{- end -}}
{{- if and (gt $mirror 0) (ne $canary.owner "helm") -}}
{{- fail (printf "canary.owner is %s and canary.mirror.percent is %d: the chart writes no routes then. Set canary.mirror.percent to 0, or canary.owner to helm." $canary.owner $mirror) -}}
{{- end -}}
{{- if and (gt $mirror 0) (not $canary.shadow.safe) -}}
{{- fail "canary.mirror.percent is above 0 and canary.shadow.safe is false: every mirrored turn would be paid for and written twice. Set canary.shadow.safe to true, so that the canary's pods write nothing and call no real model." -}}
{{- end -}}
{{- if and $canary.shadow.safe (gt $weight 0) -}}
{{- fail (printf "canary.shadow.safe is true and canary.weight is %d: shadows forget what they are told, so nobody may be sent to them. Set canary.weight to 0, or canary.shadow.safe to false." $weight) -}}
{{- end -}}
{{- if and (include "parley.ownCanary" .) (not .Values.istio.enabled) -}}
{{- fail "canary.enabled is true and istio.enabled is false: the Service would give the canary a share by its number of pods, whatever canary.weight says. Set istio.enabled to true, or canary.enabled to false." -}}
{{- end -}}
{{- if and (include "parley.ownCanary" .) (not (has "mesh" .Values.istio.gateways)) -}}
{{- fail "canary.enabled is true and istio.gateways lacks mesh: callers in the mesh, helm test among them, would reach the canary by its number of pods and have their turns sent again. Set istio.gateways to hold mesh too." -}}
{{- end -}}
{{- if and $canary.enabled (gt $weight 0) (eq (include "parley.image" $stableScope) (include "parley.image" $canaryScope)) -}}
{{- fail (printf "canary.weight is %d and both tracks run %s: there is nothing to compare. Set canary.image, or canary.weight to 0." $weight (include "parley.image" $stableScope)) -}}
{{- end -}}
{{- if and $canary.enabled (gt $weight 0) (eq (include "parley.version" $stableScope) (include "parley.version" $canaryScope)) -}}
{{- fail (printf "canary.weight is %d and both tracks call themselves %s: sessions could not go back to the version that began them. Set canary.version or stable.version." $weight (include "parley.version" $stableScope)) -}}
{{- end -}}
{{- if and $canary.enabled (gt $weight 0) (eq (int $canary.replicas) 0) -}}
{{- fail (printf "canary.weight is %d and canary.replicas is 0: that share of calls would fail. Set canary.replicas to 1 or more." $weight) -}}
{{- end -}}

{{- $needed := int (include "parley.neededGraceSeconds" .) -}}
{{- $given := .Values.drain.terminationGracePeriodSeconds -}}
{{- if and (not (kindIs "invalid" $given)) (lt (int $given) $needed) -}}
{{- fail (printf "drain.terminationGracePeriodSeconds is %d, but preStop, turns, streams and sidecar need %d: turns would be killed. Set it to null or to %d or more, or make drain.maxTurnSeconds smaller." (int $given) $needed $needed) -}}
{{- end -}}

{{- $auto := .Values.autoscaling -}}
{{- if and $auto.enabled (gt (int $auto.minReplicas) (int $auto.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas is %d and autoscaling.maxReplicas is %d: the least is above the most. Swap them." (int $auto.minReplicas) (int $auto.maxReplicas)) -}}
{{- end -}}
{{- if and $auto.enabled (eq $auto.kind "keda") (not $auto.keda.serverAddress) -}}
{{- fail "autoscaling.kind is keda and autoscaling.keda.serverAddress is empty: KEDA has no Prometheus to ask. Set it to the URL of the Prometheus that scrapes the pods." -}}
{{- end -}}

{{- if .Values.pdb.enabled -}}
{{- $pods := dict "stable" (ternary (int $auto.minReplicas) (int .Values.stable.replicas) $auto.enabled) -}}
{{- if include "parley.ownCanary" . -}}{{- $_ := set $pods "canary" (int $canary.replicas) -}}{{- end -}}
{{- $away := .Values.pdb.maxUnavailable -}}
{{- $stay := .Values.pdb.minAvailable -}}
{{- if and (kindIs "invalid" $away) (kindIs "invalid" $stay) -}}
{{- fail "pdb.enabled is true, and neither pdb.maxUnavailable nor pdb.minAvailable is set. Set pdb.maxUnavailable to 1, or pdb.enabled to false." -}}
{{- end -}}
{{- if not (or (kindIs "invalid" $away) (kindIs "invalid" $stay)) -}}
{{- fail (printf "pdb.maxUnavailable is %v and pdb.minAvailable is %v: a budget has one of them. Set one of them to null." $away $stay) -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $away)) (has (toString $away) (list "0" "0%")) -}}
{{- fail (printf "pdb.maxUnavailable is %v: no pod could ever be evicted, and node drains would hang. Set it to 1 or more." $away) -}}
{{- end -}}
{{- if not (kindIs "invalid" $stay) -}}
{{- range $track, $count := $pods -}}
{{- /* Kubernetes rounds a share of pods up. */ -}}
{{- $kept := ternary (int (divf (addf (mulf (float64 (trimSuffix "%" (toString $stay))) $count) 99) 100 | floor)) (int $stay) (hasSuffix "%" (toString $stay)) -}}
{{- if and (gt $count 0) (ge $kept $count) -}}
{{- fail (printf "pdb.minAvailable is %v, and the %s track may have no more than %d pods: none could be evicted, and node drains would hang. Set pdb.minAvailable to null and pdb.maxUnavailable to 1, or raise the number of pods." $stay $track $count) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $auth := .Values.auth -}}
{{- if and (eq $auth.mode "none") (not $auth.allowUnauthenticated) -}}
{{- fail "auth.mode is none: everybody who reaches the port may spend. Set auth.mode to api_key or jwt, or auth.allowUnauthenticated to true if that is meant." -}}
{{- end -}}
{{- if eq $auth.mode "jwt" -}}
{{- range $name := list "issuer" "audience" "jwksUrl" -}}
{{- if not (index $auth.jwt $name) -}}
{{- fail (printf "auth.mode is jwt and auth.jwt.%s is empty: no token could be checked. Set it." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if or (regexMatch "//[^@]*:[^@]+@" .Values.redis.url) (regexMatch "[?&]password=" .Values.redis.url) -}}
{{- fail "redis.url holds a password, which would stand in the release and in the pods' definition. Put the whole URL into a Secret and name it in redis.existingSecret." -}}
{{- end -}}
{{- if and (not .Values.redis.url) (not .Values.redis.existingSecret) -}}
{{- fail "redis.url and redis.existingSecret are both empty: the service keeps its sessions in Redis. Set one of them." -}}
{{- end -}}
{{- range $name, $url := dict "model.baseUrl" .Values.model.baseUrl "otlpEndpoint" .Values.otlpEndpoint "sidecar.alertmanagerUrl" .Values.sidecar.alertmanagerUrl "auth.jwt.jwksUrl" $auth.jwt.jwksUrl "autoscaling.keda.serverAddress" $auto.keda.serverAddress -}}
{{- if regexMatch "://[^/?#]*@" $url -}}
{{- fail (printf "%s holds a user or a password, which would stand in the release and in plain. Take it out; what has to know a caller gets a key from a Secret." $name) -}}
{{- end -}}
{{- end -}}
{{- range $list := list (dict "name" "extraEnv" "env" .Values.extraEnv) (dict "name" "sidecar.extraEnv" "env" .Values.sidecar.extraEnv) -}}
{{- range $list.env -}}
{{- if and (hasKey . "value") (regexMatch "(?i)(KEY|TOKEN|PASSWORD|SECRET|CREDENTIALS?)$" .name) -}}
{{- fail (printf "%s has %s with a value in plain. Put it into a Secret and use valueFrom.secretKeyRef." $list.name .name) -}}
{{- end -}}
{{- /* Kubernetes refuses a variable that is there twice, with a sentence about none of this. */ -}}
{{- if has .name (splitList " " "HOST PORT OPS_PORT USAGE_PORT USAGE_OPS_PORT VERSION TRACK LOG_LEVEL MODEL CORS_ORIGINS OTLP_ENDPOINT AUTH_MODE ALLOW_UNAUTHENTICATED JWT_ISSUER JWT_AUDIENCE JWKS_URL REDIS_URL REDIS_DURABILITY STATE_WRITE_SCHEMA CONFIG_FILE OPENAI_API_KEY OPENAI_BASE_URL DRAIN_MS MAX_TOKENS MAX_ROUNDS SESSION_TTL_HOURS RATE_LIMIT RATE_WINDOW REST_DOOR ALERTMANAGER_URL ALERT_NAMESPACE SIDECAR_LAST_SCRAPE_MS NODE_EXTRA_CA_CERTS") -}}
{{- fail (printf "%s sets %s, which the chart sets from other values. Take it out." $list.name .name) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range $list.env -}}
{{- if has .name $names -}}
{{- fail (printf "%s has %s twice. Take one of them out." $list.name .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- range $list, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" "track" "pod-template-hash" -}}
{{- if hasKey $labels $label -}}
{{- fail (printf "%s sets %s, by which the chart knows its own. Take it out." $list $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.rules.enabled (not .Values.sidecar.enabled) -}}
{{- fail "monitoring.rules.enabled is true and sidecar.enabled is false: the alert ParleySidecarDown would fire for ever, and those of cost never. Set sidecar.enabled to true, or monitoring.rules.enabled to false and bring rules of your own." -}}
{{- end -}}
{{- if and .Values.istio.enabled (not .Values.istio.gateways) -}}
{{- fail "istio.gateways is empty: the routes would hold for nobody. Set it to [mesh], to a gateway's namespace/name, or to both." -}}
{{- end -}}
{{- end -}}
