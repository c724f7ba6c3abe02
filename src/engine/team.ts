/** An agent as `parley.yaml` declares it. */
export interface AgentDefinition {
  readonly name: string;
  readonly systemMessage: string;
  /** Model name; the configuration routes it to endpoints. */
  readonly model: string;
  /** Sampling temperature, 0 to 2. */
  readonly temperature: number;
}

/** A team of agents as `parley.yaml` declares it. A running turn keeps the definition that it began with. */
export interface TeamDefinition {
  readonly name: string;
  readonly kind: "single";
  readonly agents: readonly [AgentDefinition, ...AgentDefinition[]];
  /** Model calls in a row before the turn ends with MAX_ROUNDS. */
  readonly maxRounds: number;
  /** Text that ends a turn and is stripped from what users see. */
  readonly terminationText: string;
  /** A model call is given up after this many milliseconds. */
  readonly callTimeoutMs: number;
  /** Messages of the history that are read at most, before it is cut to the model's window. */
  readonly historyMessages: number;
  /** Context window of the model in tokens. */
  readonly contextWindowTokens: number;
}
