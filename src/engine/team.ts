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
  /** Names of the tools that it may call. */
  readonly tools: readonly string[];
  /** Largest number of tokens of one answer of its model; absent: what is left of the turn's. */
  readonly maxOutputTokens?: number;
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
  /** `single`: one agent answers. `round_robin`: the agents speak one after the other until one ends the conversation. */
  readonly kind: "single" | "round_robin";
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
}
