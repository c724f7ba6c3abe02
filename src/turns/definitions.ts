import type { Model } from "../engine/model.ts";
import type { TeamDefinition } from "../engine/team.ts";
import type { ToolBox } from "../engine/tool.ts";

/** Agent teams, and the models and tools that their agents call. Never changed: others take their place. */
export interface Definitions {
  /** Teams by name. */
  readonly teams: ReadonlyMap<string, TeamDefinition>;
  readonly defaultTeam: string;
  readonly model: Model;
  readonly tools: ToolBox;
  /** Keeps models and tools in use when others have taken their place; returns how to let go of them, once. */
  hold(): () => void;
}

/** The definitions that hold now: whoever begins a turn asks for them, and the turn keeps them to its end. */
export interface CurrentDefinitions {
  readonly current: Definitions;
}

/** Definitions that hold for as long as the process runs. */
export function fixedDefinitions(definitions: Omit<Definitions, "hold">): CurrentDefinitions {
  return { current: { ...definitions, hold: () => () => undefined } };
}
