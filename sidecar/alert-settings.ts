import * as z from "zod";
import { ConfigError, type Environment, givenOf, oneOf, urlOf } from "../src/platform/environment.ts";

/** What the alert rules are told from outside: targets, floors and ceilings. */
export interface AlertSettings {
  /** Share of the service's RPCs that must not fail by its own fault, over 30 days; of 1. */
  readonly requestSuccess: number;
  /** Share of turns that must not end in ERROR; turns that somebody ended count on no side. */
  readonly turnSuccess: number;
  /** Share of RPCs other than turns that must end within `requestLatencySeconds`. */
  readonly requestLatency: number;
  /** A bucket of `parley_request_duration_seconds`: between buckets a histogram knows nothing. */
  readonly requestLatencySeconds: number;
  /** Share of turns whose first text must come within `firstTokenSeconds`. */
  readonly firstToken: number;
  /** A bucket of `parley_time_to_first_token_seconds`. */
  readonly firstTokenSeconds: number;
  /** A burn rate is believed from this many events in its long window on: one failure of three is no page. */
  readonly minEvents: number;
  /** A tenant's tokens per minute below which no growth is an anomaly. */
  readonly tokensPerMinuteFloor: number;
  /** A tenant's tokens per minute that are an anomaly whatever its history: a new tenant has none. */
  readonly tokensPerMinuteCeiling: number;
  /** The same of money, in US dollars per hour. */
  readonly usdPerHourFloor: number;
  readonly usdPerHourCeiling: number;
  /** Age of the oldest ledger row that is not applied. */
  readonly ledgerLagSeconds: number;
  /** Share by which rollups or counters may differ from the ledger, of 1. */
  readonly costDrift: number;
  /** The label `namespace` that Prometheus puts on what it scrapes here; empty: none. Alerts that the sidecar posts have it too. */
  readonly namespace: string;
  /** What the runbooks' names are appended to. */
  readonly runbookUrl: string;
}

/**
 * Burn rates page at 14.4 times the budget: with a target of 93 percent that would be more than every request, and the page
 * could never come.
 */
const LOWEST_TARGET_PERCENT = 94;

/** Bounds of `parley_request_duration_seconds` in `src/metrics.ts` that make sense here; a test compares them. */
export const REQUEST_LATENCY_BUCKETS = ["0.05", "0.1", "0.25", "0.5", "1", "2.5", "5"] as const;

/** Bounds of `parley_time_to_first_token_seconds`; a test compares them. */
export const FIRST_TOKEN_BUCKETS = ["0.1", "0.2", "0.3", "0.5", "0.75", "1", "1.5", "2", "3", "5", "10", "30"] as const;

/** Name, meaning and default of each variable; docs/config.md is tested against it. */
export const alertVariables = {
  SLO_REQUEST_SUCCESS_PERCENT: {
    default: "99.9",
    meaning: "RPCs that must not fail by the service's own fault, in percent of 30 days",
  },
  SLO_TURN_SUCCESS_PERCENT: { default: "99", meaning: "turns that must not end in ERROR, in percent" },
  SLO_REQUEST_LATENCY_PERCENT: {
    default: "99",
    meaning: "RPCs other than turns that must end within SLO_REQUEST_LATENCY_SECONDS, in percent",
  },
  SLO_REQUEST_LATENCY_SECONDS: {
    default: "0.5",
    meaning: `the time of that target: one of ${REQUEST_LATENCY_BUCKETS.join(", ")}`,
  },
  SLO_FIRST_TOKEN_PERCENT: {
    default: "95",
    meaning: "turns whose first text must come within SLO_FIRST_TOKEN_SECONDS, in percent",
  },
  SLO_FIRST_TOKEN_SECONDS: {
    default: "5",
    meaning: `the time of that target: one of ${FIRST_TOKEN_BUCKETS.join(", ")}`,
  },
  ALERT_MIN_EVENTS: { default: "50", meaning: "RPCs or turns in a window below which a target is not judged" },
  ALERT_TOKENS_PER_MINUTE_FLOOR: {
    default: "20000",
    meaning: "a tenant's tokens per minute below which growth is no anomaly",
  },
  ALERT_TOKENS_PER_MINUTE_CEILING: {
    default: "2000000",
    meaning: "a tenant's tokens per minute that are an anomaly whatever its history",
  },
  ALERT_USD_PER_HOUR_FLOOR: { default: "5", meaning: "a tenant's dollars per hour below which growth is no anomaly" },
  ALERT_USD_PER_HOUR_CEILING: {
    default: "500",
    meaning: "a tenant's dollars per hour that are an anomaly whatever its history",
  },
  ALERT_LEDGER_LAG_SECONDS: { default: "300", meaning: "age of the oldest ledger row that no sidecar has applied" },
  ALERT_COST_DRIFT_PERCENT: {
    default: "2",
    meaning: "difference between the ledger and what is derived from it, in percent",
  },
  ALERT_NAMESPACE: {
    default: "",
    meaning:
      "the label namespace that Prometheus puts on this installation's metrics; anomalies that the sidecar posts have it too",
  },
  ALERT_RUNBOOK_URL: {
    default: "",
    meaning: "URL of the folder of the runbooks, without a slash at its end; not set: their path in the repository",
  },
} as const satisfies Record<string, { default: string; meaning: string }>;

