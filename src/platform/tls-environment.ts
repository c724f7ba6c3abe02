import * as z from "zod";
import type { Environment } from "./environment.ts";

/** Where the certificate and its key are. */
export interface TlsConfig {
  readonly certPath: string;
  readonly keyPath: string;
}

/** The variables of TLS, for the table of a process's environment. */
export const tlsVariables = {
  TLS_CERT: {
    default: "",
    meaning: "path of a certificate chain (PEM); the port then speaks TLS, and the file is read again when it changes",
  },
  TLS_KEY: { default: "", meaning: "path of the certificate's key (PEM)" },
} as const;

/** Their rules. */
export const tlsEnvironment = { TLS_CERT: z.string().optional(), TLS_KEY: z.string().optional() } as const;

/** What is wrong with them together, a line each. */
export function tlsProblems(given: Environment, readFile: (path: string) => string): string[] {
  const { TLS_CERT, TLS_KEY } = given;
  if (TLS_CERT === undefined && TLS_KEY === undefined) return [];
  if (TLS_KEY === undefined) return ["TLS_CERT: needs TLS_KEY too"];
  if (TLS_CERT === undefined) return ["TLS_KEY: needs TLS_CERT too"];
  return Object.entries({ TLS_CERT, TLS_KEY }).flatMap(([name, path]) => {
    try {
      readFile(path);
      return [];
    } catch {
      return [`${name}: cannot read ${path}`];
    }
  });
}

/** What they say, once they have no problem; undefined: no TLS. */
export function readTls(values: {
  TLS_CERT?: string | undefined;
  TLS_KEY?: string | undefined;
}): TlsConfig | undefined {
  const { TLS_CERT: certPath, TLS_KEY: keyPath } = values;
  return certPath === undefined || keyPath === undefined ? undefined : Object.freeze({ certPath, keyPath });
}
