/** A server's files keep the reading half of the contract; what servers do wrong is told. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { httpResourceStorage, openHttp } from '../../src/storage/http.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { randomBytes, readingSuite, type StorageCase } from './contract.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const servers = new Map<Storage, Server>();

async function serve(answer: Answer): Promise<{ readonly server: Server; readonly url: string }> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { server, url: `http://127.0.0.1:${port}/` };
}

function end(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}

interface Ranged {
  readonly bytes: () => Uint8Array;
  readonly headers?: Record<string, string>;
  readonly onRequest?: (request: IncomingMessage) => void;
}

/** What a file server does: one range, or the refusal of one that lies past the end. */
function ranged({ bytes, headers = {}, onRequest }: Ranged): Answer {
  return (request, response) => {
    onRequest?.(request);
    const all = bytes();
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const start = Number(from);
    const stop = Math.min(all.length, Number(to) + 1);
    if (start >= all.length) {
      response.writeHead(416, { ...headers, 'content-range': `bytes */${all.length}` }).end();
      return;
    }
    const range = `bytes ${start}-${stop - 1}/${all.length}`;
    response.writeHead(206, { ...headers, 'content-range': range });
    response.end(all.subarray(start, stop));
  };
}

const http: StorageCase = {
  make: async (bytes, { name }) => {
    const { server, url } = await serve(ranged({ bytes: () => bytes }));
    const opened = await openHttp(`${url}${encodeURIComponent(name)}`);
    const handle = opened.share?.();
    assert.ok(handle?.kind === 'http');
    // Named as the contract wants it: a URL has it percent-encoded.
    const storage = httpResourceStorage(handle.resource, name);
    servers.set(storage, server);
    return storage;
  },
  dispose: async (storage) => {
    await storage.close();
    await end(servers.get(storage) as Server);
  },
};

readingSuite('HTTP', http);

const test = suite('HTTP storage');

async function opening(answer: Answer): Promise<unknown> {
  const { server, url } = await serve(answer);
  try {
    await openHttp(url);
    return undefined;
  } catch (cause) {
    return cause;
  } finally {
    await end(server);
  }
}

test('a server without ranges is not supported, and its file is not fetched', async () => {
  let sent = 0;
  const cause = await opening((_, response) => {
    response.writeHead(200);
    const more = () => {
      while (!response.destroyed && response.write(new Uint8Array(65536))) sent += 65536;
      if (!response.destroyed) response.once('drain', more);
    };
    more();
  });
  assert.ok(isQcow2Error(cause, 'UNSUPPORTED'), String(cause));
  assert.ok(sent < 64 * 2 ** 20, `${sent} bytes were sent`);
});

test('ranges of something encoded are not ranges of the file', async () => {
  const headers = { 'content-encoding': 'gzip' };
  const cause = await opening(ranged({ bytes: () => new Uint8Array(100), headers }));
  assert.ok(cause !== undefined);
});

test('a length that nobody knows is not supported', async () => {
  const cause = await opening((_, response) => {
    response.writeHead(206, { 'content-range': 'bytes 0-0/*' }).end('x');
  });
  assert.ok(isQcow2Error(cause, 'UNSUPPORTED'), String(cause));
});

for (const status of [401, 404, 500]) {
  test(`status ${status} is an IO error that names it`, async () => {
    const cause = await opening((_, response) => {
      response.writeHead(status).end();
    });
    assert.ok(isQcow2Error(cause, 'IO'), String(cause));
    assert.match(String(cause), String(status));
  });
}

test('a server that is not there is an IO error', async () => {
  const { server, url } = await serve(() => {});
  await end(server);
  try {
    await openHttp(url);
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'IO'), String(cause));
  }
});

for (const kind of ['etag', 'last-modified'] as const) {
  test(`a file that changes while it is read is an IO error (${kind})`, async () => {
    let version = 1;
    const { server, url } = await serve((request, response) => {
      const value = kind === 'etag' ? `"${version}"` : `Sat, 0${version} Nov 2025 00:00:00 GMT`;
      const answer = ranged({ bytes: () => randomBytes(1_000_000), headers: { [kind]: value } });
      answer(request, response);
    });
    const storage = await openHttp(url);
    await storage.read(0, new Uint8Array(10));
    version = 2;
    for (const length of [10, 400_000]) {
      try {
        await storage.read(500_000, new Uint8Array(length));
        assert.unreachable();
      } catch (cause) {
        assert.ok(isQcow2Error(cause, 'IO'), String(cause));
      }
    }
    version = 1;
    assert.is(await storage.read(500_000, new Uint8Array(10)), 10, 'asked for anew');
    await storage.close();
    await end(server);
  });
}

test('a file that became shorter is an IO error', async () => {
  let bytes = randomBytes(1_000_000);
  const { server, url } = await serve(ranged({ bytes: () => bytes }));
  const storage = await openHttp(url);
  bytes = bytes.slice(0, 600_000);
  try {
    await storage.read(400_000, new Uint8Array(10));
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'IO'), String(cause));
  }
  await storage.close();
  await end(server);
});

test('headers go along with every request', async () => {
  const seen: unknown[] = [];
  const bytes = randomBytes(1_000_000);
  const onRequest = ({ headers }: IncomingMessage) => seen.push(headers.authorization);
  const { server, url } = await serve(ranged({ bytes: () => bytes, onRequest }));
  const storage = await openHttp(url, { headers: { authorization: 'Bearer x' } });
  await storage.read(0, new Uint8Array(600_000));
  await storage.read(700_000, new Uint8Array(10));
  assert.equal(seen, ['Bearer x', 'Bearer x', 'Bearer x']);
  await storage.close();
  await end(server);
});

test('large reads that follow one another come from one request', async () => {
  let requests = 0;
  const bytes = randomBytes(6_000_000);
  const onRequest = () => {
    requests++;
  };
  const { server, url } = await serve(ranged({ bytes: () => bytes, onRequest }));
  const storage = await openHttp(url);
  const into = new Uint8Array(500_000);
  for (let at = 0; at < bytes.length; at += into.length) {
    assert.is(await storage.read(at, into), into.length);
    assert.ok(into.every((byte, i) => byte === bytes[at + i]));
  }
  // One that asks for the length, the first read, and all the others.
  assert.is(requests, 3);
  // Back and far ahead: a request each.
  await storage.read(0, into);
  await storage.read(3_000_000, into);
  assert.is(requests, 5);
  await storage.close();
  await end(server);
});

test.run();
