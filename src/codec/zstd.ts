/** zstd for writing: libzstd compiled to WebAssembly. */

import { Qcow2Error } from '../base/errors.ts';

/** libzstd's default, which is QEMU's. */
const LEVEL = 3;

let ready: Promise<(bytes: Uint8Array, level: number) => Uint8Array> | undefined;

async function load() {
  // In a page the package looks for its module by an address that it does not know.
  if (!('process' in globalThis)) {
    throw new Qcow2Error('UNSUPPORTED', 'zstd clusters cannot be written in browsers yet');
  }
  const { init, compress } = await import('@bokuweb/zstd-wasm');
  await init();
  return compress;
}

/** One cluster as a zstd frame. */
export async function zstdCluster(cluster: Uint8Array): Promise<Uint8Array> {
  ready ??= load();
  const compress = await ready;
  return compress(cluster, LEVEL);
}
