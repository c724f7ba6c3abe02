import { createSecureContext } from "node:tls";

/** A certificate chain and its key, both PEM. */
export interface TlsPair {
  readonly cert: string;
  readonly key: string;
}

/** A certificate that is read again when its files change. */
export interface TlsFiles {
  /** The newest pair that fits together. */
  current(): TlsPair;
  /** Calls back with each new pair; returns how to stop. */
  onChange(listener: (pair: TlsPair) => void): () => void;
  /** Looks no more. */
  stop(): void;
}

/**
 * Reads a certificate and its key, and looks for new ones now and then: by their content, for mounted secrets change by
 * swapped links that no file watcher tells of reliably. What cannot be read or does not fit together, as amid a change, is
 * told to `onProblem` once and tried again; meanwhile the old pair stands. Throws a sentence when there is no pair at all.
 *
 * @param intervalMs Pause between two looks. Default 2,000: certificates are renewed days before they end.
 */
export function watchTlsFiles({
  certPath,
  keyPath,
  readFile,
  onProblem,
  intervalMs = 2_000,
}: {
  certPath: string;
  keyPath: string;
  /** Reads a text file; throws when it cannot. */
  readFile(path: string): string;
  onProblem(sentence: string): void;
  intervalMs?: number;
}): TlsFiles {
  const listeners = new Set<(pair: TlsPair) => void>();
  const read = (): TlsPair => ({ cert: readFile(certPath), key: readFile(keyPath) });
  let current = read();
  const problem = problemOf(current);
  if (problem !== undefined) throw new Error(`TLS_CERT and TLS_KEY cannot be used: ${problem}.`);
  let told = "";

  const look = (): void => {
    const next = readOrNothing();
    if (next === undefined) {
      tell("the certificate or its key cannot be read; the old one stays");
    } else if (next.cert === current.cert && next.key === current.key) {
      told = "";
    } else {
      const wrong = problemOf(next);
      if (wrong === undefined) change(next);
      else tell(`the new certificate cannot be used: ${wrong}; the old one stays`);
    }
  };
  const readOrNothing = (): TlsPair | undefined => {
    try {
      return read();
    } catch {
      return undefined;
    }
  };
  const change = (next: TlsPair): void => {
    told = "";
    current = next;
    for (const listener of listeners) listener(next);
  };
  const tell = (sentence: string): void => {
    if (sentence === told) return;
    told = sentence;
    onProblem(sentence);
  };
  const timer = setInterval(look, intervalMs);
  timer.unref();
  return {
    current: () => current,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    stop: () => clearInterval(timer),
  };
}

/** Why a pair cannot be served; undefined: it can. OpenSSL's own text names no content. */
function problemOf(pair: TlsPair): string | undefined {
  try {
    createSecureContext({ ...pair });
    return undefined;
  } catch (error) {
    return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "not a PEM pair";
  }
}
