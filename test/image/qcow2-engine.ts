/** The library's own engine, as the proofs of writing see it. */
import type { Qcow2CreateOptions } from '../../src/image/qcow2/create.ts';
import { Qcow2Image, type Qcow2OpenOptions } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import type { FileOpener } from './paged-bytes.ts';
import { BACKING, DATA, IMAGE, type WriteEngine, type WriteSetting } from './write-engine.ts';

/** @param cacheBytes for tables: little, so that they have to go and come back */
export function qcow2Engine(cacheBytes = 65536): WriteEngine {
  const opening = (files: FileOpener): Qcow2OpenOptions => ({
    writable: true,
    cacheBytes,
    backing: (name) => RawImage.open(files.open(name)),
    dataFile: async (name) => files.open(name || DATA),
    dataFileUnnamed: true,
  });
  return {
    create: (files, setting) =>
      Qcow2Image.create(files.open(IMAGE), createOptions(setting), opening(files)),
    open: (files) => Qcow2Image.open(files.open(IMAGE), opening(files)),
  };
}

/** The engine's words for a setting. */
export function createOptions(setting: WriteSetting): Qcow2CreateOptions {
  const { size, version, clusterBits, refcountBits, lazy, extended, dataFile } = setting;
  return {
    size,
    version,
    clusterSize: 2 ** clusterBits,
    refcountBits,
    lazyRefcounts: lazy,
    extendedL2: extended,
    compression: setting.compression === 'zstd' ? 'zstd' : 'deflate',
    ...(setting.backingBytes === undefined ? {} : { backing: { name: BACKING, format: 'raw' } }),
    ...(dataFile === 'none' ? {} : { dataFile: { name: DATA, raw: dataFile === 'raw' } }),
  };
}
