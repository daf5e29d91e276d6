/** The implementations that every kernel test runs over. */
import type { Kernels } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { twinKernels } from './twin/kernels.ts';

export const builds: Readonly<Record<'wasm' | 'twin', (memory: WebAssembly.Memory) => Kernels>> = {
  wasm: (memory) => wasmKernels(memory),
  twin: twinKernels,
};
