import { existsSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import type { MarkdownRenderer } from "vitepress";

/** Programs of the folders of `examples`, the ones that their READMEs run. */
const PROGRAMS: Readonly<Record<string, readonly string[]>> = {
  "examples/go": ["grpc/main.go", "connect/main.go"],
  "examples/python": ["chat.py"],
  "examples/java": ["Chat.java"],
  "examples/rust": ["src/main.rs"],
  "examples/node": ["chat.ts"],
  "examples/browser": ["chat.ts"],
  "examples/curl": ["chat.sh"],
};

/** Shows below the README of an example the program itself, which the repository has beside it. */
export function appendProgram(md: MarkdownRenderer, checkout: string): void {
  md.core.ruler.before("normalize", "programs of examples", (state) => {
    const folder = relative(checkout, dirname(state.env.realPath ?? state.env.path));
    const programs = PROGRAMS[folder] ?? [];
    for (const name of programs) {
      const file = join(checkout, folder, name);
      if (!existsSync(file)) throw new Error(`there is no ${file}`);
      state.src += `\n## ${name}\n\n<<< ${file}\n`;
    }
  });
}
