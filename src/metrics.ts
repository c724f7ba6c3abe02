import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { ChatService } from "../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../gen/parley/chat/v1/session_service_pb.js";
import { FinishReason } from "../gen/parley/chat/v1/turn_pb.js";
import type { FailureReason } from "./failure.ts";

/** One metric. Every one has the default labels `version` and `track` as well. */
interface MetricRow {
  readonly name: `parley_${string}`;
  readonly type: "counter" | "gauge" | "histogram";
  readonly unit: string;
  readonly labels: readonly string[];
  readonly help: string;
}

/** All metrics of the service; `docs/metrics.md` says the same, and a test compares the two. */
export const METRICS = {
  requests: {
    name: "parley_requests_total",
    type: "counter",
    unit: "RPCs",
    labels: ["rpc", "code"],
    help: "RPCs that have ended, by method and status code",
  },
  requestDuration: {
    name: "parley_request_duration_seconds",
    type: "histogram",
    unit: "seconds",
    labels: ["rpc"],
    help: "Time from an RPC's arrival to its end, of streams to their last event",
  },
  tokens: {
    name: "parley_tokens_total",
    type: "counter",
    unit: "tokens",
    labels: ["model", "type"],
    help: "Tokens of model calls, by the model that answered; type is prompt or completion",
  },
  activeSessions: {
    name: "parley_active_sessions",
    type: "gauge",
    unit: "sessions",
    labels: [],
    help: "Sessions alive in the store, over all replicas: take the maximum, not the sum; absent until the store has answered",
  },
  agentErrors: {
    name: "parley_agent_errors_total",
    type: "counter",
    unit: "turns",
    labels: ["error_type"],
    help: "Turns that failed, by the reason in the error table",
  },
  turns: {
    name: "parley_turns_total",
    type: "counter",
    unit: "turns",
    labels: ["finish_reason"],
    help: "Turns that have ended, by finish reason",
  },
  turnsTakenOver: {
    name: "parley_turns_taken_over_total",
    type: "counter",
    unit: "turns",
    labels: [],
    help: "Turns whose owner was lost and that this process went on with",
  },
  turnsInFlight: {
    name: "parley_turns_in_flight",
    type: "gauge",
    unit: "turns",
    labels: [],
    help: "Turns that this process works on",
  },
  turnsQueued: {
    name: "parley_turns_queued",
    type: "gauge",
    unit: "turns",
    labels: [],
    help: "Turns that wait in this process for their session",
  },
  timeToFirstToken: {
    name: "parley_time_to_first_token_seconds",
    type: "histogram",
    unit: "seconds",
    labels: [],
    help: "Time from an RPC's arrival to its turn's first text, of turns that did not wait for their session",
  },
  modelCallDuration: {
    name: "parley_model_call_duration_seconds",
    type: "histogram",
    unit: "seconds",
    labels: ["model"],
    help: "Time from a model call's start to its end, failed calls included",
  },
  callsOverHold: {
    name: "parley_calls_over_hold_total",
    type: "counter",
    unit: "model calls",
    labels: ["model"],
    help: "Model calls of which the provider counted more than was held for them: each may have crossed a cap by the difference",
  },
  breakerState: {
    name: "parley_breaker_state",
    type: "gauge",
    unit: "state",
    labels: ["endpoint", "model"],
    help: "Circuit breaker of a model endpoint: 0 closed, 1 half-open, 2 open",
  },
  unreadableSessions: {
    name: "parley_unreadable_sessions_total",
    type: "counter",
    unit: "RPCs",
    labels: [],
    help: "RPCs refused because what is stored of a session or an account is of a format that this release does not read",
  },
  storeUp: {
    name: "parley_store_up",
    type: "gauge",
    unit: "state",
    labels: [],
    help: "1 while the session store answers this process, else 0",
  },
} as const satisfies Record<string, MetricRow>;

