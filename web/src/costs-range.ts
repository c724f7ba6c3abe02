import type { CostsAddress } from "./costs-address.ts";

/** A span of time in whole intervals, UTC, as the ledger's are. */
export interface TimeSpan {
  readonly startMs: number;
  /** Exclusive; the running interval is whole. */
  readonly endMs: number;
  /** When each interval begins. */
  readonly intervals: readonly number[];
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** The span that an address means now. */
export function spanOf({ range, each }: Pick<CostsAddress, "range" | "each">, nowMs: number): TimeSpan {
  const lengthMs = each === "hour" ? HOUR_MS : DAY_MS;
  const now = new Date(nowMs);
  const monthStart = (later: number): number => Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + later);
  const nextMs = (Math.floor(nowMs / lengthMs) + 1) * lengthMs;
  const [startMs, endMs] = {
    day: [nextMs - DAY_MS, nextMs],
    week: [nextMs - 7 * DAY_MS, nextMs],
    month: [nextMs - 30 * DAY_MS, nextMs],
    "this-month": [monthStart(0), nextMs],
    "last-month": [monthStart(-1), monthStart(0)],
  }[range] as [number, number];
  const intervals = Array.from(
    { length: Math.round((endMs - startMs) / lengthMs) },
    (_, index) => startMs + index * lengthMs,
  );
  return { startMs, endMs, intervals };
}

/** `14:00` or `24 Nov`, UTC: what stands below a bar. */
export function shortTime(startMs: number, each: "hour" | "day"): string {
  return (each === "hour" ? HOUR : DAY).format(startMs);
}

/** `24 Nov, 14:00`: an hour with its day, or a day. */
export function intervalText(startMs: number, each: "hour" | "day"): string {
  return each === "hour" ? `${DAY.format(startMs)}, ${HOUR.format(startMs)}` : DAY.format(startMs);
}

/** `24 Nov, 14:03:22`. */
export function momentText(ms: number): string {
  return `${DAY.format(ms)}, ${SECOND.format(ms)}`;
}

const UTC = { timeZone: "UTC", hourCycle: "h23" } as const;
const HOUR = new Intl.DateTimeFormat("en-GB", { ...UTC, hour: "2-digit", minute: "2-digit" });
const SECOND = new Intl.DateTimeFormat("en-GB", { ...UTC, hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { ...UTC, day: "numeric", month: "short" });
