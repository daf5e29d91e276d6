// Debian's Chromium, headless, and a server for the pages that run in it.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const MIME_TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.wasm': 'application/wasm',
};

/** What `chromium.launch` of playwright-core takes. */
export function launchOptions(executablePath) {
  return {
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  };
}

/**
 * Serves a folder to this machine alone, isolated as pages that share memory must be; `/` is an
 * empty page.
 *
 * @param extra files that lie elsewhere, by the paths that they are served at
 */
export async function serve(folder, extra = {}) {
  const page =
    '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>tests</title>';
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url, 'http://localhost').pathname);
    let body = page;
    try {
      if (path !== '/') body = readFileSync(extra[path] ?? join(folder, path));
    } catch {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      'content-type':
        MIME_TYPES[path === '/' ? '.html' : extname(path)] ?? 'application/octet-stream',
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-embedder-policy': 'require-corp',
      'cache-control': 'no-store',
    });
    response.end(body);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
