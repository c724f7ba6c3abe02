import * as fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import type { TurnStep } from "../../gen/parley/storage/v1/turn_step_pb.js";
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
              return true;
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
      append: async (entries) => appended.push([...entries]) > 0,
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
        return true;
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

describe("the writer of a turn that is stopped", () => {
  const PREPARED = { $typeName: "parley.storage.v1.CallPrepared", agent: "a", name: "m", usedTokens: 0n } as const;
  const action = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant("say" as const), agent: fc.constantFrom("a", "b") }) },
    fc.record({ do: fc.constant("line" as const) }),
    fc.record({ do: fc.constant("flush" as const) }),
    { weight: 2, arbitrary: fc.record({ do: fc.constant("tick" as const) }) },
  );

  it("hands to the commit all that no append took, numbered on, with each journal line behind its events", async () => {
    let stops = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(action, { maxLength: 30 }),
        fc.integer({ min: 1, max: 4 }),
        async (actions, stopsAt) => {
          const log: TurnLogEntry[] = [];
          const journal: TurnStep[] = [];
          let appends = 0;
          let stopped = false;
          const writer = createTurnLogWriter({
            lastSequence: 5n,
            lastLine: 2,
            append: async (entries, steps) => {
              expect(stopped).toBe(false);
              await new Promise((resolve) => setImmediate(resolve));
              stopped = ++appends === stopsAt;
              if (stopped) return false;
              log.push(...entries);
              journal.push(...steps);
              // What a line stands behind is written with it or before it.
              for (const step of steps) expect(step.sequence).toBeLessThanOrEqual(log.at(-1)?.event?.sequence ?? 5n);
              return true;
            },
            onError: (error) => expect.unreachable(String(error)),
          });
          const said = { a: "", b: "" };
          let lines = 0;
          const flushes: Promise<boolean>[] = [];
          for (const [index, what] of actions.entries()) {
            switch (what.do) {
              case "say":
                said[what.agent] += `${index} `;
                writer.emit(delta(what.agent, `${index} `));
                break;
              case "line":
                writer.record(++lines, { case: "prepared", value: PREPARED });
                break;
              case "flush": {
                const [texts, count] = [{ ...said }, lines];
                const flushed = writer.flushed().then(
                  () => {
                    // All that was said and recorded by then is durable.
                    for (const agent of ["a", "b"] as const) expect(textOf(log, agent)).toContain(texts[agent]);
                    expect(journal.length).toBeGreaterThanOrEqual(count);
                    return true;
                  },
                  () => false,
                );
                flushes.push(flushed);
                break;
              }
              case "tick":
                await new Promise((resolve) => setImmediate(resolve));
            }
          }
          const rest = await writer.finish();
          const flushed = await Promise.all(flushes);
          // Once one fails, all later ones do.
          expect(flushed.toSorted((x, y) => Number(y) - Number(x))).toEqual(flushed);
          log.push(...rest);
          expect(log.map((entry) => entry.event?.sequence)).toEqual(log.map((_, index) => BigInt(index + 6)));
          for (const agent of ["a", "b"] as const) expect(textOf(log, agent)).toBe(said[agent]);
          expect(journal.map((step) => step.line)).toEqual(journal.map((_, index) => index + 3));
          if (stopped) stops++;
        },
      ),
      { numRuns: 400 },
    );
    // 58 on average.
    expect(stops).toBeGreaterThan(10);
  });

  it("makes one event of what one agent says after the stop", async () => {
    const writer = createTurnLogWriter({ lastSequence: 1n, append: async () => false, onError: expect.unreachable });
    writer.emit(delta("a", "one "));
    await expect(writer.flushed()).rejects.toThrow("closed");
    for (const text of ["two ", "three"]) {
      writer.emit(delta("a", text));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const rest = await writer.finish();
    expect(rest.map(({ event }) => event?.sequence)).toEqual([2n]);
    expect(textOf(rest, "a")).toBe("one two three");
  });
});
