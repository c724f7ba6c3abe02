import { appendFileSync, existsSync, readFileSync } from "node:fs";

/** What replicas write down of what they do: in a file, which outlives whoever is killed. */
export type RecordLine = ToolLine | OwnerLine;

export interface ToolLine {
  readonly kind: "tool";
  readonly tool: string;
  /** Id of the call, as the tool got it: `<turn>/<call>/<attempt>`. */
  readonly id: string;
  readonly atMs: number;
}

/** A replica has got the lease of a turn. */
export interface OwnerLine {
  readonly kind: "owner";
  readonly turnId: string;
  readonly epoch: number;
  readonly replica: number;
  /** It was another's before. */
  readonly takeover: boolean;
  /** When it asked for it. */
  readonly atMs: number;
}

/** Written before anything else happens: synchronously. */
export function writeRecord(file: string, line: RecordLine): void {
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

export function readRecord(file: string): RecordLine[] {
  if (!existsSync(file)) return [];
  // A line of a process that was killed amid it is none.
  return readFileSync(file, "utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as RecordLine);
}
