/** Memory storage keeps the contract. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { memoryStorage } from '../../src/storage/memory.ts';
import { readingSuite, type StorageCase, writingSuite } from './contract.ts';

const memory: StorageCase = {
  make: async (bytes, options) => memoryStorage(bytes, options),
  dispose: async (storage) => storage.close(),
};

readingSuite('memory', memory);
writingSuite('memory', memory);

const test = suite('memory storage');

test('is empty and writable by default', () => {
  const storage = memoryStorage();
  assert.is(storage.size(), 0);
  assert.is(storage.writable, true);
});

test('a snapshot is a copy, as long as the storage', () => {
  const storage = memoryStorage();
  storage.write(0, Uint8Array.of(1, 2, 3));
  const copy = storage.snapshot();
  storage.write(0, Uint8Array.of(9));
  assert.equal(copy, Uint8Array.of(1, 2, 3));
});

test('a part of a larger buffer grows without touching its neighbours', () => {
  const buffer = new Uint8Array(100).fill(5);
  const storage = memoryStorage(buffer.subarray(10, 20));
  storage.write(5, new Uint8Array(50).fill(6));
  assert.is(storage.size(), 55);
  assert.equal(buffer.subarray(20), new Uint8Array(80).fill(5));
});

test('has no handle: only this thread can reach it', () => {
  assert.is(memoryStorage().share, undefined);
});

test.run();
