import { expect, onTestFinished, test } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { AgentStopReason } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { eventually } from "../support/eventually.ts";
import { chargesOf, ledgerOf } from "../support/ledger.ts";
import { startTestApp } from "../support/parley-app.ts";
import { callerOf, expectWhole, finishOf } from "./clients.ts";

/** Teams of each kind, of agents who call tools, hand over and are picked; each model fails at its first endpoint. */
const YAML = (failing: string) => {
  const endpoints = (model: string) => ({ endpoints: [{ base_url: failing, model: "sim-500" }, { model }] });
  return JSON.stringify({
    agents: {
      worker: { model: "tools", tools: ["current_time"] },
      writer: { model: "gpt-4o" },
      closer: { model: "closing" },
      sender: { model: "tools", handoffs: ["writer"] },
      thrifty: { model: "gpt-4o", max_tokens: 700 },
    },
    teams: {
      single: { agent: "worker" },
      round_robin: { kind: "round_robin", agents: ["worker", "writer", "closer"] },
      selector: { kind: "selector", agents: ["writer", "closer"], selector_model: "gpt-4o", max_selector_attempts: 2 },
      swarm: { kind: "swarm", agents: ["sender", "writer"] },
      capped: { kind: "round_robin", agents: ["thrifty", "writer"], max_rounds: 6, max_consecutive_auto_reply: 4 },
    },
    models: { tools: endpoints("sim-tools"), closing: endpoints("sim-terminate"), "gpt-4o": endpoints("gpt-4o") },
    // Every endpoint is tried at each call.
    breaker: { min_calls: 1_000 },
  });
};

test.each(["single", "round_robin", "selector", "swarm", "capped"])(
  "a turn of team %s: each model call is recorded for its agent, as in the ledger, and the sum is the turn's",
  async (agentTeam) => {
    const failing = await startSimulatedModel({ chunkDelayMs: 0 });
    onTestFinished(() => failing.close());
    const app = await startTestApp({ yaml: YAML(failing.baseUrl), env: { MAX_TOKENS: "50000" } });
    onTestFinished(() => app.close());
    const reading = callerOf(app).stream("", "hello", agentTeam);
    expect(await reading.end).toBeUndefined();
    expectWhole(reading.events);
    const usage = reading.events.flatMap(({ event }) => (event.case === "usageRecorded" ? [event.value] : []));
    const total = reading.events.at(-1)?.event;
    const sum = (of: (one: (typeof usage)[number]) => number): number => usage.reduce((all, one) => all + of(one), 0);
    expect(total).toMatchObject({
      case: "turnCompleted",
      value: {
        tokenUsage: {
          promptTokens: sum(({ tokenUsage }) => tokenUsage?.promptTokens ?? 0),
          completionTokens: sum(({ tokenUsage }) => tokenUsage?.completionTokens ?? 0),
          totalTokens: sum(({ tokenUsage }) => tokenUsage?.totalTokens ?? 0),
        },
        costMicroUsd: BigInt(sum(({ costMicroUsd }) => Number(costMicroUsd))),
      },
    });
    // Attempts that failed and those that answered, each by itself.
    expect(usage).toHaveLength(app.simulated.callCount + failing.callCount);
    expect(failing.callCount).toBe(app.simulated.callCount);
    const answered = usage.filter(({ usageSource }) => usageSource === UsageSource.PROVIDER);
    expect(answered.map(({ tokenUsage }) => [tokenUsage?.promptTokens, tokenUsage?.completionTokens])).toEqual(
      app.simulated.calls.map(({ promptTokens, completionTokens }) => [promptTokens, completionTokens]),
    );
    const agents = new Set(usage.map(({ agent }) => agent));
    const expected: Readonly<Record<string, readonly string[]>> = {
      single: ["worker"],
      round_robin: ["worker", "writer", "closer"],
      selector: ["selector", "writer", "closer"],
      swarm: ["sender", "writer"],
      capped: ["thrifty", "writer"],
    };
    expect([...agents].toSorted()).toEqual(expected[agentTeam]?.toSorted());

    const rows = await eventually(async () => {
      const found = chargesOf(await ledgerOf(app.stores.accounts, "default"));
      expect(found).toHaveLength(usage.length);
      return found;
    });
    const asRecorded = ({ agent, model, costMicroUsd }: { agent: string; model: string; costMicroUsd: bigint }) =>
      `${agent} ${model} ${costMicroUsd}`;
    expect(rows.map(asRecorded).toSorted()).toEqual(usage.map(asRecorded).toSorted());

    const stopped = reading.events.flatMap(({ event }) => (event.case === "agentStopped" ? [event.value] : []));
    if (agentTeam !== "capped") return;
    expect(stopped).toMatchObject([{ agent: "thrifty", reason: AgentStopReason.TOKEN_CAP }]);
    expect(finishOf(reading.events)).toBe(FinishReason.MAX_ROUNDS);
    const thrifty = usage.filter(({ agent }) => agent === "thrifty");
    expect(thrifty.reduce((all, { tokenUsage }) => all + (tokenUsage?.totalTokens ?? 0), 0)).toBeLessThanOrEqual(700);
  },
);
