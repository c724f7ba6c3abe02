import * as z from "zod";

/** The environment and the configuration file cannot be used; `problems` has one line for each thing to mend. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(
      `The configuration has ${problems.length === 1 ? "a problem" : `${problems.length} problems`}:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
    );
    this.name = "ConfigError";
    this.problems = problems;
  }
}

/** Variables by name; an empty one counts as not set. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** The variables that are set. */
export function givenOf(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
}

/** A whole number from `least` (default 1) to `most`. */
export function wholeNumber({ standard, least = 1, most }: { standard: string; least?: number; most: number }) {
  return z
    .string()
    .default(standard)
    .refine((text) => /^\d{1,15}$/.test(text) && Number(text) >= least && Number(text) <= most, {
      message: `must be a whole number from ${least} to ${most}`,
    })
    .transform(Number);
}

/** A URL of one of some protocols; `rule` says which in words. */
export function urlOf(protocols: RegExp, rule: string) {
  return z
    .string()
    .refine((text) => URL.canParse(text) && protocols.test(new URL(text).protocol), { message: `must be ${rule}` });
}

/** One of some words. */
export function oneOf<const T extends readonly [string, ...string[]]>(standard: string, values: T) {
  return z.enum(values, { error: () => `must be one of ${values.join(", ")}` }).default(standard as T[number]);
}

/** Whether only this machine can reach an address to listen on. */
export function isLoopback(host: string): boolean {
  return ["localhost", "::1"].includes(host) || /^127(\.\d{1,3}){3}$/.test(host);
}
