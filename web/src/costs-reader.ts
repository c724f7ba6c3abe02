import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import type { Budget } from "../../gen/parley/usage/v1/budget_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { UsageDimension, UsageInterval, type UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { type Cell, createCell } from "./cell.ts";
import type { CostDimension, CostsAddress } from "./costs-address.ts";
import { csvHead, csvLine } from "./costs-csv.ts";
import { spanOf, type TimeSpan } from "./costs-range.ts";
import { type CostsSummary, summaryOf } from "./costs-sums.ts";
import { type Problem, problemOf } from "./problem.ts";

/** Reads what the Costs page shows. */
export interface CostsReader {
  readonly state: Cell<CostsState>;
  /** Reads what an address shows; what was being read for another one is given up. */
  show(address: CostsAddress): Promise<void>;
  /** The ledger's rows of what an address shows, as CSV. Undefined: they could not be read, and the state has the problem. */
  csv(address: CostsAddress): Promise<Blob | undefined>;
  /** Gives up what is being read. */
  leave(): void;
}

export interface CostsState {
  /** What is shown; absent before anything was read. */
  readonly shown?: ShownCosts;
  readonly loading: boolean;
  /** Ledger rows looked at so far, where rows are read. */
  readonly rowsRead: number;
  readonly problem?: Problem;
}

export interface ShownCosts {
  readonly address: CostsAddress;
  readonly span: TimeSpan;
  /** By groups, or by sessions of one group. */
  readonly summary?: CostsSummary;
  /** Rows of a session or of a turn, oldest first. */
  readonly rows?: readonly UsageRecord[];
  /** Of the whole tenant; where groups are shown. */
  readonly budgets?: readonly Budget[];
}

/** The row's value that each dimension groups by. */
const dimensionOf: Readonly<Record<CostDimension, (row: UsageRecord) => string>> = {
  team: (row) => row.team,
  user: (row) => row.userId,
  use_case: (row) => row.useCase,
  agent: (row) => row.agent,
  model: (row) => row.model,
  version: (row) => row.version,
};

const DIMENSIONS: Readonly<Record<CostDimension, UsageDimension>> = {
  team: UsageDimension.TEAM,
  user: UsageDimension.USER,
  use_case: UsageDimension.USE_CASE,
  agent: UsageDimension.AGENT,
  model: UsageDimension.MODEL,
  version: UsageDimension.VERSION,
};

/** How often the number of rows that were read is told, in rows. */
const TELL_EACH_ROWS = 5_000;

export function createCostsReader({ usage }: { usage: Client<typeof UsageService> }): CostsReader {
  const state = createCell<CostsState>({ loading: false, rowsRead: 0 });
  let reading = new AbortController();

  const read = async (address: CostsAddress, signal: AbortSignal): Promise<ShownCosts> => {
    const span = spanOf(address, Date.now());
    const { by, group } = address;
    if (address.session !== undefined || address.turn !== undefined) {
      const rows: UsageRecord[] = [];
      for await (const row of rowsOf(address, span, signal)) rows.push(row);
      return { address, span, rows };
    }
    const groupBy = group === undefined ? [DIMENSIONS[by]] : [DIMENSIONS[by], UsageDimension.SESSION];
    const interval = address.each === "hour" ? UsageInterval.HOUR : UsageInterval.DAY;
    const [{ groups }, budgets] = await Promise.all([
      usage.queryUsage({ ...timesOf(span), groupBy, interval, filters: filtersOf(address) }, { signal }),
      group === undefined ? usage.listBudgets({}, { signal }).then((answer) => answer.budgets) : undefined,
    ]);
    // A sidecar of a release before filters says all there is.
    const wanted = groups.filter(({ values }) => group === undefined || values[0] === group);
    const summary = summaryOf(wanted, ({ values }) => values[group === undefined ? 0 : 1] ?? "");
    return { address, span, summary, ...(budgets === undefined ? {} : { budgets }) };
  };

  async function* rowsOf(address: CostsAddress, span: TimeSpan, signal: AbortSignal): AsyncGenerator<UsageRecord> {
    const { by, group, session, turn } = address;
    let rowsRead = 0;
    for await (const { record } of usage.exportUsage({ ...timesOf(span), filters: filtersOf(address) }, { signal })) {
      rowsRead += 1;
      if (rowsRead % TELL_EACH_ROWS === 0) state.set({ ...state.get(), rowsRead });
      if (record === undefined) continue;
      // Of a turn the service knows the session only; of a release before filters, nothing.
      const isShown =
        (group === undefined || dimensionOf[by](record) === group) &&
        (session === undefined || record.sessionId === session) &&
        (turn === undefined || record.turnId === turn);
      if (isShown) yield record;
    }
  }

  return {
    state,
    async show(address) {
      reading.abort();
      reading = new AbortController();
      const { signal } = reading;
      const { shown } = state.get();
      state.set({ ...(shown === undefined ? {} : { shown }), loading: true, rowsRead: 0 });
      try {
        const next = await read(address, signal);
        if (!signal.aborted) state.set({ shown: next, loading: false, rowsRead: 0 });
      } catch (error) {
        if (!signal.aborted) state.set({ loading: false, rowsRead: 0, problem: costsProblemOf(error) });
      }
    },
    async csv(address) {
      const { signal } = reading;
      const lines = [csvHead];
      try {
        for await (const row of rowsOf(address, spanOf(address, Date.now()), signal)) lines.push(csvLine(row));
        return new Blob(lines, { type: "text/csv" });
      } catch (error) {
        if (!signal.aborted) state.set({ ...state.get(), problem: costsProblemOf(error) });
        return undefined;
      }
    },
    leave: () => reading.abort(),
  };
}

function timesOf({ startMs, endMs }: TimeSpan) {
  return { startTime: timestampFromMs(startMs), endTime: timestampFromMs(endMs) };
}

/** What the service leaves out, so that the way down does not read all that was spent. */
function filtersOf({ by, group, session }: CostsAddress) {
  return [
    ...(group === undefined ? [] : [{ dimension: DIMENSIONS[by], values: [group] }]),
    ...(session === undefined ? [] : [{ dimension: UsageDimension.SESSION, values: [session] }]),
  ];
}

function costsProblemOf(error: unknown): Problem {
  const problem = problemOf(error);
  switch (problem.reason) {
    case "ROLE_MISSING":
      return { ...problem, sentence: "You may not see what was spent. Ask for the role usage:read." };
    case "UNKNOWN_METHOD":
      return {
        ...problem,
        sentence: "What was spent is not told at this address.",
        advice: ["The sidecar knows it: whoever runs the service can lead /parley.usage.v1. to it."],
      };
    default:
      return problem;
  }
}
