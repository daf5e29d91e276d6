/** Rules before storage, parts of storage, and storage of nothing. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { DEBUG_EVENTS, DEBUG_REQUESTS, type DebugEvent } from '../../src/storage/debug-events.ts';
import { DebugRules, type InjectRule } from '../../src/storage/debug-rules.ts';
import { DebugStorage } from '../../src/storage/debug-storage.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { nullStorage } from '../../src/storage/null.ts';
import { WindowStorage } from '../../src/storage/window.ts';
import { readingSuite, type StorageCase, writingSuite } from './contract.ts';

const debugged: StorageCase = {
  make: async (bytes, options) =>
    new DebugStorage(memoryStorage(bytes, options), new DebugRules([], [])),
  dispose: async (storage) => storage.close(),
};
const AT = 777;
const part: StorageCase = {
  make: async (bytes, options) => {
    const whole = new Uint8Array(AT + bytes.length).fill(0xee);
    whole.set(bytes, AT);
    return new WindowStorage(memoryStorage(whole, options), AT, undefined);
  },
  dispose: async (storage) => storage.close(),
};

readingSuite('storage with rules', debugged);
writingSuite('storage with rules', debugged);
readingSuite('a part of storage', part);
writingSuite('a part of storage', part);

const test = suite('storage with rules');

function rule(event: DebugEvent, more: Partial<InjectRule> = {}): InjectRule {
  const requests = new Set(DEBUG_REQUESTS.filter((one) => one !== 'block-status'));
  return { event, state: 0, errno: 5, once: false, at: undefined, requests, ...more };
}

test('requests fail after the event, once or until another rule takes over', () => {
  const rules = new DebugRules([rule('l2_load', { once: true }), rule('write_aio')], []);
  const storage = new DebugStorage(memoryStorage(new Uint8Array(512)), rules);
  const read = () => storage.read(0, new Uint8Array(8));
  assert.is(read(), 8);
  storage.announce('l2_load');
  assert.throws(read, (err: unknown) => isQcow2Error(err, 'IO'));
  assert.is(read(), 8);
  storage.announce('write_aio');
  assert.throws(read);
  assert.throws(read);
});

test('a sector and a kind of request narrow a rule; ENOSPC is what it is', () => {
  const inject = rule('none', { at: 1024, errno: 28, requests: new Set(['write'] as const) });
  const storage = new DebugStorage(memoryStorage(), new DebugRules([inject], []));
  storage.write(0, new Uint8Array(1024));
  const over = () => storage.write(1000, new Uint8Array(100));
  assert.throws(over, (err: unknown) => isQcow2Error(err, 'NO_SPACE'));
  storage.zero(1024, 512);
  assert.is(storage.read(1024, new Uint8Array(8)), 8);
});

test('states make rules wait for each other', () => {
  const states = [{ event: 'l2_load', state: 1, newState: 2 } as const];
  const rules = new DebugRules([rule('write_aio', { state: 2 })], states);
  rules.happens('write_aio');
  assert.is(rules.failure('read', 0, 1), 0);
  rules.happens('l2_load');
  rules.happens('write_aio');
  assert.is(rules.failure('read', 0, 1), 5);
});

test('a breakpoint holds the next one who comes along', async () => {
  const rules = new DebugRules([], []);
  rules.addBreak('write_aio', 'A');
  let gone = false;
  const held = Promise.resolve(rules.happens('write_aio')).then(() => {
    gone = true;
  });
  await rules.whenHeld('A');
  assert.is(gone, false);
  assert.is(rules.happens('write_aio'), undefined);
  assert.ok(rules.resume('A'));
  await held;
  assert.is(rules.resume('A'), false);
  assert.is(rules.removeBreak('A'), false);
});

test('a part with a size ends there', () => {
  const storage = new WindowStorage(memoryStorage(new Uint8Array(4096)), 512, 1024);
  assert.is(storage.size(), 1024);
  assert.is(storage.read(1000, new Uint8Array(100)), 24);
  assert.throws(() => storage.write(1000, new Uint8Array(100)));
  assert.throws(() => storage.truncate(2048));
});

test('nothing has a size, and zeros where told', () => {
  const bytes = new Uint8Array(16).fill(7);
  const storage = nullStorage({ name: 'null-co://', size: 8, readZeroes: true });
  storage.write(0, bytes);
  assert.is(storage.read(0, bytes), 8);
  assert.equal([...bytes], [...new Array(8).fill(0), ...new Array(8).fill(7)]);
});

/** Work that comes by as many steps as it can. */
async function work(image: Qcow2Image): Promise<void> {
  const bytes = new Uint8Array(3000).fill(0x5a);
  for (let at = 0; at < 600_000; at += 37_000) await image.write(at, bytes);
  await image.flush();
  await image.snapshots.create({ name: 'one' });
  await image.write(100, bytes);
  await image.writeCompressed(512 * 2000, new Uint8Array(512));
  await image.discard(0, 512 * 100);
  await image.resize(2 ** 30);
  await image.read(37_000, bytes);
  await image.flush();
}

const OPTIONS = { size: 2 ** 21, clusterSize: 512, refcountBits: 64 } as const;

test('whichever step fails, the image stays sound', async () => {
  const met = new Set<DebugEvent>();
  for (const event of DEBUG_EVENTS) {
    for (const errno of [5, 28]) {
      const file = memoryStorage();
      const made = await Qcow2Image.create(file, OPTIONS);
      // A table that is there has to be read.
      await made.write(0, new Uint8Array(512));
      await made.close();
      const rules = new DebugRules([rule(event, { errno, once: true })], []);
      const happens = rules.happens.bind(rules);
      rules.happens = (one) => {
        met.add(one);
        return happens(one);
      };
      try {
        const storage = new DebugStorage(file, rules);
        const image = await Qcow2Image.open(storage, { writable: true });
        try {
          await work(image);
        } finally {
          await image.close();
        }
      } catch (cause) {
        if (!isQcow2Error(cause)) throw cause;
      }
      const again = await Qcow2Image.open(file, { writable: true });
      const { corruptions } = await again.check();
      assert.is(corruptions, 0, `${event}, errno ${errno}`);
      await again.close();
    }
  }
  const expected = ['l2_load', 'l2_update', 'l1_update', 'l2_alloc_write', 'refblock_alloc_write'];
  const more = ['write_aio', 'read_aio', 'cow_read', 'cluster_alloc', 'cluster_free'];
  for (const event of [...expected, ...more, 'flush_to_disk', 'l1_grow_write_table']) {
    assert.ok(met.has(event as DebugEvent), `${event} was announced`);
  }
});

test.run();
