import { setTimeout as sleep } from "node:timers/promises";
import type { Tool } from "../../src/engine/tool.ts";
import { writeRecord } from "./record.ts";

/** So long a tool works, in milliseconds: long enough to be killed amid it. */
const WORK_MS = 60;

/** Tools that write down each call before they work: `once` may not be repeated, `again` may. */
export function recordingTools(file: string): ReadonlyMap<string, Tool> {
  const tool = (name: string, idempotent: boolean): Tool => ({
    name,
    description: `Works for a moment, ${idempotent ? "as often as you like" : "once"}.`,
    parameters: { type: "object", properties: {}, additionalProperties: false },
    idempotent,
    async call(_argumentsJson, { id, signal }) {
      writeRecord(file, { kind: "tool", tool: name, id, atMs: Date.now() });
      await sleep(WORK_MS, undefined, { signal });
      return toolResult(name, id);
    },
  });
  return new Map([tool("once", false), tool("again", true)].map((one) => [one.name, one]));
}

/** What a tool says of a call. */
export function toolResult(tool: string, id: string): string {
  return `${tool} ran as ${id}`;
}
