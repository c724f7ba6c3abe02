import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const PROJECT = join(import.meta.dirname, "../..");

/** A fenced block of a document. */
export interface Snippet {
  /** Path of the document in the checkout. */
  readonly document: string;
  /** Number of the line that the block's first one is, from 1 on. */
  readonly line: number;
  /** Empty: a picture, or what a command printed. */
  readonly language: string;
  readonly code: string;
}

/** All fenced blocks of what a reader of the documentation may come to, in the order of the documents' names. */
export function readSnippets(): Snippet[] {
  const documents = readdirSync(PROJECT, { recursive: false, encoding: "utf8" }).filter((name) => name.endsWith(".md"));
  for (const folder of ["docs", "examples", "helm/parley", "bench"]) documents.push(...documentsIn(folder));
  return documents.toSorted().flatMap(snippetsOf);
}

function documentsIn(folder: string): string[] {
  return readdirSync(join(PROJECT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    // What an example has installed and generated.
    if (entry.isDirectory()) return /^(node_modules|\..*|gen|target|dist)$/.test(entry.name) ? [] : documentsIn(path);
    return entry.name.endsWith(".md") ? [path] : [];
  });
}

function snippetsOf(document: string): Snippet[] {
  const text = readFileSync(join(PROJECT, document), "utf8");
  return [...text.matchAll(/^```(\w*).*\n([\s\S]*?)^```$/gm)].map(({ index, 1: language = "", 2: code = "" }) => ({
    document,
    line: text.slice(0, index).split("\n").length + 1,
    language,
    code: code.trimEnd(),
  }));
}
