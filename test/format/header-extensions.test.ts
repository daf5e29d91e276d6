import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { serializeBitmapExtension } from '../../src/format/bitmap-directory.ts';
import { serializeCryptoHeaderPointer } from '../../src/format/crypto-header-pointer.ts';
import { serializeFeatureNameTable } from '../../src/format/feature-name-table.ts';
import type { Header } from '../../src/format/header.ts';
import {
  ExtensionType,
  parseHeaderExtensions,
  parseRawExtensions,
  serializeExtension,
} from '../../src/format/header-extensions.ts';
import { rng, SEED } from '../random.ts';
import { buildImage } from './image-builder.ts';
import { refused } from './refused.ts';

const test = suite('header extensions');
const START = 112;
const encode = (text: string) => new TextEncoder().encode(text);

type Listed = readonly { readonly type: number; readonly data: Uint8Array }[];

/** The first cluster of an image of 4 KiB clusters with these extensions. */
function clusterWith(list: Listed, overrides: Partial<Header> = {}) {
  const { bytes, header } = buildImage({ clusterBits: 12, extensions: list });
  return { bytes: bytes.subarray(0, 4096), header: { ...header, ...overrides } };
}

function parse(list: Listed, overrides?: Partial<Header>) {
  const { bytes, header } = clusterWith(list, overrides);
  return parseHeaderExtensions(bytes, header);
}

test('what is not known comes back as it was written', () => {
  const next = rng();
  for (let i = 0; i < 300; i++) {
    const list = Array.from({ length: next.below(8) }, () => ({
      type: 0x1000_0000 + next.below(2 ** 24),
      data: new Uint8Array(next.below(100)).map(() => next.below(256)),
    }));
    const { unknown } = parse(list);
    const back = unknown.map(({ type, data }) => ({ type, data: data.slice() }));
    assert.equal(back, list, `SEED=${SEED}`);
  }
});

test('each is padded to 8 bytes, and knows where its data is', () => {
  const list = [1, 2, 3].map((type) => ({ type, data: new Uint8Array(type * 3).fill(type) }));
  const { bytes, header } = clusterWith(list);
  const found = [...parseRawExtensions(bytes, header)];
  assert.equal(
    found.map(({ at }) => at),
    [START + 8, START + 24, START + 40],
  );
  assert.is(serializeExtension(1, new Uint8Array(9)).length, 24);
  assert.is(serializeExtension(1, new Uint8Array()).length, 8);
});

test('names end at a NUL, and the last extension of a type wins', () => {
  const { backingFormat, dataFileName } = parse([
    { type: ExtensionType.backingFormat, data: encode('raw') },
    { type: ExtensionType.backingFormat, data: encode('qcow2\0\0') },
    { type: ExtensionType.dataFileName, data: encode('data.räw') },
  ]);
  assert.equal([backingFormat, dataFileName], ['qcow2', 'data.räw']);
});

test('a backing format has at most 15 bytes', () => {
  const named = (length: number) =>
    parse([{ type: ExtensionType.backingFormat, data: encode('x'.repeat(length)) }]);
  assert.is(named(15).backingFormat, 'x'.repeat(15));
  const message = 'ERROR: ext_backing_format: len=16 too large (>=16)';
  refused(() => named(16), 'CORRUPT', START, message);
});

test('the feature name table is read', () => {
  const names = [{ type: 0, bit: 0, name: 'dirty bit' }];
  const data = serializeFeatureNameTable(names);
  assert.equal(parse([{ type: ExtensionType.featureNames, data }]).featureNames, names);
});

test('bitmaps count only where their autoclear bit is set', () => {
  const value = { count: 1, directoryBytes: 32, directoryOffset: 8192 };
  const list = [{ type: ExtensionType.bitmaps, data: serializeBitmapExtension(value) }];
  const trusted = parse(list, { autoclear: { high: 0, low: 1 } });
  assert.equal([trusted.bitmaps, trusted.bitmapsInconsistent], [value, false]);
  const outOfDate = parse(list);
  assert.equal([outOfDate.bitmaps, outOfDate.bitmapsInconsistent], [undefined, true]);
  for (const length of [0, 23, 25, 32]) {
    const wrong = [{ type: ExtensionType.bitmaps, data: new Uint8Array(length) }];
    const message = 'bitmaps_ext: Invalid extension length';
    refused(() => parse(wrong), 'CORRUPT', START, message);
  }
});

test('a LUKS header belongs to LUKS encryption', () => {
  const value = { offset: 8192, length: 4096 };
  const list = [{ type: ExtensionType.cryptoHeader, data: serializeCryptoHeaderPointer(value) }];
  assert.equal(parse(list, { cryptMethod: 2 }).cryptoHeader, value);
  for (const cryptMethod of [0, 1]) {
    const message = 'CRYPTO header extension only expected with LUKS encryption method';
    refused(() => parse(list, { cryptMethod }), 'CORRUPT', START, message);
  }
});

test('one that reaches past the area is refused', () => {
  const { bytes, header } = clusterWith([{ type: 7, data: new Uint8Array(8) }]);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (const length of [4096 - START - 7, 2 ** 31, 2 ** 32 - 1]) {
    view.setUint32(START + 4, length);
    refused(
      () => parseHeaderExtensions(bytes, header),
      'CORRUPT',
      START,
      'Header extension too large',
    );
  }
  // The last one that fits, and the area ends without an end marker.
  view.setUint32(START + 4, 4096 - START - 8);
  assert.is(parseHeaderExtensions(bytes, header).unknown.length, 1);
});

test('the area ends at the backing name', () => {
  const { bytes, header } = clusterWith([{ type: 7, data: new Uint8Array(8) }]);
  const parseTo = (backingNameOffset: number) =>
    parseHeaderExtensions(bytes, { ...header, backingNameOffset });
  assert.is(parseTo(START + 16).unknown.length, 1);
  refused(() => parseTo(START + 15), 'CORRUPT', START, 'Header extension too large');
  refused(() => parseTo(START + 20), 'CORRUPT', START + 16, 'Header extension too large');
});

test('what is wrong with one is found before what is wrong with the next', () => {
  const { bytes, header } = clusterWith([
    { type: ExtensionType.backingFormat, data: new Uint8Array(16) },
    { type: 7, data: new Uint8Array(8) },
  ]);
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(START + 24 + 4, 2 ** 32 - 1);
  refused(() => parseHeaderExtensions(bytes, header), 'CORRUPT', START, /^ERROR: ext_backing/);
});

test('a file that ends within the area has zeros there', () => {
  const { bytes, header } = clusterWith([{ type: 7, data: new Uint8Array(8) }]);
  assert.is(parseHeaderExtensions(bytes.subarray(0, START + 16), header).unknown.length, 1);
  assert.is(parseHeaderExtensions(bytes.subarray(0, START + 7), header).unknown.length, 0);
  const part = bytes.subarray(0, START + 12);
  assert.throws(() => parseHeaderExtensions(part, header), /^header extension is cut short$/);
});

test.run();
