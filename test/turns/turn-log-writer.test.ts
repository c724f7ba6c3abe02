import * as fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { createTurnLogWriter } from "../../src/turns/turn-log-writer.ts";

const delta = (agent: string, text: string) => ({ case: "textDelta", value: { agent, text } }) as const;
const textOf = (entries: readonly TurnLogEntry[], agent: string) =>
  entries
    .map(({ event }) =>
      event?.event.case === "textDelta" && event.event.value.agent === agent ? event.event.value.text : "",
    )
    .join("");

describe("the writer of a turn's log", () => {
  it("numbers without gap or duplicate and loses no text, whatever the store's pace", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({ agent: fc.constantFrom("a", "b"), text: fc.string({ minLength: 1 }), pause: fc.boolean() }),
        ),
        async (said) => {
          const log: TurnLogEntry[] = [];
          const writer = createTurnLogWriter({
            lastSequence: 1n,
            append: async (entries) => {
              await new Promise((resolve) => setImmediate(resolve));
              log.push(...entries);
            },
            onError: (error) => expect.unreachable(String(error)),
          });
          for (const { agent, text, pause } of said) {
            writer.emit(delta(agent, text));
            if (pause) await new Promise((resolve) => setImmediate(resolve));
          }
          log.push(...(await writer.finish()));
          expect(log.map((entry) => entry.event?.sequence)).toEqual(log.map((_, index) => BigInt(index + 2)));
          for (const agent of ["a", "b"]) {
            const expected = said.filter((piece) => piece.agent === agent).map((piece) => piece.text);
            expect(textOf(log, agent)).toBe(expected.join(""));
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it("puts the text of one tick into one event", async () => {
    const appended: TurnLogEntry[][] = [];
    const writer = createTurnLogWriter({
      lastSequence: 1n,
      append: async (entries) => void appended.push([...entries]),
      onError: (error) => expect.unreachable(String(error)),
    });
    for (const text of ["one ", "event ", "only"]) writer.emit(delta("a", text));
    await vi.waitFor(() => expect(appended).toHaveLength(1));
    expect(appended[0]).toHaveLength(1);
    expect(textOf(appended[0] ?? [], "a")).toBe("one event only");
  });

  it("has one append under way at a time", async () => {
    let underWay = 0;
    let most = 0;
    let appends = 0;
    const writer = createTurnLogWriter({
      lastSequence: 1n,
      append: async () => {
        appends++;
        most = Math.max(most, ++underWay);
        await new Promise((resolve) => setImmediate(resolve));
        underWay--;
      },
      onError: (error) => expect.unreachable(String(error)),
    });
    await vi.waitFor(
      () => {
        writer.emit(delta("a", "x"));
        expect(appends).toBeGreaterThan(3);
      },
      { interval: 1 },
    );
    await writer.finish();
    expect(most).toBe(1);
  });

  it("writes nothing after an append that failed, and says so once", async () => {
    const errors: unknown[] = [];
    let appends = 0;
    const writer = createTurnLogWriter({
      lastSequence: 1n,
      append: async () => {
        appends++;
        throw new Error("refused");
      },
      onError: (error) => errors.push(error),
    });
    writer.emit(delta("a", "x"));
    await vi.waitFor(() => expect(errors).toHaveLength(1));
    writer.emit(delta("a", "y"));
    expect(await writer.finish()).toEqual([]);
    expect(appends).toBe(1);
  });
});
