/** Rebasing as a library does it: what is refused, before anything is written. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { rebaseImage } from '../../src/convert/rebase.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';

const test = suite('rebase');
const SIZE = 2 ** 20;

async function refusal(work: Promise<void>): Promise<string | undefined> {
  try {
    await work;
    return undefined;
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    return cause.code;
  }
}

for (const raw of [true, false]) {
  const outcome = raw ? 'UNSUPPORTED' : undefined;
  test(`a backing file behind a data file, raw: ${raw}`, async () => {
    const data = memoryStorage();
    const options = { size: SIZE, dataFile: { name: 'data', raw } };
    const image = await Qcow2Image.create(memoryStorage(), options, { dataFile: async () => data });
    assert.is(image.mayHaveBacking, !raw);
    const disk = await RawImage.open(memoryStorage(new Uint8Array(SIZE).fill(7)));
    const before = await data.size();
    const backing = { name: 'base', format: 'raw' };
    assert.is(await refusal(rebaseImage(image, { ...backing, disk })), outcome);
    assert.is(await refusal(image.setBackingName(backing)), outcome);
    if (raw) assert.is(await data.size(), before);
    assert.is(await refusal(image.setBackingName(undefined)), undefined);
    await image.close();
    await disk.close();
  });
}

test.run();
