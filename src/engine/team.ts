import type { Guardrails } from "./guardrails.ts";
import type { TerminationDefinition } from "./termination.ts";

/** An agent as `parley.yaml` declares it. */
export interface AgentDefinition {
  readonly name: string;
  readonly systemMessage: string;
  /** Model name; the configuration routes it to endpoints. */
  readonly model: string;
  /** Sampling temperature, 0 to 2. */
  readonly temperature: number;
  /** Context window of the model in tokens. */
  readonly contextWindowTokens: number;
  /** Bound on prompt and completion tokens of all its calls in a turn; it ends the agent, not the turn. Absent: the turn's alone. */
  readonly maxTokens?: number;
  /** Names of the tools that it may call. */
  readonly tools: readonly string[];
  /** Those of them whose calls a person has to approve, each before it is made. Absent: none. */
  readonly approvals?: readonly string[];
  /** Whether it may ask the person, by a tool call. Absent: it may not. */
  readonly asksPerson?: boolean;
  /** Whether it is the person, who is asked in the place of a model. Absent: it is not. */
  readonly isPerson?: boolean;
  /** What it is good at: selectors and agents that hand over choose by it. Absent in turns of releases before 0.6. */
  readonly description?: string;
  /** In a swarm, whom it may hand the conversation to. Absent: nobody. */
  readonly handoffs?: readonly HandoffDefinition[];
  /** Largest number of tokens of one answer of its model; absent: what is left of the turn's. */
  readonly maxOutputTokens?: number;
}

export interface HandoffDefinition {
  /** Name of the agent that takes over. */
  readonly to: string;
  /** That agent's description. */
  readonly description: string;
}

/** How a selector team's manager picks who speaks next. */
export interface SelectorDefinition {
  /** The manager's model. */
  readonly model: string;
  /** Context window of that model in tokens. */
  readonly contextWindowTokens: number;
  /** Its prompt, with {roles}, {participants} and {history} to be filled in. */
  readonly prompt: string;
  /** Calls to make until a choice is valid. */
  readonly maxAttempts: number;
  /** Whether an agent may speak twice in a row. */
  readonly allowRepeatSpeaker: boolean;
}

/** What a caller may want of a team's agents, for one turn. */
export type AgentWishes = {
  /** Stands below each agent's own system message. */
  readonly instructions?: string;
  /** 0 to 2. */
  readonly temperature?: number;
  readonly maxOutputTokens?: number;
};

/** The team with its agents as wished. A turn's record keeps its team, so that whoever takes the turn over goes on with these. */
export function teamAsWished(team: TeamDefinition, { instructions, ...wished }: AgentWishes): TeamDefinition {
  const [first, ...others] = team.agents;
  const asWished = (agent: AgentDefinition): AgentDefinition => ({
    ...agent,
    ...wished,
    ...(instructions === undefined ? {} : { systemMessage: `${agent.systemMessage}\n\n${instructions}`.trim() }),
  });
  return { ...team, agents: [asWished(first), ...others.map(asWished)] };
}

/** A team of agents as `parley.yaml` declares it. A running turn keeps the definition that it began with. */
export interface TeamDefinition {
  readonly name: string;
  /**
   * `single`: one agent answers. `round_robin`: the agents speak one after the other until one ends the conversation.
   * `selector`: a model picks who speaks next. `swarm`: agents hand the conversation to each other.
   */
  readonly kind: "single" | "round_robin" | "selector" | "swarm";
  readonly agents: readonly [AgentDefinition, ...AgentDefinition[]];
  /** Model calls of a turn before it ends with MAX_ROUNDS. */
  readonly maxRounds: number;
  /** Messages of each agent in a turn before it ends with MAX_ROUNDS. */
  readonly maxConsecutiveAutoReply: number;
  /** Text that ends a turn and is stripped from what users see. */
  readonly terminationText: string;
  /** A call to a model or a tool is given up after this many milliseconds. */
  readonly callTimeoutMs: number;
  /** Messages of the history that are read at most, before it is cut to the model's window. */
  readonly historyMessages: number;
  /** When several agents end a turn, beside the termination text and the bounds. Absent: by those alone. */
  readonly termination?: TerminationDefinition;
  /** Checks of what the user and the agents say. Absent: none. */
  readonly guardrails?: Guardrails;
  /** With kind `selector`. */
  readonly selector?: SelectorDefinition;
}
