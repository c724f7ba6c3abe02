import { ChatService } from "../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../gen/parley/chat/v1/session_service_pb.js";
import type { AlertSettings } from "./alert-settings.ts";
import type { Objective } from "./burn-rates.ts";

const METHODS = [...ChatService.methods, ...SessionService.methods];

/** Not health checks and reflection: they never fail, and would thin failures out. */
const OURS = METHODS.map(({ name }) => name).join("|");

/** Of RPCs that run or follow a turn the duration is the reply's length. */
const QUICK = METHODS.filter(({ name, methodKind }) => methodKind === "unary" && name !== "Chat")
  .map(({ name }) => name)
  .join("|");

/** The codes that are the service's own fault (DESIGN §3). Refusals, cancels and models' failures have others. */
const FAULTS = "internal|unavailable|unknown|data_loss";

/** Turns that somebody ended on purpose: neither good nor bad. */
const ENDED = "CANCELLED|INTERRUPTED|ROLLED_BACK";

/** What the service promises. */
export function objectivesOf(settings: AlertSettings): readonly Objective[] {
  const rate = (selector: string, window: string) => `sum by (namespace) (rate(${selector}[${window}]))`;
  const slower = (metric: string, matchers: string, window: string, seconds: number) => {
    const all = rate(`${metric}_count${matchers && `{${matchers}}`}`, window);
    return `(${all} - ${rate(`${metric}_bucket{${[matchers, within(seconds)].filter(Boolean).join(",")}}`, window)})`;
  };
  const duration = "parley_request_duration_seconds";
  const firstToken = "parley_time_to_first_token_seconds";
  return [
    {
      slo: "request-errors",
      alert: "ParleyRequestErrorBudgetBurn",
      events: "RPCs",
      bad: "fail",
      target: settings.requestSuccess,
      badRate: (window) => rate(`parley_requests_total{rpc=~"${OURS}",code=~"${FAULTS}"}`, window),
      allRate: (window) => rate(`parley_requests_total{rpc=~"${OURS}"}`, window),
    },
    {
      slo: "turn-errors",
      alert: "ParleyTurnErrorBudgetBurn",
      events: "turns",
      bad: "end in an error",
      target: settings.turnSuccess,
      badRate: (window) => rate('parley_turns_total{finish_reason="ERROR"}', window),
      allRate: (window) => rate(`parley_turns_total{finish_reason!~"${ENDED}"}`, window),
    },
    {
      slo: "request-latency",
      alert: "ParleyRequestLatencyBudgetBurn",
      events: "RPCs",
      bad: `take longer than ${settings.requestLatencySeconds} s`,
      target: settings.requestLatency,
      badRate: (window) => slower(duration, `rpc=~"${QUICK}"`, window, settings.requestLatencySeconds),
      allRate: (window) => rate(`${duration}_count{rpc=~"${QUICK}"}`, window),
    },
    {
      slo: "first-token",
      alert: "ParleyFirstTokenBudgetBurn",
      events: "turns",
      bad: `wait longer than ${settings.firstTokenSeconds} s for their first text`,
      target: settings.firstToken,
      badRate: (window) => slower(firstToken, "", window, settings.firstTokenSeconds),
      allRate: (window) => rate(`${firstToken}_count`, window),
    },
  ];
}

/** prom-client writes `le="1"`; Prometheus 3 stores it as `1.0`. */
function within(seconds: number): string {
  return Number.isInteger(seconds) ? `le=~"${seconds}([.]0)?"` : `le="${seconds}"`;
}
