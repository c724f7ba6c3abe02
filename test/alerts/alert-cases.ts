/** An alert that is expected to fire. */
export interface ExpectedAlert {
  readonly severity: string;
  /** Labels beside `severity`, `service` and the rule's own. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Which of several rules of one name, by their own labels. */
  readonly of?: Readonly<Record<string, string>>;
  readonly summary: string;
  readonly description: string;
}

/** Series from a Thursday's midnight (UTC) on, a value a minute in promtool's notation, and what fires `atMinute`. */
export interface AlertCase {
  readonly alert: string;
  readonly when: string;
  readonly series: Readonly<Record<string, string>>;
  readonly atMinute: number;
  /** All that fires under this alert's name: nothing, if empty. */
  readonly fires: readonly ExpectedAlert[];
}

const P = 'namespace="p"';

/** A counter's values that rise by some amount a minute; a counter that is there throughout. */
const rising = (perMinute: number, minutes = 3_000): string => `0+${perMinute}x${minutes}`;

/** What goes wrong of 100 RPCs a minute. */
const rpcs = (bad: number, code = "internal", minutes = 200): Record<string, string> => ({
  [`parley_requests_total{${P},rpc="Chat",code="ok"}`]: rising(100 - bad, minutes),
  [`parley_requests_total{${P},rpc="StreamChat",code="${code}"}`]: rising(bad, minutes),
});

const turns = (bad: number, reason = "ERROR"): Record<string, string> => ({
  [`parley_turns_total{${P},finish_reason="STOP"}`]: rising(100 - bad),
  [`parley_turns_total{${P},finish_reason="${reason}"}`]: rising(bad),
});

/** 100 RPCs of a kind a minute, of which some take longer than half a second. */
const latency = (slow: number, rpc = "GetSession"): Record<string, string> => ({
  [`parley_request_duration_seconds_bucket{${P},rpc="${rpc}",le="0.5"}`]: rising(100 - slow),
  [`parley_request_duration_seconds_bucket{${P},rpc="${rpc}",le="+Inf"}`]: rising(100),
  [`parley_request_duration_seconds_count{${P},rpc="${rpc}"}`]: rising(100),
});

const firstTokens = (slow: number, bound = "5"): Record<string, string> => ({
  [`parley_time_to_first_token_seconds_bucket{${P},le="${bound}"}`]: rising(100 - slow),
  [`parley_time_to_first_token_seconds_bucket{${P},le="+Inf"}`]: rising(100),
  [`parley_time_to_first_token_seconds_count{${P}}`]: rising(100),
});

/** What a burn rate's page and ticket say. */
const burn = (events: string, bad: string, share: string, allows: string): [ExpectedAlert, ExpectedAlert] => {
  const labels = { namespace: "p" };
  const description = `${share} of ${events} ${bad}; the target allows ${allows}.`;
  return [
    {
      severity: "critical",
      labels,
      summary: `So many ${events} ${bad} that the month's budget is gone within days`,
      description,
    },
    { severity: "warning", labels, summary: `More ${events} ${bad} than the month's budget allows`, description },
  ];
};
const requestBurn = (share: string) => burn("RPCs", "fail", share, "0.1%");
const turnBurn = (share: string) => burn("turns", "end in an error", share, "1%");
const latencyBurn = (share: string) => burn("RPCs", "take longer than 0.5 s", share, "1%");
const firstTokenBurn = (share: string) => burn("turns", "wait longer than 5 s for their first text", share, "5%");

const budget = (period: string, dryRun = false) =>
  `{${P},instance="a",tenant="acme",scope="team",scope_id="red",period="${period}",dry_run="${dryRun}"}`;
const budgetLabels = (period: string, dryRun = false) => ({
  namespace: "p",
  tenant: "acme",
  scope: "team",
  scope_id: "red",
  period,
  dry_run: String(dryRun),
});
/** Both sidecars tell of a budget; the alert must not count it twice. */
const twice = (series: Record<string, string>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(series).flatMap(([name, values]) => [
      [name, values],
      [name.replace('instance="a"', 'instance="b"'), values],
    ]),
  );

