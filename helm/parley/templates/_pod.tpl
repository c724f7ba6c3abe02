{{/* The pod template of both tracks; scope (dict "root" $ "track" "stable" | "canary"). */}}
{{- define "parley.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $shadow := and (eq .track "canary") $values.canary.shadow.safe -}}
{{- $sidecar := and $values.sidecar.enabled (not $shadow) -}}
metadata:
  labels:
    {{- include "parley.trackLabels" . | nindent 4 }}
    app.kubernetes.io/version: {{ include "parley.version" . | quote }}
    {{- with merge (dict) $values.podLabels $values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: parley
    {{- if $values.config }}
    # A changed parley.yaml is a new release of the pods: it is read once, at start.
    checksum/config: {{ $values.config | sha256sum }}
    {{- end }}
    {{- if $values.istio.enabled }}
    {{- if not (hasKey $values.podAnnotations "sidecar.istio.io/nativeSidecar") }}
    # The proxy outlives Parley's own sidecar, which writes to Redis at the very end.
    sidecar.istio.io/nativeSidecar: "true"
    {{- end }}
    {{- if not (hasKey $values.podAnnotations "proxy.istio.io/config") }}
    # The proxy starts first and stays as long as there are connections, so that draining turns reach Redis and models.
    proxy.istio.io/config: '{"holdApplicationUntilProxyStarts": true, "proxyMetadata": {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"}}'
    {{- end }}
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "parley.serviceAccountName" $root | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.drain.terminationGracePeriodSeconds | default (include "parley.neededGraceSeconds" $root) | int }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- include "parley.podSecurity" $root | nindent 2 }}
  {{- if $sidecar }}
  initContainers:
    # A native sidecar: runs before the service and after it, so that the last turn's records are still read.
    - name: sidecar
      image: {{ include "parley.image" . }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      restartPolicy: Always
      command: [node, sidecar/main.ts]
      env:
        {{- include "parley.sharedEnv" . | nindent 8 }}
        - { name: USAGE_PORT, value: "8081" }
        - { name: USAGE_OPS_PORT, value: "9091" }
        # Five of its seconds are for calls.
        - { name: SIDECAR_LAST_SCRAPE_MS, value: {{ mul 1000 (max 0 (sub $values.drain.sidecarFlushSeconds 5)) | quote }} }
        {{- with $values.sidecar.alertmanagerUrl }}
        - { name: ALERTMANAGER_URL, value: {{ . | quote }} }
        # What Prometheus puts on this release's metrics: so its alerts and those that are posted are one message.
        - { name: ALERT_NAMESPACE, value: {{ $root.Release.Namespace | quote }} }
        {{- end }}
        {{- with $values.sidecar.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - { name: usage, containerPort: 8081 }
        - { name: usage-ops, containerPort: 9091 }
      startupProbe:
        httpGet: { path: /livez, port: usage-ops }
        periodSeconds: 1
        failureThreshold: 60
      # No readiness probe: it would count for the pod, and a bill that comes late is no reason to refuse turns.
      livenessProbe:
        httpGet: { path: /livez, port: usage-ops }
        periodSeconds: 10
        timeoutSeconds: 5
      resources:
        {{- toYaml $values.sidecar.resources | nindent 8 }}
      {{- include "parley.containerSecurity" . | nindent 6 }}
      {{- include "parley.volumeMounts" . | nindent 6 }}
  {{- end }}
  containers:
    - name: parley
      image: {{ include "parley.image" . }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      {{- if $shadow }}
      # A shadow: the embedded store and the simulated model, so that copies of turns are neither written nor paid for.
      args: [standalone/main.ts]
      {{- end }}
      env:
        {{- include "parley.sharedEnv" . | nindent 8 }}
        - { name: PORT, value: "8080" }
        - { name: OPS_PORT, value: "9090" }
        - { name: DRAIN_MS, value: {{ mul $values.drain.maxTurnSeconds 1000 | quote }} }
        - { name: MAX_TOKENS, value: {{ int64 $values.limits.maxTokens | quote }} }
        - { name: MAX_ROUNDS, value: {{ int64 $values.limits.maxRounds | quote }} }
        - { name: SESSION_TTL_HOURS, value: {{ int64 $values.limits.sessionTtlHours | quote }} }
        - { name: RATE_LIMIT, value: {{ int64 $values.limits.rateLimit | quote }} }
        - { name: RATE_WINDOW, value: {{ int64 $values.limits.rateWindowSeconds | quote }} }
        # Of shadows too, where it is open by default: a copy of a call is answered as the call is.
        - { name: REST_DOOR, value: {{ $values.restDoor.enabled | quote }} }
        {{- if not $shadow }}
        {{- with $values.model.baseUrl }}
        - { name: OPENAI_BASE_URL, value: {{ . | quote }} }
        {{- end }}
        {{- with $values.model.existingSecret }}
        - name: OPENAI_API_KEY
          valueFrom: { secretKeyRef: { name: {{ . | quote }}, key: {{ $values.model.existingSecretKey | quote }} } }
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- end }}
      ports:
        # One port for gRPC, gRPC-Web, Connect and the console.
        - { name: grpc, containerPort: 8080 }
        - { name: ops, containerPort: 9090 }
      startupProbe:
        httpGet: { path: /livez, port: ops }
        periodSeconds: 1
        failureThreshold: 60
      readinessProbe:
        grpc: { port: 8080 }
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      # Not gRPC health: that says no while Redis is away, and a restart would mend nothing.
      livenessProbe:
        httpGet: { path: /livez, port: ops }
        periodSeconds: 10
        timeoutSeconds: 5
      lifecycle:
        preStop:
          sleep: { seconds: {{ int $values.drain.preStopSeconds }} }
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      {{- include "parley.containerSecurity" . | nindent 6 }}
      {{- include "parley.volumeMounts" . | nindent 6 }}
  volumes:
    # For what a library writes to /tmp all the same; in memory.
    - name: tmp
      emptyDir: { medium: Memory, sizeLimit: 16Mi }
    {{- if and $values.config (not $shadow) }}
    - name: config
      configMap: { name: {{ include "parley.fullname" $root }}-config }
    {{- end }}
    {{- if not $shadow }}
    {{- with include "parley.redisCaVolume" $root }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- end }}
  {{- if $values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "parley.trackLabels" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Environment of service and sidecar. A shadow gets no Redis and nothing of `extraEnv`. */}}
{{- define "parley.sharedEnv" -}}
{{- $values := .root.Values -}}
{{- $shadow := and (eq .track "canary") $values.canary.shadow.safe -}}
- { name: HOST, value: 0.0.0.0 }
- { name: VERSION, value: {{ include "parley.version" . | quote }} }
- { name: TRACK, value: {{ .track }} }
- { name: LOG_LEVEL, value: {{ $values.logLevel }} }
- { name: MODEL, value: {{ $values.model.name | quote }} }
{{- with $values.corsOrigins }}
- { name: CORS_ORIGINS, value: {{ join "," . | quote }} }
{{- end }}
{{- with $values.otlpEndpoint }}
- { name: OTLP_ENDPOINT, value: {{ . | quote }} }
{{- end }}
{{- if $shadow }}
# Keys are in the Redis that a shadow does not have; the mirror is all that reaches it.
- { name: AUTH_MODE, value: none }
- { name: ALLOW_UNAUTHENTICATED, value: "true" }
{{- else }}
- { name: AUTH_MODE, value: {{ $values.auth.mode }} }
{{- if eq $values.auth.mode "none" }}
- { name: ALLOW_UNAUTHENTICATED, value: "true" }
{{- end }}
{{- if eq $values.auth.mode "jwt" }}
- { name: JWT_ISSUER, value: {{ $values.auth.jwt.issuer | quote }} }
- { name: JWT_AUDIENCE, value: {{ $values.auth.jwt.audience | quote }} }
- { name: JWKS_URL, value: {{ $values.auth.jwt.jwksUrl | quote }} }
{{- end }}
{{ include "parley.redisEnv" .root }}
- { name: REDIS_DURABILITY, value: {{ $values.redis.durability }} }
{{- with $values.state.writeSchema }}
- { name: STATE_WRITE_SCHEMA, value: {{ int . | quote }} }
{{- end }}
{{- if $values.config }}
- { name: CONFIG_FILE, value: /etc/parley/parley.yaml }
{{- end }}
{{- end }}
{{- end -}}

{{- define "parley.redisEnv" -}}
{{- if .Values.redis.existingSecret -}}
- name: REDIS_URL
  valueFrom: { secretKeyRef: { name: {{ .Values.redis.existingSecret | quote }}, key: {{ .Values.redis.existingSecretKey | quote }} } }
{{- else -}}
- { name: REDIS_URL, value: {{ .Values.redis.url | quote }} }
{{- end }}
{{- if .Values.redis.caSecret }}
- { name: NODE_EXTRA_CA_CERTS, value: /etc/parley-ca/ca.crt }
{{- end -}}
{{- end -}}

{{/* Where pods that ask Redis have its authorities. */}}
{{- define "parley.redisCaVolume" -}}
{{- with .Values.redis.caSecret -}}
- name: redis-ca
  secret: { secretName: {{ . | quote }}, items: [{ key: ca.crt, path: ca.crt }] }
{{- end -}}
{{- end -}}

{{- define "parley.redisCaMount" -}}
{{- if .Values.redis.caSecret -}}
- { name: redis-ca, mountPath: /etc/parley-ca, readOnly: true }
{{- end -}}
{{- end -}}

{{- define "parley.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "parley.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{- define "parley.volumeMounts" -}}
volumeMounts:
  - { name: tmp, mountPath: /tmp }
  {{- if and .root.Values.config (not (and (eq .track "canary") .root.Values.canary.shadow.safe)) }}
  - { name: config, mountPath: /etc/parley, readOnly: true }
  {{- end }}
  {{- if not (and (eq .track "canary") .root.Values.canary.shadow.safe) }}
  {{- with include "parley.redisCaMount" .root }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end -}}
