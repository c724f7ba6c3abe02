import { stringify } from "yaml";
import { type AlertRule, renderRules } from "../sidecar/alert-rules.ts";
import type { GateFile } from "./conditions.ts";
import { type ConditionExpressions, type GateExpressions, gateExpressions } from "./expressions.ts";

/** The alerts of a file of conditions: one row for each, told apart by `condition`, silent below the minimum of turns. */
export function gateAlerts(file: GateFile): readonly AlertRule[] {
  const { turns, conditions } = gateExpressions(file);
  return conditions.map((condition) => ({
    alert: "ParleyCanaryWorse",
    severity: "critical",
    for: "1m",
    labels: { kind: "canary", condition: condition.name },
    expr: onlyWithTurns(`(${condition.canary}) > (${condition.limit})`, condition, turns, file.minTurns),
    summary: `The canary is worse than stable: ${condition.title}`,
    description: `${condition.title} is {{ $value | humanize }} ${condition.unit} on the canary, above the gate's limit.`,
  }));
}

/** The conditions as Prometheus alert rules. */
export function renderGateRules(file: GateFile, runbookUrl = "docs/runbooks"): string {
  return renderRules({ alerts: gateAlerts(file), recordings: [], runbookUrl, group: "parley-canary" });
}

/** The conditions as a Flagger MetricTemplate each: 0 passes, 1 fails, no value halts. */
export function renderFlagger(file: GateFile): string {
  // Flagger's canary is the Deployment that it watches; what serves is a copy, with `-primary` behind the name.
  const pods = "[0-9a-zA-Z]+-[0-9a-zA-Z]+";
  const { turns, conditions } = gateExpressions({
    ...file,
    selector: 'namespace="{{ namespace }}"',
    tracks: { canary: `pod=~"{{ target }}-${pods}"`, stable: `pod=~"{{ target }}-primary-${pods}"` },
  });
  const documents = conditions.map((condition) => ({
    apiVersion: "flagger.app/v1beta1",
    kind: "MetricTemplate",
    metadata: { name: kebab(`parley-${condition.name}`) },
    spec: {
      provider: { type: "prometheus", address: "http://prometheus.monitoring:9090" },
      query: onlyWithTurns(worse(condition), condition, turns, file.minTurns),
    },
  }));
  return documents.map((document) => withHead("flagger", document)).join("---\n");
}

/** The conditions as one Argo Rollouts AnalysisTemplate: no value is inconclusive, which pauses the rollout. */
export function renderArgo(file: GateFile): string {
  const { turns, conditions } = gateExpressions({
    ...file,
    selector: 'namespace="{{args.namespace}}"',
    // Argo's canary becomes stable without a restart: only its version tells it apart.
    tracks: { canary: 'version="{{args.canary-version}}"', stable: 'version="{{args.stable-version}}"' },
  });
  return withHead("argo", {
    apiVersion: "argoproj.io/v1alpha1",
    kind: "AnalysisTemplate",
    metadata: { name: "parley-gate" },
    spec: {
      args: [{ name: "namespace" }, { name: "canary-version" }, { name: "stable-version" }],
      metrics: conditions.map((condition) => ({
        name: kebab(condition.name),
        interval: "1m",
        count: 3,
        failureLimit: 0,
        inconclusiveLimit: 2,
        successCondition: "len(result) > 0 && result[0] == 0",
        failureCondition: "len(result) > 0 && result[0] == 1",
        provider: {
          prometheus: {
            address: "http://prometheus.monitoring:9090",
            query: onlyWithTurns(worse(condition), condition, turns, file.minTurns),
          },
        },
      })),
    },
  });
}

/**
 * 1 where the canary is above the limit, 0 where it is not, and nothing where either is no number: `NaN > bool 1` would be 0,
 * which passes.
 */
function worse({ canary, limit }: ConditionExpressions): string {
  return `clamp_min(sgn((${canary}) - (${limit})), 0) >= 0`;
}

function onlyWithTurns(
  expression: string,
  { needsTurns }: ConditionExpressions,
  turns: GateExpressions["turns"],
  minTurns: number,
): string {
  if (!needsTurns) return expression;
  // Rounded as the command rounds: increase() extrapolates.
  return `(${expression}) and (round(${turns.canary}) >= ${minTurns}) and (round(${turns.stable}) >= ${minTurns})`;
}

function withHead(form: "flagger" | "argo", document: unknown): string {
  return `# Written by \`parley gate ${form}\` from a file of conditions.\n${stringify(document, { lineWidth: 0 })}`;
}

function kebab(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
