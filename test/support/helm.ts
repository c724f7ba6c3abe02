import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseAllDocuments } from "yaml";
import { goTool } from "./go-tools.ts";

export const HELM = { name: "helm", package: "helm.sh/helm/v4/cmd/helm", version: "v4.3.1" };

export const CHART = join(import.meta.dirname, "../../helm/parley");

/** A Kubernetes object, as far as tests look into it. */
// biome-ignore lint/suspicious/noExplicitAny: what is read of it is checked by what is expected of it
export type Manifest = any;

export interface HelmResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs Helm. What it refuses is a result, not an error. */
export async function helm(...args: readonly string[]): Promise<HelmResult> {
  const binary = await goTool(HELM);
  try {
    const { stdout, stderr } = await promisify(execFile)(binary, args, {
      timeout: 60_000,
      maxBuffer: 64 * 1024 * 1024,
    });
    return { exitCode: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    if (typeof code !== "number") throw error;
    return { exitCode: code, stdout: stdout ?? "", stderr: stderr ?? "" };
  }
}

export interface RenderOptions {
  /** Folder of the chart. Default: the project's. */
  readonly chart?: string;
  /** Values files. */
  readonly files?: readonly string[];
  /** `path=value`, as `--set` takes it. */
  readonly set?: readonly string[];
}

/** `helm template` of a release `parley` in the namespace `chat`, as text or as the sentence of its refusal. */
export function render({ chart = CHART, files = [], set = [] }: RenderOptions = {}): Promise<HelmResult> {
  const flags = [...files.flatMap((file) => ["--values", file]), ...set.flatMap((value) => ["--set", value])];
  return helm("template", "parley", chart, "--namespace", "chat", ...flags);
}

/** The objects of a render. Throws with Helm's sentence where it is refused. */
export async function renderObjects(options: RenderOptions = {}): Promise<Manifest[]> {
  const { exitCode, stdout, stderr } = await render(options);
  if (exitCode !== 0) throw new Error(stderr);
  return objectsOf(stdout);
}

export function objectsOf(text: string): Manifest[] {
  return parseAllDocuments(text)
    .map((document) => {
      const [error] = document.errors;
      if (error !== undefined) throw error;
      return document.toJS() as Manifest;
    })
    .filter((object) => object !== null);
}

if (import.meta.main) await goTool(HELM);
