import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

// Debian's Redis gets its memory from jemalloc, which asks for the time before libfaketime can tell it: libc's goes first.
const LIBC = "libc.so.6";
const LIBRARY = ["x86_64", "aarch64"]
  .map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketime.so.1`)
  .find((path) => existsSync(path));

/** A clock that can be set; processes get it by their environment. Gone when the test has finished. */
export interface LyingClock {
  /** A time such as `@2026-11-30 23:59:50`, from which on it runs, or a distance to the real time such as `+3600`. */
  set(time: string): void;
  readonly env: Readonly<Record<string, string>>;
}

/** Starts a clock that shows a time, as `set` takes it. Needs Debian's faketime. */
export function startLyingClock(at: string): LyingClock {
  if (LIBRARY === undefined) throw new Error("There is no libfaketime: `make tools` brings it.");
  const folder = mkdtempSync(join(tmpdir(), "parley-clock-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "time");
  writeFileSync(file, at);
  return {
    set: (time) => writeFileSync(file, time),
    env: {
      TZ: "UTC",
      LD_PRELOAD: `${LIBRARY}:${LIBC}`,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    },
  };
}