/** Where the process counts what it does. Every method is cheap enough for a hot path and never throws. */
export interface Metrics {
  requestEnded(request: { readonly rpc: string; readonly code: string; readonly seconds: number }): void;
  tokensUsed(usage: { readonly model: string; readonly promptTokens: number; readonly completionTokens: number }): void;
  agentFailed(errorType: FailureReason): void;
  turnStarted(): void;
  /** A turn has ended; without a finish reason, this process has lost it. */
  turnEnded(finishReason?: FinishReason): void;
  /** A turn of a lost owner goes on here. */
  turnTakenOver(): void;
  turnsQueued(by: 1 | -1): void;
  firstToken(seconds: number): void;
  /** A provider counted more of a call than was held for it. */
  callOverHold(model: string): void;
  modelCallEnded(call: { readonly model: string; readonly seconds: number }): void;
  breakerChanged(breaker: { readonly endpoint: string; readonly model: string; readonly state: BreakerState }): void;
  /** What is stored could not be read: another release wrote it. */
  unreadable(): void;
  /** The session store was asked whether it answers. */
  storeChecked(isUp: boolean): void;
  /** Counts the active sessions with `count` at each scrape from now on. */
  collectActiveSessions(count: () => Promise<number>): void;
  /** All metrics in Prometheus' text format. */
  render(): Promise<string>;
  readonly contentType: string;
}

/** States of a circuit breaker. */
export type BreakerState = keyof typeof BREAKER_STATE_VALUES;

/** As Prometheus sees them; the worse the higher, so that a maximum over replicas tells the worst. */
const BREAKER_STATE_VALUES = { closed: 0, half_open: 1, open: 2 } as const;

/** An RPC may end at once or with the last event of a turn of many model calls of 120 s each. */
const REQUEST_BUCKETS_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Models answer in tenths of a second to some seconds; a double on loopback in milliseconds. */
const FIRST_TOKEN_BUCKETS_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 120];

/** A model call is given up after 120 s. */
const MODEL_CALL_BUCKETS_SECONDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 90, 120];

/** What fails turns without a defect of anyone's code; other reasons appear when they first happen. */
const EXPECTED_ERRORS: readonly FailureReason[] = [
  "MODEL_UNAVAILABLE",
  "MODEL_RATE_LIMITED",
  "MODEL_REFUSED",
  "STORE_UNAVAILABLE",
  "INTERNAL",
];

/**
 * The service's metrics. Label sets that are known are there from the start at 0, so that a rate over the first event is
 * not lost.
 *
 * @param models Models that the configuration names.
 * @param sessionsTimeoutMs The store has this long to count the active sessions; then the last count stands. Default 1,000.
 * @param processMetrics Whether Node's and the process' own metrics are collected too. Default true.
 */
