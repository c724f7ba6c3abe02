/** What is out of the ordinary in what somebody spends. */
export const ANOMALY_KINDS = ["token_burst", "prompt_growth", "call_loop"] as const;
export type AnomalyKind = (typeof ANOMALY_KINDS)[number];

/** Somebody whose history is kept. */
export interface Subject {
  readonly scope: "user" | "session";
  readonly id: string;
}

/** Something above its floor, to be held against the subject's history. */
export interface Suspicion {
  readonly kind: AnomalyKind;
  readonly subject: Subject;
  /** The session to look at. */
  readonly sessionId: string;
  /** What it is about: the start of the time (ms) for a burst, the turn for a loop; else empty. */
  readonly at: string;
  /** Tokens in that time, calls of that turn, or tokens of the last prompt. */
  readonly value: number;
}

/** Lengths of time, in milliseconds. */
export const WATCH_MS = {
  /** Tokens are summed over so long: short enough to be told of within minutes. */
  bucket: 5 * 60_000,
  /** What is held against: so much, and until so long before, so that a burst is not its own history. */
  history: 6 * 3_600_000,
  offset: 15 * 60_000,
  /** A suspicion that was raised is not raised again for so long, and stays open. */
  open: 15 * 60_000,
} as const;

/** Above this many times the 95th percentile of the history it is an anomaly. */
const FACTOR = 4;

/** Fewer points are no history. */
const FEWEST_POINTS = 3;

/**
 * Below `floor` nothing is an anomaly, however little there was before; above `ceiling` everything is, for whoever is new
 * has no history. Each is of one user or one session, in one bucket or turn. With the default of 4,000 tokens for a turn the
 * floor of a burst is a dozen full turns in five minutes. The ceiling of a loop is above the default of 20 rounds.
 */
export const LIMITS = {
  token_burst: { floor: 50_000, ceiling: 250_000 },
  call_loop: { floor: 8, ceiling: 30 },
} as const;

/**
 * A session's prompts grow without replies when call follows call with a larger prompt, and each time what the model said is
 * less than a tenth of what the prompt then grew by: something else fills it. So many calls, so many times the first
 * prompt, and so many tokens more than it.
 */
export const GROWTH = { calls: 5, factor: 4, tokens: 4_000, replyShare: 10 } as const;

/** Whether something above its floor is an anomaly for this subject. `history`: earlier values of the same kind, in no order. */
export function isAnomaly({ kind, value }: Pick<Suspicion, "kind" | "value">, history: readonly number[]): boolean {
  // Its history is the run itself.
  if (kind === "prompt_growth") return true;
  const { floor, ceiling } = LIMITS[kind];
  if (value >= ceiling) return true;
  if (value < floor || history.length < FEWEST_POINTS) return false;
  return value > FACTOR * percentile95(history);
}

/** Nearest rank. */
function percentile95(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.ceil(sorted.length * 0.95) - 1] ?? 0;
}

/** Of a subject's buckets, by start, those that are history for one of them: with something in them, and of the right time. */
export function historyBefore(buckets: ReadonlyMap<number, number>, startMs: number): number[] {
  const endMs = startMs - WATCH_MS.offset;
  return [...buckets]
    .filter(([atMs, tokens]) => tokens > 0 && atMs < endMs && atMs >= endMs - WATCH_MS.history)
    .map(([, tokens]) => tokens);
}
