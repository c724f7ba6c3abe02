import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { formatCostsAddress, parseCostsAddress } from "../../web/src/costs-address.ts";
import { csvHead, csvLine } from "../../web/src/costs-csv.ts";
import { decimalsOf, moneyText, plainUsd, scaleOf } from "../../web/src/costs-money.ts";
import { spanOf } from "../../web/src/costs-range.ts";

// Figures of the Costs page, without a browser.

const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });

test.each([
  [0n, "$0.00"],
  [1n, "$0.000001"],
  [1_500_000n, "$1.50"],
  [1_234_567_890_123n, "$1,234,567.890123"],
  [-8_880n, "−$0.00888"],
  // Beyond what a floating point number can tell from its neighbours.
  [9_007_199_254_740_993n, "$9,007,199,254.740993"],
  [9_000_000_000_000_999_999n, "$9,000,000,000,000.999999"],
])("%d micro US dollars are %s", (amount, text) => {
  expect(moneyText(amount)).toBe(text);
});

test("no amount loses a micro-dollar on the page or in the CSV", () => {
  fc.assert(
    fc.property(int64, (amount) => {
      expect(BigInt(plainUsd(amount).replace(".", ""))).toBe(amount);
      const shown = moneyText(amount, 6).replace("−", "-").replaceAll(/[$,.]/g, "");
      expect(BigInt(shown)).toBe(amount);
      expect(moneyText(amount, decimalsOf([amount]))).toBe(moneyText(amount));
    }),
  );
});

test("a chart's scale holds its largest amount, in at most six even steps", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 63n }), (largest) => {
      const scale = scaleOf(largest);
      expect(scale[0]).toBe(0n);
      expect((scale.at(-1) ?? -1n) >= largest).toBe(true);
      expect(scale.length).toBeGreaterThan(1);
      expect(scale.length).toBeLessThanOrEqual(7);
      expect(new Set(scale.slice(1).map((line, index) => line - (scale[index] ?? 0n))).size).toBe(1);
    }),
  );
});

describe("spans are whole intervals, in UTC, up to the running one", () => {
  const nowMs = Date.UTC(2026, 2, 31, 23, 59, 59, 999);
  test.each([
    ["day", "hour", "2026-03-31T00:00:00.000Z", "2026-04-01T00:00:00.000Z", 24],
    ["week", "day", "2026-03-25T00:00:00.000Z", "2026-04-01T00:00:00.000Z", 7],
    ["week", "hour", "2026-03-25T00:00:00.000Z", "2026-04-01T00:00:00.000Z", 168],
    ["month", "day", "2026-03-02T00:00:00.000Z", "2026-04-01T00:00:00.000Z", 30],
    ["this-month", "day", "2026-03-01T00:00:00.000Z", "2026-04-01T00:00:00.000Z", 31],
    ["last-month", "day", "2026-02-01T00:00:00.000Z", "2026-03-01T00:00:00.000Z", 28],
  ] as const)("%s by %s", (range, each, start, end, count) => {
    const span = spanOf({ range, each }, nowMs);
    expect([new Date(span.startMs).toISOString(), new Date(span.endMs).toISOString()]).toEqual([start, end]);
    expect(span.intervals).toHaveLength(count);
    expect(span.intervals[0]).toBe(span.startMs);
  });
});

test("an address comes back as it was written, whatever names are in it", () => {
  const name = fc.option(fc.string({ unit: "binary" }), { nil: undefined });
  fc.assert(
    fc.property(name, name, name, (group, session, turn) => {
      const named = Object.fromEntries(
        Object.entries({ group, session, turn }).filter(([, value]) => value !== undefined),
      );
      const address = { range: "week", each: "hour", by: "use_case", ...named } as const;
      expect(parseCostsAddress(formatCostsAddress(address))).toEqual(address);
    }),
  );
});

test.each(["", "#/sessions/costs", "#/costs2", "#/costs/x"])("%j is no address of the Costs page", (hash) => {
  expect(parseCostsAddress(hash)).toBeUndefined();
});

test("what an address says wrongly is as if it said nothing", () => {
  expect(parseCostsAddress("#/costs?range=year&each=hour&by=price")).toEqual({
    range: "day",
    each: "hour",
    by: "team",
  });
  expect(parseCostsAddress("#/costs?range=month&each=hour")?.each).toBe("day");
});

test("a line of CSV quotes what would break it, and takes the sting out of formulas", () => {
  const row = create(UsageRecordSchema, {
    recordId: "r",
    userId: '=HYPERLINK("http://x")',
    useCase: "a,b\nc",
    agent: "@x",
    costMicroUsd: -1_000_001n,
    holdTime: timestampFromMs(0),
  });
  const line = csvLine(row);
  expect(line).toContain(`"'=HYPERLINK(""http://x"")"`);
  expect(line).toContain('"a,b\nc"');
  expect(line).toContain(",'@x,");
  // Amounts are numbers: differences stay negative ones.
  expect(line).toContain(",-1000001,-1.000001,");
  expect(line.startsWith("1970-01-01T00:00:00.000Z,r,")).toBe(true);
  expect(csvHead.split(",")).toHaveLength(21);
});
