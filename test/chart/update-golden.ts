import { mkdir, rm, writeFile } from "node:fs/promises";
import { render } from "../support/helm.ts";
import { EXAMPLES, GOLDEN } from "./examples.ts";

// Writes what the examples render to. Look at the difference before you commit it.
await rm(GOLDEN, { recursive: true, force: true });
await mkdir(GOLDEN, { recursive: true });
for (const { file, golden } of EXAMPLES) {
  const { exitCode, stdout, stderr } = await render({ files: [file] });
  if (exitCode !== 0) throw new Error(`${file}: ${stderr}`);
  await writeFile(golden, stdout);
}
