import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { CHART } from "../support/helm.ts";
import { example } from "./examples.ts";
import { INVARIANTS } from "./invariants.ts";
import { rendered, violations } from "./rendered.ts";

interface Mutant {
  readonly name: string;
  /** File under templates/. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
  /** Beginning of the invariant that must find it. */
  readonly found: string;
  /** Example that shows it. Default: canary-5. */
  readonly by?: string;
}

/** Ways to break the chart, and who must notice. */
const MUTANTS: readonly Mutant[] = [
  {
    name: "swapped weights",
    file: "virtualservice.yaml",
    from: `"destination" $stable "weight" (sub 100 $weight)) (dict "destination" $toCanary "weight" $weight)`,
    to: `"destination" $stable "weight" $weight) (dict "destination" $toCanary "weight" (sub 100 $weight))`,
    found: "weights are the values'",
  },
  {
    name: "a weight without its other half",
    file: "virtualservice.yaml",
    from: "(sub 100 $weight)",
    to: "100",
    found: "weights are the values'",
  },
  {
    name: "a subset with another label",
    file: "destinationrule.yaml",
    from: "labels: { track: canary }",
    to: "labels: { track: kanary }",
    found: "subsets are the tracks",
  },
  {
    name: "a subset by version",
    file: "destinationrule.yaml",
    from: "labels: { track: stable }",
    to: "labels: { app.kubernetes.io/version: stable }",
    found: "subsets are the tracks",
  },
  {
    name: "a route to no subset",
    file: "virtualservice.yaml",
    from: `"subset" "canary" "port" (dict "number" 8080)`,
    to: `"subset" "kanary" "port" (dict "number" 8080)`,
    found: "every destination",
  },
  {
    name: "a route to a wrong port",
    file: "virtualservice.yaml",
    from: `"subset" "canary" "port" (dict "number" 8080)`,
    to: `"subset" "canary" "port" (dict "number" 8088)`,
    found: "every destination",
  },
  {
    name: "no preview route",
    file: "virtualservice.yaml",
    from: `{{- if include "parley.preview" . }}`,
    to: "{{- if false }}",
    found: "routes are named and in order",
  },
  {
    name: "a misspelt preview header",
    file: "virtualservice.yaml",
    from: "headers: { {{ $canary.preview.header }}:",
    to: "headers: { x-parley-trak:",
    found: "the preview route",
  },
  {
    name: "a preview that goes to stable",
    file: "virtualservice.yaml",
    from: "- destination: {{ toJson $toCanary }}",
    to: "- destination: {{ toJson $stable }}",
    found: "the preview route",
  },
  {
    name: "usage sent to the service's port",
    file: "virtualservice.yaml",
    from: `(dict "number" 8081)`,
    to: `(dict "number" 8080)`,
    found: "usage goes to the sidecar",
  },
  {
    name: "Istio's two retries on turns",
    file: "virtualservice.yaml",
    from: "        {{- toYaml $split | nindent 8 }}\n      retries: {{ toJson $noRetries }}\n    {{- end }}\n{{- end }}",
    to: "        {{- toYaml $split | nindent 8 }}\n    {{- end }}\n{{- end }}",
    found: "nothing that starts a turn is sent again",
  },
  {
    name: "turns among the reads",
    file: "virtualservice.yaml",
    from: "ChatService/(GetTurn|ResumeTurn)",
    to: "ChatService/(Chat|GetTurn|ResumeTurn)",
    found: "nothing that starts a turn is sent again",
  },
  {
    name: "a timeout on turns",
    file: "virtualservice.yaml",
    from: "    - name: turns\n      route:",
    to: "    - name: turns\n      timeout: 15s\n      route:",
    found: "no route has a timeout",
  },
  {
    name: "affinity to the other track",
    file: "virtualservice.yaml",
    from: `(ternary $toCanary $stable (eq $track "canary"))`,
    to: `(ternary $stable $toCanary (eq $track "canary"))`,
    found: "a session goes back",
  },
  {
    name: "affinity below the weights",
    file: "virtualservice.yaml",
    from: "    - name: affinity-{{ $track }}",
    to: "    - name: turns-{{ $track }}",
    found: "routes are named and in order",
  },
  {
    name: "no mirror",
    file: "virtualservice.yaml",
    from: "      mirrors:\n        - destination: {{ toJson $toCanary }}\n          percentage: { value: {{ int $canary.mirror.percent }} }\n",
    to: "",
    found: "copies go to shadows",
    by: "mirror",
  },
  {
    name: "an unmarked mirror",
    file: "virtualservice.yaml",
    from: `      headers: { request: { set: { x-parley-mirrored: "true" } } }\n`,
    to: "",
    found: "copies go to shadows",
    by: "mirror",
  },
  {
    name: "shadows on the real Redis",
    file: "_pod.tpl",
    from: `{{- $shadow := and (eq .track "canary") $values.canary.shadow.safe -}}\n- { name: HOST`,
    to: "{{- $shadow := false -}}\n- { name: HOST",
    found: "shadows have no Redis",
    by: "mirror",
  },
  {
    name: "shadows that run the service",
    file: "_pod.tpl",
    from: "args: [standalone/main.ts]",
    to: "args: [src/main.ts]",
    found: "shadows have no Redis",
    by: "mirror",
  },
  {
    name: "no outlier detection",
    file: "destinationrule.yaml",
    from: "{{- if $traffic.outlierDetection.enabled }}",
    to: "{{- if false }}",
    found: "outlier detection",
  },
  {
    name: "five errors in a row eject",
    file: "destinationrule.yaml",
    from: "consecutive5xxErrors: {{ int $traffic.outlierDetection.consecutive5xxErrors }}",
    to: "consecutive5xxErrors: 5",
    found: "outlier detection",
  },
  {
    name: "a selector with the version",
    file: "deployment-stable.yaml",
    from: `{{- include "parley.trackLabels" $scope | nindent 6 }}`,
    to: `{{- include "parley.trackLabels" $scope | nindent 6 }}\n      app.kubernetes.io/version: {{ include "parley.version" $scope | quote }}`,
    found: "selectors hold instance and track",
  },
  {
    name: "a selector without the track",
    file: "_names.tpl",
    from: "track: {{ .track }}\n{{- end -}}",
    to: "{{- end -}}",
    found: "selectors hold instance and track",
  },
  {
    name: "canary pods labelled as stable",
    file: "deployment-canary.yaml",
    from: `"track" "canary"`,
    to: `"track" "stable"`,
    found: "selectors hold instance and track",
  },
  {
    name: "a Service over one track",
    file: "service.yaml",
    from: `{{- include "parley.anyPodLabels" . | nindent 4 }}\n  ports:`,
    to: `{{- include "parley.trackLabels" (dict "root" . "track" "stable") | nindent 4 }}\n  ports:`,
    found: "selectors hold instance and track",
  },
  {
    name: "a Service that knows not Flagger's pods",
    file: "service.yaml",
    from: `{{- include "parley.anyPodLabels" . | nindent 4 }}\n  ports:`,
    to: `{{- include "parley.instanceLabels" . | nindent 4 }}\n  ports:`,
    found: "selectors hold instance and track",
    by: "flagger",
  },
  {
    name: "an unnamed protocol",
    file: "service.yaml",
    from: "name: grpc, appProtocol: grpc",
    to: "name: grpc, appProtocol: tcp",
    found: "the Service's ports",
  },
  {
    name: "a wrong target port",
    file: "service.yaml",
    from: "targetPort: usage",
    to: "targetPort: usage-ops",
    found: "the Service's ports",
  },
  {
    name: "a sidecar that is an init container",
    file: "_pod.tpl",
    from: "      restartPolicy: Always\n",
    to: "",
    found: "the sidecar starts before",
  },
  {
    name: "no preStop",
    file: "_pod.tpl",
    from: "          sleep: { seconds: {{ int $values.drain.preStopSeconds }} }",
    to: "          sleep: { seconds: 0 }",
    found: "a pod may take as long",
  },
  {
    name: "Kubernetes' grace period of 30 s",
    file: "_pod.tpl",
    from: '{{ $values.drain.terminationGracePeriodSeconds | default (include "parley.neededGraceSeconds" $root) | int }}',
    to: "30",
    found: "a pod may take as long",
  },
  {
    name: "a grace period that forgets the sidecar",
    file: "_names.tpl",
    from: "(ternary $drain.sidecarFlushSeconds 0 .Values.sidecar.enabled)",
    to: "0",
    found: "a pod may take as long",
  },
  {
    name: "a drain in seconds where milliseconds are read",
    file: "_pod.tpl",
    from: "mul $values.drain.maxTurnSeconds 1000",
    to: "int64 $values.drain.maxTurnSeconds",
    found: "a pod may take as long",
  },
  {
    name: "liveness by health",
    file: "_pod.tpl",
    from: "      livenessProbe:\n        httpGet: { path: /livez, port: ops }",
    to: "      livenessProbe:\n        grpc: { port: 8080 }",
    found: "readiness is gRPC health",
  },
  {
    name: "a root file system that can be written",
    file: "_pod.tpl",
    from: "readOnlyRootFilesystem: true",
    to: "readOnlyRootFilesystem: false",
    found: "containers are not root",
  },
  {
    name: "root",
    file: "_pod.tpl",
    from: "  runAsUser: 65532",
    to: "  runAsUser: 0",
    found: "containers are not root",
  },
  {
    name: "capabilities",
    file: "_pod.tpl",
    from: "  capabilities: { drop: [ALL] }\n",
    to: "",
    found: "containers are not root",
  },
  {
    name: "a key in plain",
    file: "_pod.tpl",
    from: "          valueFrom: { secretKeyRef: { name: {{ . | quote }}, key: {{ $values.model.existingSecretKey | quote }} } }",
    to: "          value: {{ . }}",
    found: "secrets come by reference",
    by: "production",
  },
  {
    name: "keys for the sidecar",
    file: "_pod.tpl",
    from: "{{- with $values.sidecar.extraEnv }}",
    to: "{{- with $values.extraEnv }}",
    found: "the sidecar is given no key",
    by: "production",
  },
  {
    name: "replicas beside an autoscaler",
    file: "deployment-stable.yaml",
    from: "{{- if not .Values.autoscaling.enabled }}",
    to: "{{- if true }}",
    found: "replicas are rendered only",
  },
  {
    name: "an autoscaler for the canary",
    file: "_names.tpl",
    from: `name: {{ include "parley.fullname" . }}-stable\n{{- end -}}`,
    to: `name: {{ include "parley.fullname" . }}-canary\n{{- end -}}`,
    found: "replicas are rendered only",
  },
  {
    name: "the pod's CPU instead of the container's",
    file: "hpa.yaml",
    from: "container: parley",
    to: "container: sidecar",
    found: "the CPU that scales",
  },
  {
    name: "routes that fight Flagger",
    file: "_names.tpl",
    from: `{{- if and .Values.istio.enabled (or (not .Values.canary.enabled) (eq .Values.canary.owner "helm")) -}}`,
    to: "{{- if .Values.istio.enabled -}}",
    found: "weights and canary pods",
    by: "flagger",
  },
  {
    name: "one budget for both tracks",
    file: "pdb.yaml",
    from: `{{- $tracks = append $tracks "canary" }}`,
    to: "",
    found: "each track has a budget",
  },
  {
    name: "a closed scrape port",
    file: "networkpolicy.yaml",
    from: "        - { protocol: TCP, port: 9090 }\n",
    to: "",
    found: "the NetworkPolicy",
  },
  {
    name: "the metadata service within reach",
    file: "networkpolicy.yaml",
    from: "{{ with $policy.egressExcept }}, except: {{ toJson . }}{{ end }}",
    to: "",
    found: "the NetworkPolicy",
  },
  {
    name: "a track of one's own for metrics",
    file: "_pod.tpl",
    from: "- { name: TRACK, value: {{ .track }} }",
    to: "- { name: TRACK, value: stable }",
    found: "a pod says the version and track",
  },
  {
    name: "a test pod behind the Service",
    file: "tests/turn.yaml",
    from: "app.kubernetes.io/name: parley-test",
    to: "app.kubernetes.io/name: parley",
    found: "the pods of helm test and of hooks are none",
  },
  {
    name: "a check of the image that runs already",
    file: "upgrade-check.yaml",
    from: "{{- $scopes = append $scopes $canary }}",
    to: "",
    found: "an upgrade asks each image",
  },
  {
    name: "a check after the upgrade",
    file: "upgrade-check.yaml",
    from: "helm.sh/hook: pre-upgrade,pre-rollback",
    to: "helm.sh/hook: post-upgrade",
    found: "an upgrade asks each image",
  },
  {
    name: "a test of stable alone",
    file: "tests/turn.yaml",
    from: `{{- $tracks = append $tracks "canary" }}`,
    to: "",
    found: "helm test runs a turn",
  },
  {
    name: "a gate with factors of its own",
    file: "gate.yaml",
    from: "{{ $analysis.costPerTurnFactor }}",
    to: "10",
    found: "the gate's conditions",
  },
  {
    name: "a canary without the budget of memory",
    file: "_pod.tpl",
    from: "        {{- toYaml $values.resources | nindent 8 }}",
    to: `        {{- if eq .track "stable" }}{{ toYaml $values.resources | nindent 8 }}{{ else }} {}{{ end }}`,
    found: "both tracks are the same pod",
  },
];

test.each(MUTANTS)("$name is found", async ({ file, from, to, found, by = "canary-5" }) => {
  const chart = await mkdtemp(join(tmpdir(), "parley-chart-"));
  onTestFinished(() => rm(chart, { recursive: true, force: true }));
  await cp(CHART, chart, { recursive: true });
  const path = join(chart, "templates", file);
  const text = await readFile(path, "utf8");
  expect(text).toContain(from);
  await writeFile(
    path,
    text.replace(from, () => to),
  );
  const problems = violations(await rendered({ chart, files: [example(by)] }));
  expect(problems.filter((problem) => problem.startsWith(found))).not.toEqual([]);
});

test("every invariant has a mutant that it finds", () => {
  const unproven = INVARIANTS.filter(({ name }) => !MUTANTS.some(({ found }) => name.startsWith(found)));
  expect(unproven.map(({ name }) => name)).toEqual([]);
});
