/**
 * The AssemblyScript build of the kernels, embedded in the bundle and compiled at first use.
 */
import bytes from '../../dist/kernels.wasm';
import type { Kernels } from './kernels.ts';

let compiled: WebAssembly.Module | undefined;

/** The compiled module; posting it to a worker shares the machine code with that worker. */
export function kernelModule(): WebAssembly.Module {
  compiled ??= new WebAssembly.Module(bytes);
  return compiled;
}

/** Takes over a module that another thread compiled. */
export function adoptKernelModule(module: WebAssembly.Module): void {
  compiled = module;
}

/** Binds the kernels to a memory. Costs well under a millisecond; the memory stays the caller's. */
export function wasmKernels(memory: WebAssembly.Memory, module = kernelModule()): Kernels {
  const instance = new WebAssembly.Instance(module, { env: { memory } });
  return { memory, ...instance.exports } as unknown as Kernels;
}
