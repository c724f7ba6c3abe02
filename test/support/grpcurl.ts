import { execFile } from "node:child_process";
import { access, mkdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** The newest release when this was written; pinned, so that its output does not change under the tests. */
const VERSION = "v1.9.4";

/** Where the binary is kept between runs and checkouts: building it takes a minute or more. */
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "parley/grpcurl", VERSION);

export interface GrpcurlResult {
  /** 0: the call went well; else 64 and the status code. */
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * The path of grpcurl's binary, which is built first where it is missing: it is a Go module, not a Debian package.
 * `make test` runs this file to have it built before a test waits for it.
 */
export async function grpcurlPath(): Promise<string> {
  const binary = join(CACHE, "grpcurl");
  if (await exists(binary)) return binary;
  // Several workers may build at a time; each renames what it has built, and the last one wins.
  const folder = `${CACHE}.${process.pid}.${crypto.randomUUID()}`;
  await mkdir(folder, { recursive: true });
  try {
    await promisify(execFile)("go", ["install", `github.com/fullstorydev/grpcurl/cmd/grpcurl@${VERSION}`], {
      env: { ...process.env, GOBIN: folder, CGO_ENABLED: "0" },
    });
    await mkdir(CACHE, { recursive: true });
    await rename(join(folder, "grpcurl"), binary);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return binary;
}

/** Runs grpcurl without TLS against `url`. A call that is refused is a result, not an error. */
export async function grpcurl(url: string, options: readonly string[], ...what: string[]): Promise<GrpcurlResult> {
  const binary = await grpcurlPath();
  try {
    const args = ["-plaintext", ...options, new URL(url).host, ...what];
    const { stdout, stderr } = await promisify(execFile)(binary, args, { timeout: 30_000 });
    return { exitCode: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    if (typeof code !== "number") throw error;
    return { exitCode: code, stdout: stdout ?? "", stderr: stderr ?? "" };
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

if (import.meta.main) await grpcurlPath();
