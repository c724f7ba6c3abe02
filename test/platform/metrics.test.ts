import { readFile } from "node:fs/promises";
import { Registry } from "prom-client";
import { expect, test, vi } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { GuardrailStage, ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { createMetrics, METRICS, type Metrics } from "../../src/metrics.ts";
import { eventually } from "../support/eventually.ts";

const TABLE = Object.values(METRICS);

test("the docs have a row for each metric, and no row for any other", async () => {
  const docs = await readFile(new URL("../../docs/metrics.md", import.meta.url), "utf8");
  const rows = docs.split("\n").filter((line) => line.startsWith("| `parley_"));
  expect(rows).toEqual(
    TABLE.map(({ name, type, unit, labels, help }) => {
      const codes = labels.map((label) => `\`${label}\``).join(", ");
      return `| \`${name}\` | ${type} | ${unit} | ${codes} | ${help} |`;
    }),
  );
});

test("every label of the table has its values in the docs, and every documented label is in the table", async () => {
  const docs = await readFile(new URL("../../docs/metrics.md", import.meta.url), "utf8");
  const [, section = ""] = docs.split("## Label values");
  const documented = [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, label]) => label);
  expect(documented.toSorted()).toEqual([...new Set(TABLE.flatMap(({ labels }) => labels))].toSorted());
});

test("what is registered is what the table says: names, types, help, and labels beside version and track", async () => {
  const registry = new Registry();
  exercised(registry);
  const families = await registry.getMetricsAsJSON();
  const own = families.filter(({ name }) => name.startsWith("parley_"));
  const described = own.map(({ name, type, help, values }) => {
    const labels = new Set(values.flatMap((value) => Object.keys(value.labels)));
    labels.delete("le");
    return { name, type: String(type), help, labels: [...labels].toSorted() };
  });
  const expected = TABLE.map(({ name, type, help, labels }) => ({
    name,
    type,
    help,
    labels: [...labels, "version", "track"].toSorted(),
  }));
  expect(described.toSorted(byName)).toEqual(expected.toSorted(byName));
});

test("units stand in the names, as Prometheus has it", () => {
  for (const { name, type, unit } of TABLE) {
    expect(name.endsWith("_total"), name).toBe(type === "counter");
    if (unit === "seconds") expect(name).toMatch(/_seconds$/);
  }
});

