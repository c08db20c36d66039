// The web server of a developer or operator: folders under its own origin, which the gateway is
// told to permit.

import { createReadStream, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/**
 * Serves `folders`, an object from a name to a folder, as `/<name>/…` on a free port. Folders may
 * be added while it serves. With `tls`, the files of a certificate and its key, it serves https.
 * `host` is the name in the URL for the browser.
 */
export async function serveSite(folders, { host = "localhost", tls, headers = {} } = {}) {
  const answer = (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const [, name, ...rest] = normalize(decodeURIComponent(pathname)).split("/");
    const folder = Object.hasOwn(folders, name) ? folders[name] : undefined;
    let file = folder === undefined ? "" : join(folder, ...rest);
    if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) file = join(file, "index.html");
    if (!statSync(file, { throwIfNoEntry: false })?.isFile()) {
      response.writeHead(404).end();
      return;
    }
    const type = TYPES[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { "Content-Type": type, "Cache-Control": "no-store", ...headers });
    createReadStream(file).pipe(response);
  };
  const server =
    tls === undefined
      ? createServer(answer)
      : createTlsServer(
          { cert: readFileSync(tls.certificate), key: readFileSync(tls.key) },
          answer,
        );
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `${tls === undefined ? "http" : "https"}://${host}:${server.address().port}`,
    folders,
    headers,
    close: () =>
      new Promise(resolve => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  };
}
