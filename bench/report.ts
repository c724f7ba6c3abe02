import type { RedisTraffic } from "./bench-targets.ts";
import {
  type AccountsMeasurement,
  type LoadKind,
  type LoadMeasurement,
  type ReadersMeasurement,
  ratiosOf,
} from "./measurements.ts";
import type { SidecarMeasurement } from "./sidecar-measurements.ts";

/** All that a run measured. */
export interface Measured {
  readonly rounds: number;
  readonly durationMs: number;
  readonly loads: Record<LoadKind, { bare: LoadMeasurement[]; parley: LoadMeasurement[] }>;
  /** What a turn asks of Redis, by the session's messages. */
  readonly redisTraffic: ReadonlyMap<number, RedisTraffic>;
  readonly readers: ReadersMeasurement;
  readonly accounts: ReadonlyMap<LoadKind, AccountsMeasurement>;
  readonly sidecar: SidecarMeasurement;
  readonly callsPerMessage: number;
  /** Resident bytes of an idle stream, by the number of streams. */
  readonly idleBytes: Record<"bare" | "parley", ReadonlyMap<number, number>>;
}

interface Row {
  readonly figure: string;
  readonly value: string;
  readonly mark?: { readonly text: string; readonly isMet: boolean };
}

/** The table in Markdown, with the marks of the first release (DESIGN §8). */
export function renderReport(measured: Measured): string {
  const rows = [
    ...loadRows(measured),
    ...readersRows(measured),
    ...accountsRows(measured),
    ...sidecarRows(measured),
    ...idleRows(measured),
    ...redisRows(measured),
  ];
  return [
    `${measured.rounds} rounds of ${measured.durationMs / 1_000} s, 64 clients; Parley ÷ bare is the median of the rounds' ratios (lowest to highest).`,
    "",
    "| figure | Parley ÷ bare | mark |",
    "|---|---|---|",
    ...rows.map(({ figure, value, mark }) => `| ${figure} | ${value} | ${mark ? renderMark(mark) : ""} |`),
  ].join("\n");
}

function renderMark({ text, isMet }: { text: string; isMet: boolean }): string {
  return `${text}: ${isMet ? "met" : "**not met**"}`;
}

function loadRows({ loads }: Measured): Row[] {
  const row = (
    figure: string,
    {
      of: kind,
      key,
      mark,
    }: { of: LoadKind; key: keyof LoadMeasurement; mark?: { atLeast: number } | { atMost: number } },
  ): Row => {
    const ratio = ratiosOf(key, loads[kind]);
    const value = `${ratio.median.toFixed(2)} (${ratio.lowest.toFixed(2)} to ${ratio.highest.toFixed(2)})`;
    if (!mark) return { figure, value };
    if ("atLeast" in mark) {
      return { figure, value, mark: { text: `≥ ${mark.atLeast.toFixed(2)}`, isMet: ratio.median >= mark.atLeast } };
    }
    return { figure, value, mark: { text: `≤ ${mark.atMost.toFixed(2)}`, isMet: ratio.median <= mark.atMost } };
  };
  return [
    row("unary turns/s", { of: "unary", key: "turnsPerSecond" }),
    row("streams/s, as fast as they come", { of: "burst", key: "turnsPerSecond", mark: { atLeast: 2 } }),
    row("streams/s, paced at 10 ms", { of: "paced", key: "turnsPerSecond" }),
    row("time to first token, median, as fast as they come", {
      of: "burst",
      key: "firstTextMedianMs",
      mark: { atMost: 1 },
    }),
    row("time to first token, 95th percentile, as fast as they come", { of: "burst", key: "firstTextP95Ms" }),
    row("time to first token, median, paced at 10 ms", { of: "paced", key: "firstTextMedianMs", mark: { atMost: 1 } }),
    row("time to first token, 95th percentile, paced at 10 ms", { of: "paced", key: "firstTextP95Ms" }),
    row("server CPU per turn, unary", { of: "unary", key: "cpuMsPerTurn" }),
    row("server CPU per turn, as fast as they come", { of: "burst", key: "cpuMsPerTurn" }),
    row("server CPU per turn, paced at 10 ms", { of: "paced", key: "cpuMsPerTurn" }),
  ];
}

