import type { Tool } from "../engine/tool.ts";

/** What time it is: models do not know. */
const currentTime: Tool = {
  name: "current_time",
  description: "Returns the current date and time in UTC, as ISO 8601.",
  parameters: { type: "object", properties: {}, additionalProperties: false },
  idempotent: true,
  call: async () => new Date().toISOString(),
};

/** Tools that every Parley has. Agents call those that `parley.yaml` allows them. */
export const STANDARD_TOOLS: ReadonlyMap<string, Tool> = new Map([currentTime].map((tool) => [tool.name, tool]));
