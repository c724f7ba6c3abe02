/** A property that does not hold, and what shows it. */
export interface Violation {
  readonly property: Property;
  readonly detail: string;
}

/** What must hold of every schedule. */
export const PROPERTIES = {
  gap: "sequences are 1, 2, 3 … to the end",
  duplicate: "no sequence, message, tool call or history entry is there twice",
  unsaid: "what any client saw is in the final log, in the same bytes",
  terminal: "every turn has exactly one terminal event, its log's last",
  text: "deltas less voided text are the message that was completed",
  reply: "a unary reply is what the log says",
  history: "the history is the committed turns, in one lineage and in order",
  "repeated call": "a model call whose result is in the log is not made again",
  "model calls": "calls at the model are those with usage records, and at most one more for each takeover",
  usage: "usage of turns and sessions is the sum of what logs record",
  tool: "a tool that is not idempotent runs at most once, others at least once if they have a result",
  key: "one key is one turn",
  end: "turns end for a reason that the schedule gives",
  cancel: "at most one further text delta after CancelTurn has returned",
  bill: "the ledger is the counters, every call that a model saw has its charge, rows of the provider are its counts, and nothing is held in the end",
  cap: "what is spent and held of a budget is never more than it",
  liveness: "all turns end, and all clients hear of it",
  storage:
    "every key has an end of life; nothing is left of leases and deleted sessions; the gauge counts the sessions",
} as const;

export type Property = keyof typeof PROPERTIES;
