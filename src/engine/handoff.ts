import type { AgentDefinition } from "./team.ts";
import type { ToolSpec } from "./tool.ts";

/** What the name of a tool that hands over begins with (AutoGen's word). */
const HANDOFF_PREFIX = "transfer_to_";

/** Hand-offs of an agent, as tools that its model is told of. */
export function handoffTools({ handoffs = [] }: AgentDefinition): ToolSpec[] {
  return handoffs.map(({ to, description }) => ({
    name: `${HANDOFF_PREFIX}${to}`,
    description: `Hands the conversation over to ${to}.${description === "" ? "" : ` ${description}`}`,
    parameters: { type: "object", properties: {}, additionalProperties: false },
  }));
}

/** The agent that a call hands over to; undefined: it is no hand-off that the agent has. */
export function handoffOf(tool: string, { handoffs = [] }: AgentDefinition): string | undefined {
  return handoffs.find(({ to }) => tool === `${HANDOFF_PREFIX}${to}`)?.to;
}
