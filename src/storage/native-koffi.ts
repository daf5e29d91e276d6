/**
 * koffi, an optional package that calls functions of native libraries: those of the C library, and
 * those that Node's own program shows to addons.
 *
 * Linux on 64-bit little-endian machines only. Anywhere else, without the package, and with
 * QCOW2_NATIVE=0 in the environment there is none, and callers do without.
 */

/** A native function. Pointers are given as arrays of numbers, or as what another call returned. */
export interface NativeCall {
  (...args: unknown[]): number | bigint;
  /**
   * Has a thread of Node's pool do it. The last argument is told what came of it; what pointers
   * point to is to stay where it is until then.
   */
  async(...args: unknown[]): void;
}

/** What of koffi's interface is used here. */
export interface Koffi {
  /** @param path null: what the running program has */
  load(path: null): { func(definition: string): NativeCall };
  errno(): number;
}

/** What of Node's modules the search for it takes: this file is also part of what browsers load. */
export interface KoffiSearch {
  readonly createRequire: (from: string) => (name: string) => unknown;
  readonly existsSync: (path: string) => boolean;
  readonly endianness: () => string;
}

/** Machines where it is used, by Node's name and by that of musl, the other C library. */
const MACHINES: Record<string, string> = {
  x64: 'x86_64',
  arm64: 'aarch64',
  riscv64: 'riscv64',
  loong64: 'loongarch64',
};

/** koffi, or undefined where it cannot be had. A package for another machine is no error. */
export function loadKoffi({
  createRequire,
  existsSync,
  endianness,
}: KoffiSearch): Koffi | undefined {
  const { env, platform, arch } = process;
  if (env.QCOW2_NATIVE === '0' || platform !== 'linux') return undefined;
  const machine = Object.hasOwn(MACHINES, arch) ? MACHINES[arch] : undefined;
  if (machine === undefined || endianness() !== 'LE') return undefined;
  // Not `import`: callers are synchronous. Looked for from where this code lies, so that it is
  // found beside an installed package and in a clone alike.
  const require = createRequire(import.meta.url);
  // Its own binary by its path saves the two thirds of the time that its loader takes to find out
  // which C library this is.
  const binary = existsSync(`/lib/ld-musl-${machine}.so.1`)
    ? []
    : [`@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`];
  for (const name of [...binary, 'koffi']) {
    try {
      return require(name) as Koffi;
    } catch {
      // The next one, then.
    }
  }
  return undefined;
}
