/** What a new data file has, however sparse it is. */
import { alignUp } from '../base/bits.ts';
import { beginStorage } from '../storage/front.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import type { ListValues } from './option-list.ts';
import { textOf } from './qcow2-options.ts';

/** A data file is a raw file: its front has its room where nothing else gives it any. */
export async function beginDataFile(file: NodeFileStorage, values: ListValues): Promise<void> {
  const mode = textOf(values, 'preallocation', 'off');
  if (file.size() > 0 || mode === 'falloc' || mode === 'full') return;
  await beginStorage(file, alignUp(Number(values.get('size')?.number), 512));
}
