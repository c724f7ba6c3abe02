import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { goTool } from "./go-tools.ts";

/** The newest release when this was written; pinned, so that its output does not change under the tests. */
const GRPCURL = { name: "grpcurl", package: "github.com/fullstorydev/grpcurl/cmd/grpcurl", version: "v1.9.4" };

export interface GrpcurlResult {
  /** 0: the call went well; else 64 and the status code. */
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The path of grpcurl's binary. `make test` runs this file to have it built before a test waits for it. */
export function grpcurlPath(): Promise<string> {
  return goTool(GRPCURL);
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

if (import.meta.main) await grpcurlPath();
