import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  // The signer's worker is a module, and starts itself again to search primes.
  worker: { format: "es" },
});
