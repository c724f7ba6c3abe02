import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { AgentDefinition } from "./team.ts";
import type { ToolSpec } from "./tool.ts";
import type { TurnEnd, TurnPorts } from "./turn.ts";

/** The name of the person among a team's members (AutoGen's word). */
export const PERSON = "user_proxy";

/** What the person is asked where nothing was said before. */
const DEFAULT_QUESTION = "What do you say?";

/** The tool by which agents of a team with `human_input` ask the person. */
const ASK_TOOL: ToolSpec = {
  name: "ask_user",
  description: "Asks the user a question and waits for the answer. Use it only for what you need in order to go on.",
  parameters: {
    type: "object",
    properties: { question: { type: "string", description: "The question, as the user is to read it." } },
    required: ["question"],
    additionalProperties: false,
  },
};

/** What the model is told of a question that is none. */
export const NO_QUESTION = "The arguments have no question. The user was not asked.";

/** The person as a member of a team, where it is one. */
export function personBeside({ model, contextWindowTokens }: AgentDefinition): AgentDefinition {
  const description = "The user, a person, who answers in their own words.";
  const none = { systemMessage: "", temperature: 0, tools: [] };
  return { name: PERSON, description, model, contextWindowTokens, isPerson: true, ...none };
}

/** The tool to ask the person with, of an agent that may. */
export function askTools({ asksPerson = false }: AgentDefinition): ToolSpec[] {
  return asksPerson ? [ASK_TOOL] : [];
}

/** Whether a tool call is a question to the person. */
export function isQuestion(tool: string, { asksPerson = false }: AgentDefinition): boolean {
  return asksPerson && tool === ASK_TOOL.name;
}

/** The question of a call; undefined: it has none. */
export function questionOf(argumentsJson: string): string | undefined {
  try {
    const value: unknown = JSON.parse(argumentsJson);
    const question = typeof value === "object" && value !== null && "question" in value ? value.question : undefined;
    return typeof question === "string" && question.trim() !== "" ? question : undefined;
  } catch {
    return undefined;
  }
}

/** Ends a turn with a question; empty: with a standard one. What it says has been said. */
export function askPerson(
  { id, agent, prompt }: { id: string; agent: string; prompt: string },
  { emit }: Pick<TurnPorts, "emit">,
): TurnEnd {
  emit({ case: "inputRequired", value: { agent, prompt: prompt || DEFAULT_QUESTION } });
  return { finishReason: FinishReason.INPUT_REQUIRED, questions: [id] };
}
