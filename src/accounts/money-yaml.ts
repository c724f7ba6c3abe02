import { parse } from "yaml";
import * as z from "zod";
import type { ConfiguredBudget } from "./budgets.ts";
import { budgetsYamlSchema, readBudgets } from "./budgets-yaml.ts";
import { type ConfiguredPrices, pricesYamlSchema, readPrices } from "./prices-yaml.ts";

/** What parley.yaml says of money. */
export interface MoneyYaml {
  readonly prices: ConfiguredPrices;
  readonly budgets: readonly ConfiguredBudget[];
  /** Models that the file names. */
  readonly models: readonly string[];
}

const named = z.record(z.string(), z.looseObject({ model: z.string().optional() }).nullish()).nullish();
const schema = z.looseObject({ prices: pricesYamlSchema, budgets: budgetsYamlSchema, agents: named, models: named });

/** Reads the sections of parley.yaml that processes without agents need; the others are the service's to check. */
export function parseMoneyYaml(text: string, fileName: string): { value?: MoneyYaml; problems: string[] } {
  let file: unknown;
  try {
    file = parse(text);
  } catch {
    return { problems: [`${fileName}: is no YAML`] };
  }
  const { data, error } = schema.safeParse(file ?? {});
  if (data === undefined) {
    return {
      problems: error.issues.map(({ path, message }) => `${fileName}: ${path.map(String).join(".")}: ${message}`),
    };
  }
  const ofAgents = Object.values(data.agents ?? {}).flatMap((agent) => agent?.model ?? []);
  const models = [...new Set([...Object.keys(data.models ?? {}), ...ofAgents])];
  return { value: { prices: readPrices(data.prices), budgets: readBudgets(data.budgets), models }, problems: [] };
}
