import { timestampNow } from "@bufbuild/protobuf/wkt";
import { expect } from "vitest";
import { NO_USAGE } from "../../src/turns/ports.ts";
import { createTurnJournal, NO_PAST } from "../../src/turns/turn-journal.ts";
import { createTurnLogWriter } from "../../src/turns/turn-log-writer.ts";
import { createTurnTally } from "../../src/turns/turn-tally.ts";

type Journal = Parameters<typeof createTurnJournal>[0];

/** A turn's journal whose steps are kept nowhere, of a turn that calls no model. */
export function loneJournal({
  turnId,
  past = NO_PAST,
  continued,
}: Pick<Journal, "turnId" | "continued"> & Partial<Pick<Journal, "past">>): ReturnType<typeof createTurnJournal> {
  const lastLine = past.steps.at(-1)?.line ?? 0;
  return createTurnJournal({
    turnId,
    past,
    writer: createTurnLogWriter({ lastSequence: 1n, lastLine, append: async () => true, onError: expect.fail }),
    tally: createTurnTally({
      turnId,
      message: "Hi",
      model: "gpt-4",
      askTime: timestampNow(),
      before: NO_USAGE,
      boundTokensBefore: 0,
    }),
    account: { beginCall: expect.fail, loseCall: async () => [], takeRow: expect.fail },
    maxTokens: 1_000,
    continued,
    signal: new AbortController().signal,
  });
}
