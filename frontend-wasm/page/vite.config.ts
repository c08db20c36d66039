import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { defineConfig, type Plugin } from "vite";

/** Names of settings rather than of code: they may differ between two places that serve one build. */
const NOT_HASHED = new Set(["config.json", "index.html", "build.json"]);

function files(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true })
    .flatMap(entry => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? files(path) : [path];
    })
    .sort();
}

/**
 * Gives the build its id: a hash over every file of it. Page and gateway compare it, so that a page
 * left open over an update says so. Written into `index.html` and `build.json`, which are therefore
 * not part of it.
 */
function buildId(): Plugin {
  let directory = "";
  return {
    name: "duet-build-id",
    apply: "build",
    configResolved(config) {
      directory = resolve(config.root, config.build.outDir);
    },
    writeBundle: {
      order: "post",
      handler() {
        const index = join(directory, "index.html");
        const marker = '<meta name="duet-build" content="" />';
        const html = readFileSync(index, "utf8");
        if (!html.includes(marker)) throw new Error("index.html has no place for the build id");
        const hash = createHash("sha256");
        const add = (name: string, content: Buffer | string) => {
          hash.update(`${name}\n${Buffer.byteLength(content)}\n`).update(content);
        };
        for (const path of files(directory)) {
          const name = relative(directory, path).replaceAll("\\", "/");
          if (!NOT_HASHED.has(name)) add(name, readFileSync(path));
        }
        add("index.html", html);
        const build = hash.digest("hex").slice(0, 32);
        writeFileSync(index, html.replace(marker, `<meta name="duet-build" content="${build}" />`));
        writeFileSync(join(directory, "build.json"), `${JSON.stringify({ build })}\n`);
      },
    },
  };
}

export default defineConfig({
  // Relative, so that the page works under any path.
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    // Modern browsers preload modules by themselves; the polyfill would be an inline script.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    sourcemap: false,
  },
  worker: { format: "es" },
  plugins: [buildId()],
});
