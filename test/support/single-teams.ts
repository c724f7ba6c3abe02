/** Agents of parley.yaml, each with a team of kind `single` that has its name. JSON is YAML. */
export function singleTeams<Agent extends object>(agents: Readonly<Record<string, Agent>>) {
  const teams = Object.fromEntries(Object.keys(agents).map((agent) => [agent, { kind: "single", agent }]));
  return { agents, teams };
}
