/** Opening chains: who opens what an image names, how far, and what is closed when that fails. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ErrorCode, isQcow2Error, Qcow2Error } from '../../src/base/errors.ts';
import { CHAIN_DEPTH_MAX } from '../../src/base/limits.ts';
import { probeFormat } from '../../src/image/formats.ts';
import type { Gate, GateRequest } from '../../src/image/gate.ts';
import { type OpenDiskOptions, openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { rng } from '../random.ts';
import { Ledger, wrapStorage } from './slow-storage.ts';
import { buildTiny, type TinyOptions } from './tiny-qcow2.ts';

const test = suite('open');

const PLAIN = { version: 3, clusterBits: 9, size: 4096 } as const;

function tiny(options: Partial<TinyOptions> = {}): Uint8Array {
  return buildTiny({ ...PLAIN, ...options }, new Map()).file;
}

/** Files by name, opened by a gate; counts what was opened and closed. */
class Folder {
  readonly ledger = new Ledger();
  readonly asked: GateRequest[] = [];

  constructor(
    readonly files: Record<string, Uint8Array>,
    private readonly late = false,
  ) {}

  open(name: string) {
    const bytes = this.files[name];
    if (!bytes) throw new Qcow2Error('IO', `no file ${name}`);
    const storage = memoryStorage(bytes, { name, writable: false });
    return wrapStorage(storage, { ledger: this.ledger, late: this.late ? rng() : undefined });
  }

  readonly gate: Gate = (request) => {
    this.asked.push(request);
    return this.open(request.name);
  };

  openDisk(name: string, options: OpenDiskOptions = {}) {
    return openDisk(this.open(name), { gate: this.gate, ...options });
  }

  assertClosed(): void {
    assert.is(this.ledger.opened, this.ledger.closed, 'all that was opened is closed');
    assert.equal(this.ledger.misuse, []);
  }
}

async function refused(work: () => Promise<unknown>, code: ErrorCode): Promise<string> {
  try {
    await work();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, code), `${code}, not ${cause}`);
    return cause.message;
  }
  assert.unreachable(`${code} was expected`);
  return '';
}

test('the default gate refuses backing files and data files, by name', async () => {
  for (const options of [{ backing: { name: 'x' } }, { dataFile: 'x' }] as const) {
    const folder = new Folder({ top: tiny(options) });
    const message = await refused(() => openDisk(folder.open('top')), 'REFUSED');
    assert.match(message, "'x'");
    folder.assertClosed();
  }
});

test('the gate is told who asks for what', async () => {
  const folder = new Folder({
    top: tiny({ backing: { name: 'middle', format: 'qcow2' } }),
    middle: tiny({ backing: { name: 'base', format: 'raw' }, dataFile: 'data' }),
    base: new Uint8Array(100),
    data: new Uint8Array(),
  });
  const disk = await folder.openDisk('top');
  assert.equal(folder.asked, [
    { kind: 'backing', name: 'middle', from: 'top', writable: false },
    { kind: 'data-file', name: 'data', from: 'middle', writable: false },
    { kind: 'backing', name: 'base', from: 'middle', writable: false },
  ]);
  assert.equal(
    disk.sources.map(({ storage, depth }) => [storage.name, depth]),
    [
      ['top', 0],
      ['middle', 1],
      ['data', 1],
      ['base', 2],
    ],
  );
  await disk.close();
  folder.assertClosed();
});

test('a backing format that is stated is believed, another one found out', async () => {
  const inner = tiny({ size: 8192 });
  for (const [format, size] of [
    [undefined, 8192],
    ['qcow2', 8192],
    ['raw', inner.length],
  ] as const) {
    const top = tiny({ size: 2 ** 16, backing: { name: 'base', format } });
    const folder = new Folder({ top, base: inner });
    const disk = await folder.openDisk('top');
    const [, base] = disk.sources;
    assert.is(base?.clusterSize, format === 'raw' ? 1 : 512);
    const extents = [];
    for await (const extent of disk.extents()) extents.push(extent);
    assert.is(extents[0]?.length, size);
    await disk.close();
  }
});

test('an unknown backing format is refused before anything is opened', async () => {
  const folder = new Folder({
    top: tiny({ backing: { name: 'base', format: 'vmdk' } }),
    base: tiny(),
  });
  const message = await refused(() => folder.openDisk('top'), 'UNSUPPORTED');
  assert.match(message, "Unknown driver 'vmdk'");
  assert.equal(folder.asked, []);
  folder.assertClosed();
});

test('a ring of backing files ends', async () => {
  const folder = new Folder({
    a: tiny({ backing: { name: 'b' } }),
    b: tiny({ backing: { name: 'a' } }),
    self: tiny({ backing: { name: 'self', format: 'qcow2' } }),
  });
  for (const name of ['a', 'self']) {
    const message = await refused(() => folder.openDisk(name), 'OUT_OF_RANGE');
    assert.match(message, 'backing chain');
    assert.ok(message.length < 200);
    folder.assertClosed();
  }
});

