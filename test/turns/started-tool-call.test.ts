import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { ToolCallFinishedSchema, TurnStepSchema } from "../../gen/parley/storage/v1/turn_step_pb.js";
import { NO_USAGE } from "../../src/turns/ports.ts";
import { createTurnJournal } from "../../src/turns/turn-journal.ts";
import { createTurnLogWriter } from "../../src/turns/turn-log-writer.ts";
import { createTurnTally } from "../../src/turns/turn-tally.ts";

// A lost owner has marked a tool's call as started. Its server may have told that owner that the call may be repeated, and
// not have been reached by this one yet.

test.each([
  ["neither owner knew that it may be repeated", { before: false, now: false }, ToolOutcome.UNKNOWN],
  ["the owner that started it knew that it may", { before: true, now: false }, ToolOutcome.OK],
  ["this owner knows that it may", { before: false, now: true }, ToolOutcome.OK],
])("%s", async (_, { before, now }, outcome) => {
  const step = { agent: "a", name: "files.read" };
  const steps = [
    create(TurnStepSchema, { line: 1, call: 1, sequence: 1n, step: { case: "prepared", value: step } }),
    create(TurnStepSchema, {
      line: 2,
      call: 1,
      sequence: 1n,
      step: { case: "started", value: { idempotent: before } },
    }),
  ];
  const journal = createTurnJournal({
    turnId: "t",
    past: { steps, lastSequence: 1n, tail: [], boundTokens: 0 },
    writer: createTurnLogWriter({ lastSequence: 1n, lastLine: 2, append: async () => true, onError: expect.fail }),
    tally: createTurnTally({
      turnId: "t",
      message: "Hi",
      model: "gpt-4",
      askTime: timestampNow(),
      before: NO_USAGE,
      boundTokensBefore: 0,
    }),
    account: { beginCall: expect.fail, loseCall: async () => [], takeRow: expect.fail },
    maxTokens: 1_000,
    signal: new AbortController().signal,
  });
  const finished = await journal.toolStep(
    { ...step, idempotent: now },
    {
      run: async () => create(ToolCallFinishedSchema, { outcome: ToolOutcome.OK }),
      unknown: () => create(ToolCallFinishedSchema, { outcome: ToolOutcome.UNKNOWN }),
    },
  );
  expect(finished.outcome).toBe(outcome);
});
