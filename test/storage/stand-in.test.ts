// What stands in for storage keeps nothing for itself: whoever holds the storage sees all of it.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { borrowed } from '../../src/storage/borrowed.ts';
import { holdHead } from '../../src/storage/held-head.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { standIn } from '../../src/storage/stand-in.ts';

const test = suite('storage that stands in for another');

test('state stays where it is', async () => {
  const inner = memoryStorage();
  const outer = borrowed(inner);
  await outer.truncate(10);
  await outer.write(8, Uint8Array.of(1, 2, 3));
  await outer.zero(9, 1);
  assert.equal([...inner.snapshot()], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3]);
  assert.is(await inner.size(), 11);
  inner.truncate(9);
  assert.is(await outer.size(), 9);
  assert.is(outer.name, inner.name);
});

test('closing what is borrowed closes nothing', async () => {
  let closed = 0;
  const inner = { close: () => void closed++ };
  await borrowed(borrowed(inner)).close();
  assert.is(closed, 0);
  inner.close();
  assert.is(closed, 1);
});

test('methods of classes, of their parents and of objects are found, the nearest first', () => {
  class Parent {
    count = 0;
    get twice() {
      return this.count * 2;
    }
    add() {
      return ++this.count;
    }
    named() {
      return 'parent';
    }
  }
  class Child extends Parent {
    override named() {
      return 'child';
    }
  }
  const inner = new Child();
  const outer = standIn(inner, {});
  outer.add();
  outer.add();
  assert.equal([inner.count, outer.count, outer.twice, outer.named()], [2, 2, 4, 'child']);
  assert.instance(outer, Child);
  assert.is(standIn(inner, { named: () => 'own' }).named(), 'own');
});

test('held bytes are seen by whoever wrote them, and by others once they are let go', async () => {
  const inner = memoryStorage();
  const { storage, release } = holdHead(inner);
  await storage.truncate(0);
  await storage.write(0, Uint8Array.of(1, 2));
  await storage.write(2, Uint8Array.of(3, 4, 5, 6));
  assert.equal([...inner.snapshot()], [0, 0, 0, 0, 5, 6]);
  const seen = new Uint8Array(6);
  assert.is(await storage.read(0, seen), 6);
  assert.equal([...seen], [1, 2, 3, 4, 5, 6]);
  const middle = new Uint8Array(4);
  await storage.read(2, middle);
  assert.equal([...middle], [3, 4, 5, 6]);
  const front = new Uint8Array(6);
  await storage.cursor(0, 6).read(front);
  assert.equal([...front], [1, 2, 3, 4, 5, 6]);
  await release();
  assert.equal([...inner.snapshot()], [1, 2, 3, 4, 5, 6]);
  await storage.write(0, Uint8Array.of(9));
  assert.equal([...inner.snapshot()], [9, 2, 3, 4, 5, 6]);
});

test.run();