function idleRows({ idleBytes }: Measured): Row[] {
  return [...idleBytes.parley].map(([count, bytes]) => {
    const bare = idleBytes.bare.get(count) ?? Number.NaN;
    return {
      figure: `memory per idle stream at ${count.toLocaleString("en")}`,
      value: `${kilobytes(bytes)} against ${kilobytes(bare)}: ${(bytes / bare).toFixed(2)}`,
    };
  });
}

function readersRows({ readers }: Measured): Row[] {
  const rows = [...readers.events].map(([count, share]): Row => {
    const figure = `events/s to ${count} ${count === 1 ? "reader" : "readers"} of each turn on another replica ÷ to its own caller alone`;
    return { figure, value: share.toFixed(2) };
  });
  return [
    {
      figure: "resume of a running turn on another replica ÷ begin of a turn, time to the first event, median",
      value: readers.resumeLatency.toFixed(2),
    },
    ...rows,
  ];
}

const LOAD_NAMES: Record<LoadKind, string> = {
  unary: "unary",
  burst: "as fast as they come",
  paced: "paced at 10 ms",
};

function accountsRows({ accounts }: Measured): Row[] {
  return [...accounts].flatMap(([kind, { cpu, throughput }]): Row[] => [
    {
      figure: `server CPU per turn with accounts ÷ without, ${LOAD_NAMES[kind]}`,
      value: cpu.toFixed(2),
      mark: { text: `≤ ${ACCOUNTS_MARK.toFixed(2)}`, isMet: cpu <= ACCOUNTS_MARK },
    },
    { figure: `turns/s without accounts ÷ with them, ${LOAD_NAMES[kind]}`, value: throughput.toFixed(2) },
  ]);
}

/** What accounts may make of a turn's cost. */
const ACCOUNTS_MARK = 1.15;

function sidecarRows({ sidecar }: Measured): Row[] {
  const { rowsPerSecond, lagSeconds, streamsBeside } = sidecar;
  return [
    { figure: "ledger rows/s that one sidecar applies", value: rowsPerSecond.toFixed(0) },
    {
      figure: "the ledger's lag at full load, median and most",
      value: `${lagSeconds.median.toFixed(2)} s, ${lagSeconds.most.toFixed(2)} s`,
    },
    { figure: "streams/s beside a sidecar ÷ without one, as fast as they come", value: streamsBeside.toFixed(2) },
  ];
}

function redisRows({ redisTraffic, callsPerMessage }: Measured): Row[] {
  const [young = Number.NaN] = [...redisTraffic.values()].map(({ bytes }) => bytes);
  const rows = [...redisTraffic].flatMap(([messages, { bytes, roundTrips }]): Row[] => {
    const at = `at ${messages.toLocaleString("en")} messages`;
    const isFlat = bytes <= young * FLAT;
    return [
      {
        figure: `Redis bytes per turn ${at}`,
        value: `${kilobytes(bytes)}`,
        ...(bytes === young ? {} : { mark: { text: "no more than young", isMet: isFlat } }),
      },
      { figure: `Redis round trips per turn ${at}`, value: roundTrips.toFixed(1) },
    ];
  });
  const isOnce = callsPerMessage === 1;
  return [
    ...rows,
    { figure: "model calls per message", value: String(callsPerMessage), mark: { text: "1", isMet: isOnce } },
  ];
}

/** A lease that is renewed amid the measurement, or a longer number, is no growth. */
const FLAT = 1.05;

function kilobytes(bytes: number): string {
  return `${(bytes / 1_000).toFixed(1)} kB`;
}
