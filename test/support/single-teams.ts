/**
 * Agents of parley.yaml, each with a team of kind `single` that has its name. JSON is YAML. Simulated models that tell long
 * stories have a window for them: as their tokenizer is unknown, each byte is a token.
 */
export function singleTeams<Agent extends { readonly model?: string }>(agents: Readonly<Record<string, Agent>>) {
  const teams = Object.fromEntries(Object.keys(agents).map((agent) => [agent, { kind: "single", agent }]));
  const tellers = Object.values(agents).flatMap(({ model = "" }) => (/^sim-\d+x\d+$/.test(model) ? [model] : []));
  const models = Object.fromEntries(
    tellers.map((model) => [model, { context_window_tokens: 1_000_000, endpoints: [{}] }]),
  );
  return { agents, teams, models };
}