for (const [length, size] of [
  [CHAIN_DEPTH_MAX, 4096],
  [CHAIN_DEPTH_MAX, 2 ** 41],
  [CHAIN_DEPTH_MAX + 1, 4096],
] as const) {
  const works = length <= CHAIN_DEPTH_MAX;
  test(`${length} images of ${size} bytes ${works ? 'open' : 'are refused'}`, async () => {
    // Tables of the large ones take more than all memory that kernels can have.
    const clusterBits = size > 2 ** 20 ? 16 : 9;
    const files: Record<string, Uint8Array> = {};
    for (let index = 0; index < length; index++) {
      const options = { ...PLAIN, size, clusterBits };
      const last = index + 1 === length;
      // The last one has something to decode, so that memory is really needed.
      files[index] = last
        ? buildTiny(options, new Map([[2, { kind: 'zero' }]])).file
        : buildTiny({ ...options, backing: { name: `${index + 1}` } }, new Map()).file;
    }
    const folder = new Folder(files);
    if (works) {
      const disk = await folder.openDisk('0');
      const bytes = new Uint8Array(512).fill(1);
      await disk.read(2 * 2 ** clusterBits, bytes);
      assert.equal(bytes, new Uint8Array(512));
      await disk.close();
    } else {
      await refused(() => folder.openDisk('0'), 'OUT_OF_RANGE');
    }
    folder.assertClosed();
  });
}

test('what fails halfway closes what was opened, whatever fails', async () => {
  for (const late of [false, true]) {
    for (const bad of ['middle', 'base', 'data', 'gone']) {
      const files: Record<string, Uint8Array> = {
        top: tiny({ backing: { name: 'middle', format: 'qcow2' }, dataFile: 'data' }),
        middle: tiny({ backing: { name: 'base', format: 'qcow2' } }),
        base: tiny(),
        data: new Uint8Array(),
      };
      if (bad === 'data') delete files.data;
      else if (bad === 'gone') delete files.base;
      else files[bad] = new Uint8Array(1000);
      const folder = new Folder(files, late);
      await refused(() => folder.openDisk('top'), bad in files ? 'NOT_QCOW2' : 'IO');
      folder.assertClosed();
    }
  }
});

test('a gate that rejects is the opening’s failure, with its code', async () => {
  const folder = new Folder({ top: tiny({ backing: { name: 'base' } }) });
  const gate: Gate = async () => {
    throw new Qcow2Error('REFUSED', 'not that one');
  };
  const message = await refused(() => folder.openDisk('top', { gate }), 'REFUSED');
  assert.is(message, 'Could not open backing file: not that one');
  folder.assertClosed();
});

test('a snapshot of a raw image is refused', async () => {
  const folder = new Folder({ top: new Uint8Array(1000) });
  await refused(() => folder.openDisk('top', { snapshot: '1' }), 'UNSUPPORTED');
  folder.assertClosed();
});

test('probing takes what is not qcow2 for raw', async () => {
  const image = tiny();
  assert.is(await probeFormat(memoryStorage(image)), 'qcow2');
  assert.is(await probeFormat(memoryStorage(image.slice(0, 7))), 'raw');
  assert.is(await probeFormat(memoryStorage(new Uint8Array())), 'raw');
  assert.is(await probeFormat(memoryStorage(new TextEncoder().encode('QFI\u00fb text'))), 'raw');
});

test('a storage that fails at once is closed', async () => {
  const ledger = new Ledger();
  const cause = new Qcow2Error('IO', 'it broke');
  for (const format of [undefined, 'raw', 'qcow2'] as const) {
    const failing = { from: 0, to: 2 ** 40, cause };
    const storage = wrapStorage(memoryStorage(tiny()), { ledger, failing });
    const broken = { ...storage, size: () => Promise.reject(cause) };
    await refused(() => openDisk(broken, { format }), 'IO');
    assert.is(ledger.opened, ledger.closed);
  }
});

for (const late of [false, true]) {
  test(`a file’s failure comes out of reads and extents${late ? ', later' : ''}`, async () => {
    // Every L2 table and cluster of the base is out of reach; the overlay has nothing.
    const next = rng();
    const base = buildTiny(
      { ...PLAIN, size: 2 ** 18 },
      new Map(Array.from({ length: 500 }, (_, i) => [i, { kind: 'zero' }] as const)),
    ).file;
    const cause = new Qcow2Error('IO', 'it broke');
    const ledger = new Ledger();
    // Some zeros in each of the overlay's tables: it walks those while the base is failing.
    const top = buildTiny(
      { ...PLAIN, size: 2 ** 18, backing: { name: 'base', format: 'qcow2' } },
      new Map(Array.from({ length: 8 }, (_, i) => [i * 64 + 9, { kind: 'zero' }] as const)),
    ).file;
    const wait = late ? next : undefined;
    const failing = { from: 2 ** 40, to: 2 ** 40, cause };
    const disk = await openDisk(wrapStorage(memoryStorage(top), { ledger, late: wait }), {
      gate: () => {
        return wrapStorage(memoryStorage(base), { ledger, late: wait, failing });
      },
    });
    failing.from = 0;
    const walk = async () => {
      for await (const extent of disk.extents()) assert.ok(extent);
    };
    const read = () => disk.read(0, new Uint8Array(2 ** 18));
    const results = await Promise.allSettled([walk(), read(), walk(), read()]);
    for (const result of results) {
      assert.is(result.status, 'rejected');
      if (result.status === 'rejected') assert.is(result.reason, cause);
    }
    await disk.close();
    assert.ok(ledger.settled);
  });
}

test.run();
