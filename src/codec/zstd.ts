/** zstd for writing: libzstd compiled to WebAssembly. */

/** libzstd's default, which is QEMU's. */
const LEVEL = 3;

let ready: Promise<(bytes: Uint8Array, level: number) => Uint8Array> | undefined;

async function load() {
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