export function createMetrics({
  version,
  track,
  registry = new Registry(),
  models = [],
  sessionsTimeoutMs = 1_000,
  processMetrics = true,
}: {
  readonly version: string;
  readonly track: string;
  readonly registry?: Registry;
  readonly models?: readonly string[];
  readonly sessionsTimeoutMs?: number;
  readonly processMetrics?: boolean;
}): Metrics {
  registry.setDefaultLabels({ version, track });
  if (processMetrics) collectDefaultMetrics({ register: registry });

  const counter = <Row extends MetricRow>(row: Row) => new Counter(asConfiguration(row, registry));
  const gauge = <Row extends MetricRow>(row: Row) => new Gauge(asConfiguration(row, registry));
  const histogram = <Row extends MetricRow>(row: Row, buckets: number[]) =>
    new Histogram({ ...asConfiguration(row, registry), buckets });

  const requests = counter(METRICS.requests);
  const requestDuration = histogram(METRICS.requestDuration, REQUEST_BUCKETS_SECONDS);
  const tokens = counter(METRICS.tokens);
  const agentErrors = counter(METRICS.agentErrors);
  const turns = counter(METRICS.turns);
  const turnsTakenOver = counter(METRICS.turnsTakenOver);
  const turnsInFlight = gauge(METRICS.turnsInFlight);
  const turnsQueued = gauge(METRICS.turnsQueued);
  const timeToFirstToken = histogram(METRICS.timeToFirstToken, FIRST_TOKEN_BUCKETS_SECONDS);
  const modelCallDuration = histogram(METRICS.modelCallDuration, MODEL_CALL_BUCKETS_SECONDS);
  const callsOverHold = counter(METRICS.callsOverHold);
  const breakerState = gauge(METRICS.breakerState);
  const unreadableSessions = counter(METRICS.unreadableSessions);
  const storeUp = gauge(METRICS.storeUp);

  const requestsOf = memoized((rpc: string) => memoized((code: string) => requests.labels(rpc, code)));
  const requestDurationOf = memoized((rpc: string) => requestDuration.labels(rpc));
  const tokensOf = memoized((model: string) => ({
    prompt: tokens.labels(model, "prompt"),
    completion: tokens.labels(model, "completion"),
  }));
  const modelCallDurationOf = memoized((model: string) => modelCallDuration.labels(model));
  const turnsOf = memoized((finishReason: FinishReason) => turns.labels(FinishReason[finishReason] ?? "UNSPECIFIED"));

  for (const rpc of [ChatService, SessionService].flatMap((service) => service.methods.map((method) => method.name))) {
    requestsOf(rpc)("ok").inc(0);
    requestDuration.zero({ rpc });
  }
  for (const model of models) {
    tokensOf(model).prompt.inc(0);
    tokensOf(model).completion.inc(0);
    modelCallDuration.zero({ model });
    callsOverHold.labels(model).inc(0);
  }
  for (const finishReason of FINISH_REASONS) turnsOf(finishReason).inc(0);
  for (const errorType of EXPECTED_ERRORS) agentErrors.labels(errorType).inc(0);

  return {
    requestEnded({ rpc, code, seconds }) {
      requestsOf(rpc)(code).inc();
      requestDurationOf(rpc).observe(seconds);
    },
    tokensUsed({ model, promptTokens, completionTokens }) {
      tokensOf(model).prompt.inc(promptTokens);
      tokensOf(model).completion.inc(completionTokens);
    },
    agentFailed: (errorType) => agentErrors.labels(errorType).inc(),
    turnStarted: () => turnsInFlight.inc(),
    turnEnded(finishReason) {
      turnsInFlight.dec();
      if (finishReason !== undefined) turnsOf(finishReason).inc();
    },
    turnTakenOver: () => turnsTakenOver.inc(),
    turnsQueued: (by) => turnsQueued.inc(by),
    firstToken: (seconds) => timeToFirstToken.observe(seconds),
    callOverHold: (model) => callsOverHold.labels(model).inc(),
    modelCallEnded: ({ model, seconds }) => modelCallDurationOf(model).observe(seconds),
    breakerChanged: ({ endpoint, model, state }) =>
      breakerState.labels(endpoint, model).set(BREAKER_STATE_VALUES[state]),
    unreadable: () => unreadableSessions.inc(),
    storeChecked: (isUp) => storeUp.set(isUp ? 1 : 0),
    collectActiveSessions(count) {
      registry.removeSingleMetric(METRICS.activeSessions.name);
      registerActiveSessions({ count, registry, timeoutMs: sessionsTimeoutMs });
    },
    render: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

/** Finish reasons that a turn can end with. */
const FINISH_REASONS = Object.values(FinishReason).filter(
  (value): value is FinishReason => typeof value === "number" && value !== FinishReason.UNSPECIFIED,
);

function asConfiguration<Row extends MetricRow>({ name, help, labels }: Row, registry: Registry) {
  return { name, help, labelNames: [...labels] as Row["labels"][number][], registers: [registry] };
}

/** The gauge asks the store at each scrape. While the store does not answer, the last count stands. */
function registerActiveSessions({
  count,
  registry,
  timeoutMs,
}: {
  count: () => Promise<number>;
  registry: Registry;
  timeoutMs: number;
}): void {
  // One question at a time: scrapes must not pile up on a store that hangs.
  let asking: Promise<void> | undefined;
  const gauge = new Gauge({
    ...asConfiguration(METRICS.activeSessions, registry),
    async collect() {
      asking ??= count()
        .then((sessions) => this.set(sessions))
        .catch(() => {})
        .finally(() => {
          asking = undefined;
        });
      const late = Promise.withResolvers<void>();
      const timer = setTimeout(late.resolve, timeoutMs);
      await Promise.race([asking, late.promise]);
      clearTimeout(timer);
    },
  });
  // Absent, not 0, until the store has answered.
  gauge.remove();
}

/** A label child is looked up by its label once: prom-client hashes label sets anew each time. */
function memoized<Key, Value>(make: (key: Key) => Value): (key: Key) => Value {
  const made = new Map<Key, Value>();
  return (key) => {
    let value = made.get(key);
    if (value === undefined) {
      value = make(key);
      made.set(key, value);
    }
    return value;
  };
}