/** A tenant's series of a cost counter. */
const cost = (metric: string) =>
  `${metric}{${P},tenant="acme",team="red",use_case="chat",model="gpt-4",type="completion",version="1"}`;
const acme = { namespace: "p", tenant: "acme" };

export const ALERT_CASES: readonly AlertCase[] = [
  {
    alert: "ParleyServiceDown",
    when: "all replicas are gone",
    series: { [`parley_turns_in_flight{${P},instance="a"}`]: "0x5 stale" },
    atMinute: 10,
    fires: [
      {
        severity: "critical",
        labels: { namespace: "p" },
        summary: "No replica of Parley can be scraped",
        description: "There were replicas within the last day and there is none now.",
      },
    ],
  },
  {
    alert: "ParleyServiceDown",
    when: "one of two replicas is gone, and another installation has none for more than a day",
    series: {
      [`parley_turns_in_flight{${P},instance="a"}`]: "0x5 stale",
      [`parley_turns_in_flight{${P},instance="b"}`]: "0x1500",
      'parley_turns_in_flight{namespace="q",instance="c"}': "0x5 stale",
    },
    atMinute: 1_490,
    fires: [],
  },
  {
    alert: "ParleySessionStoreDown",
    when: "two of three replicas have no answer",
    series: {
      [`parley_store_up{${P},instance="a"}`]: "1x20",
      [`parley_store_up{${P},instance="b"}`]: "1x3 0x20",
      [`parley_store_up{${P},instance="c"}`]: "1x3 0x20",
    },
    atMinute: 10,
    fires: [
      {
        severity: "critical",
        labels: { namespace: "p" },
        summary: "The session store answers less than half of the replicas",
        description: "33.33% of the replicas have an answer from Redis; no turn can begin on the rest.",
      },
    ],
  },
  {
    alert: "ParleySessionStoreDown",
    when: "one of three replicas has no answer",
    series: {
      [`parley_store_up{${P},instance="a"}`]: "1x20",
      [`parley_store_up{${P},instance="b"}`]: "1x20",
      [`parley_store_up{${P},instance="c"}`]: "0x20",
    },
    atMinute: 10,
    fires: [],
  },
  {
    alert: "ParleyModelUnavailable",
    when: "both endpoints of a model are open, half-open for moments, on different replicas",
    series: {
      [`parley_breaker_state{${P},instance="a",endpoint="main",model="gpt-4"}`]: "0x3 2 1 2 1 2 1 2 1 2 1 2",
      [`parley_breaker_state{${P},instance="b",endpoint="main",model="gpt-4"}`]: "0x20",
      [`parley_breaker_state{${P},instance="b",endpoint="spare",model="gpt-4"}`]: "0x3 2x20",
    },
    atMinute: 10,
    fires: [
      {
        severity: "critical",
        labels: { namespace: "p", model: "gpt-4" },
        summary: "Every endpoint of gpt-4 is cut off",
        description: "On some replica the breaker of each endpoint is open: its turns with this model fail.",
      },
    ],
  },
  {
    alert: "ParleyModelUnavailable",
    when: "one of two endpoints is open",
    series: {
      [`parley_breaker_state{${P},instance="a",endpoint="main",model="gpt-4"}`]: "2x20",
      [`parley_breaker_state{${P},instance="a",endpoint="spare",model="gpt-4"}`]: "0x20",
    },
    atMinute: 10,
    fires: [],
  },
  {
    alert: "ParleyBreakerOpen",
    when: "one of two endpoints is open, half-open for moments",
    series: {
      [`parley_breaker_state{${P},instance="a",endpoint="main",model="gpt-4"}`]: "2 1 2 1 2 1 2 1 2 1 2 1",
      [`parley_breaker_state{${P},instance="a",endpoint="spare",model="gpt-4"}`]: "0x20",
    },
    atMinute: 10,
    fires: [
      {
        severity: "warning",
        labels: { namespace: "p", endpoint: "main", model: "gpt-4" },
        summary: "main is cut off for gpt-4",
        description:
          "On some replica its breaker has been open for five minutes; other endpoints answer, if there are any.",
      },
    ],
  },
  {
    alert: "ParleyBreakerOpen",
    when: "a breaker was open for two minutes",
    series: { [`parley_breaker_state{${P},endpoint="main",model="gpt-4"}`]: "0x3 2x2 0x20" },
    atMinute: 10,
    fires: [],
  },

  {
    alert: "ParleyRequestErrorBudgetBurn",
    when: "2 of 100 RPCs fail: page and ticket",
    series: rpcs(2),
    atMinute: 90,
    fires: requestBurn("2%"),
  },
  {
    alert: "ParleyRequestErrorBudgetBurn",
    when: "0.5 of 100 RPCs fail: a ticket",
    series: rpcs(0.5),
    atMinute: 150,
    fires: requestBurn("0.5%").slice(1),
  },
  {
    alert: "ParleyRequestErrorBudgetBurn",
    when: "0.05 of 100 RPCs fail",
    series: rpcs(0.05),
    atMinute: 150,
    fires: [],
  },
  {
    alert: "ParleyRequestErrorBudgetBurn",
    when: "failures made their first series just now",
    series: {
      [`parley_requests_total{${P},rpc="Chat",code="ok"}`]: rising(60, 200),
      [`parley_requests_total{${P},rpc="Chat",code="internal"}`]: "_x85 0+40x100",
    },
    atMinute: 95,
    fires: [...requestBurn("10%").slice(0, 1), ...requestBurn("6.557%").slice(1)],
  },
  {
    alert: "ParleyRequestErrorBudgetBurn",
    when: "failures ended ten minutes ago: no page any more",
    series: {
      [`parley_requests_total{${P},rpc="Chat",code="ok"}`]: rising(95, 200),
      [`parley_requests_total{${P},rpc="Chat",code="internal"}`]: "0+5x80 400x100",
    },
    atMinute: 125,
    fires: requestBurn("3.259%").slice(1),
  },
  {
    alert: "ParleyRequestErrorBudgetBurn",
    when: "clients cancel half of all RPCs, and are refused a tenth more",
    series: {
      ...rpcs(50, "canceled"),
      [`parley_requests_total{${P},rpc="Chat",code="resource_exhausted"}`]: rising(10, 200),
    },
    atMinute: 90,
    fires: [],
  },
  {
    alert: "ParleyRequestErrorBudgetBurn",
    when: "one of three RPCs a day fails",
    series: {
      [`parley_requests_total{${P},rpc="Chat",code="ok"}`]: "0x30 1x30 2x60",
      [`parley_requests_total{${P},rpc="Chat",code="internal"}`]: "0x50 1x60",
    },
    atMinute: 53,
    fires: [],
  },
  {
    alert: "ParleyRequestErrorBudgetBurn",
    when: "health checks by the thousand do not hide that 2 of 100 RPCs fail",
    series: { ...rpcs(2), [`parley_requests_total{${P},rpc="Check",code="ok"}`]: rising(10_000, 200) },
    atMinute: 90,
    fires: requestBurn("2%"),
  },

  {
    alert: "ParleyTurnErrorBudgetBurn",
    when: "20 of 100 turns end in an error",
    series: turns(20),
    atMinute: 90,
    fires: turnBurn("20%"),
  },
  {
    alert: "ParleyTurnErrorBudgetBurn",
    when: "5 of 100 turns end in an error: a ticket",
    series: turns(5),
    atMinute: 150,
    fires: turnBurn("5%").slice(1),
  },
  {
    alert: "ParleyTurnErrorBudgetBurn",
    when: "half of all turns are cancelled",
    series: turns(50, "CANCELLED"),
    atMinute: 90,
    fires: [],
  },

  {
    alert: "ParleyRequestLatencyBudgetBurn",
    when: "20 of 100 RPCs are slow",
    series: latency(20),
    atMinute: 90,
    fires: latencyBurn("20%"),
  },
  {
    alert: "ParleyRequestLatencyBudgetBurn",
    when: "5 of 100 RPCs are slow: a ticket",
    series: latency(5),
    atMinute: 150,
    fires: latencyBurn("5%").slice(1),
  },
  {
    alert: "ParleyRequestLatencyBudgetBurn",
    when: "only chats take long",
    series: { ...latency(0), ...latency(90, "StreamChat"), ...latency(90, "Chat") },
    atMinute: 90,
    fires: [],
  },
  {
    alert: "ParleyRequestLatencyBudgetBurn",
    when: "all of a few RPCs are slow",
    series: {
      [`parley_request_duration_seconds_bucket{${P},rpc="GetSession",le="0.5"}`]: "0x200",
      [`parley_request_duration_seconds_count{${P},rpc="GetSession"}`]: rising(0.1, 200),
    },
    atMinute: 90,
    fires: [],
  },

  {
    alert: "ParleyFirstTokenBudgetBurn",
    when: "80 of 100 turns wait",
    series: firstTokens(80),
    atMinute: 90,
    fires: firstTokenBurn("80%"),
  },
  {
    alert: "ParleyFirstTokenBudgetBurn",
    when: "80 of 100 turns wait, as Prometheus 3 writes the bound",
    series: firstTokens(80, "5.0"),
    atMinute: 90,
    fires: firstTokenBurn("80%"),
  },
  {
    alert: "ParleyFirstTokenBudgetBurn",
    when: "20 of 100 turns wait: a ticket",
    series: firstTokens(20),
    atMinute: 150,
    fires: firstTokenBurn("20%").slice(1),
  },
  {
    alert: "ParleyFirstTokenBudgetBurn",
    when: "4 of 100 turns wait",
    series: firstTokens(4),
    atMinute: 150,
    fires: [],
  },

  {
    alert: "ParleySidecarDown",
    when: "one of two sidecars does not answer",
    series: {
      [`parley_usage_up{${P},job="j",instance="a"}`]: "1x5 stale",
      [`parley_usage_up{${P},job="j",instance="b"}`]: "1x30",
      [`up{${P},job="j",instance="a"}`]: "1x5 0x30",
      [`up{${P},job="j",instance="b"}`]: "1x30",
    },
    atMinute: 20,
    fires: [
      {
        severity: "critical",
        labels: { namespace: "p", instance: "a" },
        summary: "A cost sidecar is down: a",
        description: "Nothing counts its part of the bill; usage, budgets and cost alerts may be blind.",
      },
    ],
  },
  {
    alert: "ParleySidecarDown",
    when: "the service runs and no sidecar was ever there",
    series: { [`parley_store_up{${P},instance="s"}`]: "1x30" },
    atMinute: 20,
    fires: [
      {
        severity: "critical",
        labels: { namespace: "p" },
        summary: "A cost sidecar is down",
        description: "Nothing counts its part of the bill; usage, budgets and cost alerts may be blind.",
      },
    ],
  },
  {
    alert: "ParleySidecarDown",
    when: "a pod was taken away, a service's target is down, and a restart takes three minutes",
    series: {
      [`parley_usage_up{${P},instance="gone"}`]: "1x5 stale",
      [`up{${P},instance="gone"}`]: "1x5 stale",
      [`up{${P},instance="service"}`]: "0x30",
      [`parley_usage_up{${P},instance="b"}`]: "1x12 stale stale stale 1x30",
      [`up{${P},instance="b"}`]: "1x12 0x3 1x30",
      [`parley_store_up{${P},instance="s"}`]: "1x30",
    },
    atMinute: 20,
    fires: [],
  },
  {
    alert: "ParleyLedgerLag",
    when: "the oldest row waits for six minutes and more",
    series: {
      [`parley_ledger_lag_seconds{${P},instance="a"}`]: "0+60x30",
      [`parley_ledger_lag_seconds{${P},instance="b"}`]: "0+60x30",
    },
    atMinute: 15,
    fires: [
      {
        severity: "warning",
        labels: { namespace: "p" },
        summary: "The ledger is applied late",
        description: "The oldest row that no sidecar has applied is 15m 0s old.",
      },
    ],
  },
  {
    alert: "ParleyLedgerLag",
    when: "a minute's lag is worked off",
    series: { [`parley_ledger_lag_seconds{${P},instance="a"}`]: "0x3 60x10 0x20" },
    atMinute: 15,
    fires: [],
  },

  {
    alert: "ParleyCostDrift",
    when: "rollups are 3 percent below the ledger",
    series: {
      [`parley_rollup_cost_usd{${P},instance="a",tenant="acme"}`]: "97x30",
      [`parley_rollup_cost_usd{${P},instance="b",tenant="acme"}`]: "97x30",
      [`parley_ledger_cost_usd{${P},instance="a",tenant="acme"}`]: "100x30",
      [`parley_ledger_cost_usd{${P},instance="b",tenant="acme"}`]: "100x30",
    },
    atMinute: 25,
    fires: [
      {
        severity: "warning",
        labels: acme,
        of: { between: "rollups" },
        summary: "acme: the ledger and what is derived from it differ",
        description: "This month's rollups are off by 3%, or there are none.",
      },
    ],
  },
  {
    alert: "ParleyCostDrift",
    when: "rollups are 1 percent below, and two tenants' pennies and one's nothing differ",
    series: {
      [`parley_rollup_cost_usd{${P},instance="a",tenant="acme"}`]: "99x30",
      [`parley_ledger_cost_usd{${P},instance="a",tenant="acme"}`]: "100x30",
      [`parley_rollup_cost_usd{${P},instance="a",tenant="penny"}`]: "0.01x30",
      [`parley_ledger_cost_usd{${P},instance="a",tenant="penny"}`]: "0.02x30",
      [`parley_rollup_cost_usd{${P},instance="a",tenant="none"}`]: "0x30",
      [`parley_ledger_cost_usd{${P},instance="a",tenant="none"}`]: "0x30",
    },
    atMinute: 25,
    fires: [],
  },
  {
    alert: "ParleyCostDrift",
    when: "the counters of one of two sidecars are lost",
    series: {
      [`parley_rollup_cost_usd{${P},instance="a",tenant="acme"}`]: "0+1x500",
      [`parley_ledger_cost_usd{${P},instance="a",tenant="acme"}`]: "0+1x500",
      [cost("parley_cost_usd_total").replace("{", '{instance="a",')]: "0+0.5x500",
    },
    atMinute: 420,
    fires: [
      {
        severity: "warning",
        labels: acme,
        of: { between: "counters" },
        summary: "acme: the ledger and what is derived from it differ",
        description: "The sidecars' counters of the last six hours are off by 50%.",
      },
    ],
  },
  {
    alert: "ParleyCostDrift",
    when: "a pod that took another's place has 20 dollars that no ledger has",
    series: {
      [`parley_rollup_cost_usd{${P},instance="a",tenant="acme"}`]: "0+1x500",
      [`parley_ledger_cost_usd{${P},instance="a",tenant="acme"}`]: "0+1x500",
      [cost("parley_cost_usd_total").replace("{", '{instance="a",')]: "0+1x300 stale",
      [cost("parley_cost_usd_total").replace("{", '{instance="b",')]: "_x301 20+1x200",
    },
    atMinute: 420,
    fires: [
      {
        severity: "warning",
        labels: acme,
        of: { between: "counters" },
        summary: "acme: the ledger and what is derived from it differ",
        description: "The sidecars' counters of the last six hours are off by 5.417%.",
      },
    ],
  },
  {
    alert: "ParleyCostDrift",
    when: "a pod takes another's place, and its first scrape finds two minutes' money",
    series: {
      [`parley_rollup_cost_usd{${P},instance="b",tenant="acme"}`]: "0+1x500",
      [`parley_ledger_cost_usd{${P},instance="b",tenant="acme"}`]: "0+1x500",
      [cost("parley_cost_usd_total").replace("{", '{instance="a",')]: "0+1x300 stale",
      [cost("parley_cost_usd_total").replace("{", '{instance="b",')]: "_x301 2+1x200",
    },
    atMinute: 420,
    fires: [],
  },

  ...["usd", "tokens"].flatMap((unit): AlertCase[] => [
    {
      alert: "ParleyBudgetBurn",
      when: `a fifth of a day's ${unit} goes in an hour`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("day")}`]: "0+4x300",
        [`parley_budget_limit_${unit}${budget("day")}`]: "1200x300",
      }),
      atMinute: 90,
      fires: [
        {
          severity: "warning",
          labels: budgetLabels("day"),
          of: { unit },
          summary: `team red of acme: a ${unit} budget burns 4 times as fast as its day allows`,
          description:
            "20% of the limit went in a short time (10 minutes of an hour, an hour of a day, six hours of a month).",
        },
      ],
    },
    {
      alert: "ParleyBudgetBurn",
      when: `a tenth of a day's ${unit} goes in an hour, and an hour begins anew`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("day")}`]: "0+2x300",
        [`parley_budget_limit_${unit}${budget("day")}`]: "1200x300",
        [`parley_budget_spent_${unit}${budget("hour")}`]: "0+1x59 0+1x59",
        [`parley_budget_limit_${unit}${budget("hour")}`]: "60x300",
      }),
      atMinute: 90,
      fires: [],
    },
    {
      alert: "ParleyBudgetExhaustionForecast",
      when: `a day's ${unit} will be gone at 17 o'clock, a month's by far`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("day")}`]: rising(1),
        [`parley_budget_limit_${unit}${budget("day")}`]: "1000x3000",
        [`parley_budget_spent_${unit}${budget("month")}`]: rising(1),
        [`parley_budget_limit_${unit}${budget("month")}`]: "2000x3000",
      }),
      atMinute: 600,
      fires: [
        {
          severity: "warning",
          labels: budgetLabels("day"),
          of: { unit },
          summary: `team red of acme: the day's ${unit} budget will not last`,
          description: `At its present pace 1.44k ${unit} will be spent by the period's end, more than the limit.`,
        },
        {
          severity: "warning",
          labels: budgetLabels("month"),
          of: { unit },
          summary: `team red of acme: the month's ${unit} budget will not last`,
          description: `At its present pace 44.64k ${unit} will be spent by the period's end, more than the limit.`,
        },
      ],
    },
    {
      alert: "ParleyBudgetExhaustionForecast",
      when: `an hour's ${unit} lasts to its end and no longer, a day's is hardly begun, another is gone`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("hour")}`]: "0+1x59 0+1x59",
        [`parley_budget_limit_${unit}${budget("hour")}`]: "61x300",
        [`parley_budget_spent_${unit}${budget("day")}`]: rising(1, 300),
        [`parley_budget_limit_${unit}${budget("day")}`]: "1000x300",
        [`parley_budget_spent_${unit}${budget("month")}`]: "101x300",
        [`parley_budget_limit_${unit}${budget("month")}`]: "100x300",
      }),
      atMinute: 115,
      fires: [],
    },
    {
      alert: "ParleyBudgetExhausted",
      when: `what is spent and held reaches the limit of ${unit}`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("month")}`]: "90x30",
        [`parley_budget_held_${unit}${budget("month")}`]: "10x30",
        [`parley_budget_limit_${unit}${budget("month")}`]: "100x30",
      }),
      atMinute: 10,
      fires: [
        {
          severity: "warning",
          labels: budgetLabels("month"),
          of: { unit },
          summary: `team red of acme: the month's ${unit} budget is spent`,
          description: `100 ${unit} are spent or held; calls are refused with BUDGET_EXHAUSTED until the period ends.`,
        },
      ],
    },
    {
      alert: "ParleyBudgetBurn",
      when: `a fifth of a day's ${unit} goes in an hour, of a budget that only counts`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("day", true)}`]: "0+4x300",
        [`parley_budget_limit_${unit}${budget("day", true)}`]: "1200x300",
      }),
      atMinute: 90,
      fires: [
        {
          severity: "warning",
          labels: budgetLabels("day", true),
          of: { unit },
          summary: `team red of acme: a ${unit} budget burns 4 times as fast as its day allows (dry run: nobody is refused)`,
          description:
            "20% of the limit went in a short time (10 minutes of an hour, an hour of a day, six hours of a month).",
        },
      ],
    },
    {
      alert: "ParleyBudgetExhaustionForecast",
      when: `a day's ${unit} will be gone at 17 o'clock, of a budget that only counts`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("day", true)}`]: rising(1),
        [`parley_budget_limit_${unit}${budget("day", true)}`]: "1000x3000",
      }),
      atMinute: 600,
      fires: [
        {
          severity: "warning",
          labels: budgetLabels("day", true),
          of: { unit },
          summary: `team red of acme: the day's ${unit} budget will not last (dry run: nobody is refused)`,
          description: `At its present pace 1.44k ${unit} will be spent by the period's end, more than the limit.`,
        },
      ],
    },
    {
      alert: "ParleyBudgetExhausted",
      when: `the limit of ${unit} of a budget that only counts is reached, and one that binds has some left`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("month", true)}`]: "100x30",
        [`parley_budget_held_${unit}${budget("month", true)}`]: "20x30",
        [`parley_budget_limit_${unit}${budget("month", true)}`]: "100x30",
        [`parley_budget_spent_${unit}${budget("day")}`]: "90x30",
        [`parley_budget_held_${unit}${budget("day")}`]: "9x30",
        [`parley_budget_limit_${unit}${budget("day")}`]: "100x30",
      }),
      atMinute: 10,
      fires: [
        {
          severity: "warning",
          labels: budgetLabels("month", true),
          of: { unit },
          summary: `team red of acme: the month's ${unit} budget is spent (dry run: nobody is refused)`,
          description: `120 ${unit} are spent or held; a budget that binds would refuse calls until the period ends.`,
        },
      ],
    },
    {
      alert: "ParleyBudgetExhausted",
      when: `some of the ${unit} are left, and another budget is 0 on purpose`,
      series: twice({
        [`parley_budget_spent_${unit}${budget("month")}`]: "90x30",
        [`parley_budget_held_${unit}${budget("month")}`]: "9x30",
        [`parley_budget_limit_${unit}${budget("month")}`]: "100x30",
        [`parley_budget_spent_${unit}${budget("day")}`]: "0x30",
        [`parley_budget_limit_${unit}${budget("day")}`]: "0x30",
      }),
      atMinute: 10,
      fires: [],
    },
  ]),

  {
    alert: "ParleyCostSpike",
    when: "a tenant's tokens rise to a hundred times its last hours",
    series: { [cost("parley_cost_tokens_total")]: "0+1000x420 520000+100000x30" },
    atMinute: 435,
    fires: [
      {
        severity: "warning",
        labels: acme,
        of: { unit: "tokens" },
        summary: "acme uses far more tokens than it did",
        description: "100k tokens a minute: four times its last six hours, or above the ceiling.",
      },
    ],
  },
  {
    alert: "ParleyCostSpike",
    when: "a spike has lasted for 28 minutes: it is not its own baseline",
    series: { [cost("parley_cost_tokens_total")]: "0+1000x420 520000+100000x60" },
    atMinute: 448,
    fires: [
      {
        severity: "warning",
        labels: acme,
        of: { unit: "tokens" },
        summary: "acme uses far more tokens than it did",
        description: "100k tokens a minute: four times its last six hours, or above the ceiling.",
      },
    ],
  },
  {
    alert: "ParleyCostSpike",
    when: "a new tenant begins above the ceiling of tokens",
    series: { [cost("parley_cost_tokens_total")]: "_x10 0+3000000x30" },
    atMinute: 30,
    fires: [
      {
        severity: "warning",
        labels: acme,
        of: { unit: "tokens" },
        summary: "acme uses far more tokens than it did",
        description: "3M tokens a minute: four times its last six hours, or above the ceiling.",
      },
    ],
  },
  {
    alert: "ParleyCostSpike",
    when: "growth stays below the floor, and another tenant always uses much",
    series: {
      [cost("parley_cost_tokens_total")]: "0+100x420 52000+10000x30",
      [cost("parley_cost_tokens_total").replace("acme", "large")]: "0+100000x450",
      [cost("parley_cost_usd_total")]: "0+0.001x420 0.43+0.05x30",
      [cost("parley_cost_usd_total").replace("acme", "large")]: "0+5x450",
    },
    atMinute: 435,
    fires: [],
  },
  {
    alert: "ParleyCostSpike",
    when: "a tenant's money goes a hundred times as fast as in its last hours",
    series: { [cost("parley_cost_usd_total")]: "0+0.01x420 4.2+1x30" },
    atMinute: 435,
    fires: [
      {
        severity: "warning",
        labels: acme,
        of: { unit: "usd" },
        summary: "acme spends far more than it did",
        description: "60 dollars an hour: four times its last six hours, or above the ceiling.",
      },
    ],
  },
  {
    alert: "ParleyCostAnomaly",
    when: "the first loop of calls is the first value of its series",
    series: { [`parley_cost_anomalies_total{${P},tenant="acme",kind="call_loop"}`]: "_x20 1x30" },
    atMinute: 25,
    fires: [
      {
        severity: "warning",
        labels: { ...acme, anomaly: "call_loop" },
        summary: "acme: a session shows call_loop",
        description: "A runaway agent or an injected prompt looks like this; the sidecar's log names the session.",
      },
    ],
  },
  {
    alert: "ParleyCostAnomaly",
    when: "anomalies are of half an hour ago",
    series: { [`parley_cost_anomalies_total{${P},tenant="acme",kind="call_loop"}`]: "_x20 1 2 3x60" },
    atMinute: 55,
    fires: [],
  },
  {
    alert: "ParleyUnpricedTokens",
    when: "the first unpriced call is the first value of its series",
    series: { [`parley_unpriced_tokens_total{${P},tenant="acme",model="new"}`]: "_x20 34x60" },
    atMinute: 30,
    fires: [
      {
        severity: "warning",
        labels: { ...acme, model: "new" },
        summary: "new has no price",
        description: "Tenant acme used it within the hour, billed at the default price.",
      },
    ],
  },
  {
    alert: "ParleyUnpricedTokens",
    when: "unpriced calls were two hours ago",
    series: { [`parley_unpriced_tokens_total{${P},tenant="acme",model="new"}`]: "0x20 34x200" },
    atMinute: 150,
    fires: [],
  },
  {
    alert: "ParleyWatchdog",
    when: "there is nothing at all",
    series: {},
    atMinute: 1,
    fires: [
      {
        severity: "none",
        summary: "Always fires",
        description: "Whoever receives it raises the alarm when it stops: then alerts do not arrive.",
      },
    ],
  },
];

/** The watchdog's silence is a Prometheus that does not run. */
export const NEVER_SILENT: ReadonlySet<string> = new Set(["ParleyWatchdog"]);