/** Their rules. */
export const alertEnvironment = {
  SLO_REQUEST_SUCCESS_PERCENT: target("SLO_REQUEST_SUCCESS_PERCENT"),
  SLO_TURN_SUCCESS_PERCENT: target("SLO_TURN_SUCCESS_PERCENT"),
  SLO_REQUEST_LATENCY_PERCENT: target("SLO_REQUEST_LATENCY_PERCENT"),
  SLO_REQUEST_LATENCY_SECONDS: oneOf(alertVariables.SLO_REQUEST_LATENCY_SECONDS.default, REQUEST_LATENCY_BUCKETS),
  SLO_FIRST_TOKEN_PERCENT: target("SLO_FIRST_TOKEN_PERCENT"),
  SLO_FIRST_TOKEN_SECONDS: oneOf(alertVariables.SLO_FIRST_TOKEN_SECONDS.default, FIRST_TOKEN_BUCKETS),
  ALERT_MIN_EVENTS: number("ALERT_MIN_EVENTS", { least: 1, most: 1_000_000 }),
  ALERT_TOKENS_PER_MINUTE_FLOOR: number("ALERT_TOKENS_PER_MINUTE_FLOOR", { least: 0, most: 1e12 }),
  ALERT_TOKENS_PER_MINUTE_CEILING: number("ALERT_TOKENS_PER_MINUTE_CEILING", { least: 1, most: 1e12 }),
  ALERT_USD_PER_HOUR_FLOOR: number("ALERT_USD_PER_HOUR_FLOOR", { least: 0, most: 1e9 }),
  ALERT_USD_PER_HOUR_CEILING: number("ALERT_USD_PER_HOUR_CEILING", { least: 0.01, most: 1e9 }),
  ALERT_LEDGER_LAG_SECONDS: number("ALERT_LEDGER_LAG_SECONDS", { least: 1, most: 86_400 }),
  ALERT_COST_DRIFT_PERCENT: number("ALERT_COST_DRIFT_PERCENT", { least: 0.1, most: 50 }),
  ALERT_NAMESPACE: z
    .string()
    .default(alertVariables.ALERT_NAMESPACE.default)
    .refine((text) => text.length <= 253, { message: "must be at most 253 characters" }),
  ALERT_RUNBOOK_URL: urlOf(/^https?:$/, "an http:// or https:// URL")
    .transform((url) => url.replace(/\/+$/, ""))
    .optional(),
} as const;

const alertSchema = z.object(alertEnvironment);

/** What they say, once they have no problem. */
export function readAlerts(values: z.output<typeof alertSchema>): AlertSettings {
  return Object.freeze({
    requestSuccess: values.SLO_REQUEST_SUCCESS_PERCENT / 100,
    turnSuccess: values.SLO_TURN_SUCCESS_PERCENT / 100,
    requestLatency: values.SLO_REQUEST_LATENCY_PERCENT / 100,
    requestLatencySeconds: Number(values.SLO_REQUEST_LATENCY_SECONDS),
    firstToken: values.SLO_FIRST_TOKEN_PERCENT / 100,
    firstTokenSeconds: Number(values.SLO_FIRST_TOKEN_SECONDS),
    minEvents: values.ALERT_MIN_EVENTS,
    tokensPerMinuteFloor: values.ALERT_TOKENS_PER_MINUTE_FLOOR,
    tokensPerMinuteCeiling: values.ALERT_TOKENS_PER_MINUTE_CEILING,
    usdPerHourFloor: values.ALERT_USD_PER_HOUR_FLOOR,
    usdPerHourCeiling: values.ALERT_USD_PER_HOUR_CEILING,
    ledgerLagSeconds: values.ALERT_LEDGER_LAG_SECONDS,
    costDrift: values.ALERT_COST_DRIFT_PERCENT / 100,
    namespace: values.ALERT_NAMESPACE,
    runbookUrl: values.ALERT_RUNBOOK_URL ?? "docs/runbooks",
  });
}

/** Reads them of an environment, for a process whose other variables are another's to read. Reports every problem at once, as one ConfigError. */
export function loadAlertSettings(env: Environment): AlertSettings {
  const parsed = alertSchema.safeParse(givenOf(env));
  if (parsed.success) return readAlerts(parsed.data);
  throw new ConfigError(parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`));
}

function target(name: keyof typeof alertVariables) {
  return number(name, { least: LOWEST_TARGET_PERCENT, most: 99.999 });
}

function number(name: keyof typeof alertVariables, { least, most }: { least: number; most: number }) {
  return z
    .string()
    .default(alertVariables[name].default)
    .refine((text) => /^\d{1,13}(\.\d{1,6})?$/.test(text) && Number(text) >= least && Number(text) <= most, {
      message: `must be a number from ${least} to ${most}`,
    })
    .transform(Number);
}