test("version and track are on every line, the process' own metrics included", async () => {
  const metrics = createMetrics({ version: "1.2.3", track: "canary" });
  // Of nodejs_version_info the label is Node's own version.
  const none = /^(#|nodejs_version_info|$)/;
  const samples = (await metrics.render()).split("\n").filter((line) => !none.test(line));
  expect(samples.some((line) => line.startsWith("process_cpu_"))).toBe(true);
  for (const line of samples) {
    expect(line).toContain('version="1.2.3"');
    expect(line).toContain('track="canary"');
  }
});

test("known label sets are there at 0 before anything happens", async () => {
  const lines = await render(create({ models: ["gpt-4"] }));
  for (const { name } of [...ChatService.methods, ...SessionService.methods]) {
    expect(lines).toContain(`parley_requests_total{rpc="${name}",code="ok"} 0`);
    expect(lines).toContain(`parley_request_duration_seconds_count{rpc="${name}"} 0`);
  }
  for (const reason of Object.values(FinishReason).filter((value) => typeof value === "string")) {
    const line = `parley_turns_total{finish_reason="${reason}"} 0`;
    expect(lines.includes(line), line).toBe(reason !== "UNSPECIFIED");
  }
  expect(lines).toContain('parley_tokens_total{model="gpt-4",type="prompt"} 0');
  expect(lines).toContain('parley_tokens_total{model="gpt-4",type="completion"} 0');
  expect(lines).toContain('parley_agent_errors_total{error_type="MODEL_UNAVAILABLE"} 0');
  expect(lines).toContain("parley_turns_in_flight 0");
});

test("what happens is counted", async () => {
  const metrics = create({});
  metrics.requestEnded({ rpc: "Chat", code: "ok", seconds: 0.2 });
  metrics.requestEnded({ rpc: "Chat", code: "ok", seconds: 0.3 });
  metrics.requestEnded({ rpc: "Chat", code: "not_found", seconds: 0.001 });
  metrics.tokensUsed({ model: "gpt-4", promptTokens: 30, completionTokens: 4 });
  metrics.tokensUsed({ model: "gpt-4", promptTokens: 10, completionTokens: 0 });
  metrics.agentFailed("MODEL_RATE_LIMITED");
  metrics.turnStarted();
  metrics.turnStarted();
  metrics.turnStarted();
  metrics.turnEnded(FinishReason.TERMINATED);
  metrics.turnEnded();
  metrics.turnsQueued(1);
  metrics.turnsQueued(1);
  metrics.turnsQueued(-1);
  metrics.firstToken(0.02);
  metrics.modelCallEnded({ model: "gpt-4", seconds: 1.5 });
  expect(await render(metrics)).toEqual(
    expect.arrayContaining([
      'parley_requests_total{rpc="Chat",code="ok"} 2',
      'parley_requests_total{rpc="Chat",code="not_found"} 1',
      'parley_request_duration_seconds_sum{rpc="Chat"} 0.501',
      'parley_request_duration_seconds_bucket{le="0.25",rpc="Chat"} 2',
      'parley_tokens_total{model="gpt-4",type="prompt"} 40',
      'parley_tokens_total{model="gpt-4",type="completion"} 4',
      'parley_agent_errors_total{error_type="MODEL_RATE_LIMITED"} 1',
      "parley_turns_in_flight 1",
      'parley_turns_total{finish_reason="TERMINATED"} 1',
      "parley_turns_queued 1",
      'parley_time_to_first_token_seconds_bucket{le="0.025"} 1',
      'parley_model_call_duration_seconds_count{model="gpt-4"} 1',
    ]),
  );
});

test.each([
  ["closed", 0],
  ["half_open", 1],
  ["open", 2],
] as const)("a breaker that is %s is %d", async (state, value) => {
  const metrics = create({});
  metrics.breakerChanged({ endpoint: "main", model: "gpt-4", state });
  expect(await render(metrics)).toContain(`parley_breaker_state{endpoint="main",model="gpt-4"} ${value}`);
});

test.each([
  [true, 1],
  [false, 0],
])("a store that answers or not (%s) is %d", async (isUp, value) => {
  const metrics = create({});
  metrics.storeChecked(isUp);
  expect(await render(metrics)).toContain(`parley_store_up ${value}`);
});

test("active sessions are counted anew at each scrape", async () => {
  const metrics = create({});
  let sessions = 3;
  metrics.collectActiveSessions(async () => sessions);
  expect(await render(metrics)).toContain("parley_active_sessions 3");
  sessions = 5;
  expect(await render(metrics)).toContain("parley_active_sessions 5");
});

test("while the store fails, active sessions are absent if never counted, else the last count; all else is served", async () => {
  const metrics = create({});
  let fails = true;
  metrics.collectActiveSessions(async () => {
    if (fails) throw new Error("store lost");
    return 7;
  });
  const before = await render(metrics);
  expect(before.filter((line) => line.startsWith("parley_active_sessions"))).toEqual([]);
  expect(before).toContain("parley_turns_in_flight 0");
  fails = false;
  expect(await render(metrics)).toContain("parley_active_sessions 7");
  fails = true;
  expect(await render(metrics)).toContain("parley_active_sessions 7");
});

test("a store that hangs holds up no scrape beyond the timeout and is asked once, not once per scrape", async () => {
  const metrics = create({ sessionsTimeoutMs: 10 });
  const answer = Promise.withResolvers<number>();
  const count = vi.fn(() => answer.promise);
  metrics.collectActiveSessions(count);
  await render(metrics);
  await render(metrics);
  expect(count).toHaveBeenCalledTimes(1);
  answer.resolve(2);
  await eventually(async () => expect(await render(metrics)).toContain("parley_active_sessions 2"));
});

test("two processes' worth of metrics live beside each other", async () => {
  const first = create({});
  const second = create({});
  first.turnStarted();
  expect(await render(second)).toContain("parley_turns_in_flight 0");
});

function create(options: Partial<Parameters<typeof createMetrics>[0]>): Metrics {
  return createMetrics({ version: "0", track: "stable", processMetrics: false, ...options });
}

/** Every metric, with at least one value. */
function exercised(registry: Registry): Metrics {
  const metrics = create({ registry, models: ["gpt-4"] });
  metrics.breakerChanged({ endpoint: "main", model: "gpt-4", state: "closed" });
  metrics.toolBreakerChanged({ server: "files", state: "closed" });
  metrics.guardrailTripped({ agentTeam: "support", guardrail: "short", stage: GuardrailStage.INPUT });
  metrics.toolCallEnded({ server: "files", tool: "read", outcome: ToolOutcome.OK, seconds: 1 });
  metrics.collectActiveSessions(async () => 1);
  return metrics;
}

/** The sample lines without the default labels, which a test of their own checks. */
async function render(metrics: Metrics): Promise<string[]> {
  const lines = (await metrics.render()).split("\n");
  return lines.map((line) =>
    line.replace(/version="0",track="stable",?/, "").replace(/,\}|\{\}/, (end) => (end === ",}" ? "}" : "")),
  );
}

function byName(a: { name: string }, b: { name: string }): number {
  return a.name < b.name ? -1 : 1;
}
