import { createStaticFiles, type PageHandler } from "./static-files.ts";

/** Serves the documentation at `/docs/`, as `npm run build:docs` leaves it in a folder. */
export function createDocsFiles({ directory }: { directory: string }): PageHandler {
  return createStaticFiles({
    directory,
    root: "/docs/",
    // Its theme has the icons within its style sheet.
    imageSources: "'self' data:",
    notBuilt:
      "<h1>The documentation is not built</h1><p>Run <code>npm run build:docs</code>, then load this page again. " +
      "Its text is in the folder <code>docs</code> of the repository.</p>",
  });
}
