import { createClient } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { drained } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { chargesOf, ledgerOf } from "../support/ledger.ts";
import { useTestApp } from "../support/use-app.ts";

// A manager that repeats its prompt names everybody: no choice of it is valid.

const app = useTestApp({
  yaml: `
agents:
  law: { model: gpt-4o, description: Knows laws. }
  tax: { model: gpt-4o, description: Knows taxes. }
teams:
  experts:
    kind: selector
    agents: [law, tax]
    selector_model: gpt-4o
    termination: { and: [{ max_messages: 3 }, { source_match: [tax] }] }
`,
});

test.each(threeWires)(
  "on $name, each of the manager's calls is in the log, the bill and nobody's history",
  async (wire) => {
    const transport = wire.transport(app.url);
    const rowsBefore = chargesOf(await ledgerOf(app.stores.accounts, "default")).length;
    const events = (
      await drained(createClient(ChatService, transport).streamChat({ message: "Hi", userId: "u1" }))
    ).map(({ event }) => event);
    expect(events.flatMap((event) => (event.case === "speakerSelected" ? [event.value.agent] : []))).toEqual([
      "law",
      "tax",
    ]);
    const recorded = events.flatMap((event) => (event.case === "usageRecorded" ? [event.value] : []));
    const callers = ["selector", "selector", "selector", "law", "tax"];
    expect(recorded.map(({ agent }) => agent)).toEqual(callers);
    const end = events.at(-1);
    expect(end).toMatchObject({
      case: "turnCompleted",
      value: {
        finishReason: FinishReason.TERMINATED,
        termination: "MaxMessageTermination & SourceMatchTermination",
        costMicroUsd: recorded.reduce((sum, { costMicroUsd }) => sum + costMicroUsd, 0n),
      },
    });
    const rows = chargesOf(await ledgerOf(app.stores.accounts, "default")).slice(rowsBefore);
    expect(rows.map(({ agent }) => agent)).toEqual(callers);

    const sessionId = events[0]?.case === "turnStarted" ? events[0].value.sessionId : "";
    const { messages } = await createClient(SessionService, transport).listMessages({ sessionId });
    expect(messages.map(({ agent }) => agent)).toEqual(["", "law", "tax"]);
  },
);
